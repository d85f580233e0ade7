"""What commands print: a table for people, or one JSON document on stdout for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console()
err = Console(stderr=True)


def show(data: Any, *, as_json: bool) -> None:
    """Print a document: rows as a table, a mapping as pairs. Outside text is never markup."""
    if as_json:
        print(json.dumps(data, ensure_ascii=False, default=str))
    elif isinstance(data, Mapping):
        _pairs(data)
    else:
        _rows(data)


def _pairs(data: Mapping[str, Any]) -> None:
    table = Table(show_header=False)
    for name, value in data.items():
        table.add_row(Text(str(name)), _cell(value))
    out.print(table)


def _rows(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        out.print("nothing")
        return
    table = Table()
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    out.print(table)


def _cell(value: Any) -> Text:
    if isinstance(value, Mapping):
        return Text(", ".join(f"{name} {count}" for name, count in value.items()))
    if isinstance(value, list):
        return Text("\n".join(_line(one) for one in value))
    return Text("" if value is None else str(value))


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(str(part) for part in value.values() if part is not None)
    return str(value)
