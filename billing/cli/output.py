"""What commands print: a table for people, or one JSON document on stdout for programs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Cells folded at column 80 are no use to `grep`, and no rows to a reader. Nor is a table without an
# edge: one long cell would pad every row of it.
_WIDTH_IN_A_PIPE = 200


def _console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    folded = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, width=None if folded else _WIDTH_IN_A_PIPE)


out = _console()
err = _console(stderr=True)

# Moments are printed in Seoul's time anyway; a person needs neither seconds nor offset.
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\+09:00")


def show(data: Any, *, as_json: bool, leave_out: Collection[str] = ()) -> None:
    """Print a document: rows as a table, a mapping as pairs. Outside text is never markup.

    `leave_out` names columns that a table has no room for, or parts of what stands in a column
    (`attempts.planned_at`); `--json` always has them all.
    """
    if as_json:
        print(json.dumps(data, ensure_ascii=False, default=str), flush=True)
    elif isinstance(data, Mapping):
        _pairs(data)
    else:
        _rows(data, leave_out)


def say(text: str) -> None:
    """A line beside a table."""
    out.print(text, markup=False, highlight=False)


def _pairs(data: Mapping[str, Any]) -> None:
    table = Table(show_header=False)
    for name, value in data.items():
        table.add_row(Text(str(name)), _cell(value))
    out.print(table)


def _rows(rows: Sequence[Mapping[str, Any]], leave_out: Collection[str]) -> None:
    if not rows:
        out.print("nothing")
        return
    table = Table()
    names = [name for name in rows[0] if name not in leave_out]
    for name in names:
        is_number = isinstance(rows[0][name], int) and not isinstance(rows[0][name], bool)
        table.add_column(name, overflow="fold", justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*(_cell(row[name], _within(name, leave_out)) for name in names))
    out.print(table)


def _within(column: str, leave_out: Collection[str]) -> set[str]:
    return {one.removeprefix(f"{column}.") for one in leave_out if one.startswith(f"{column}.")}


def _cell(value: Any, leave_out: Collection[str] = ()) -> Text:
    lines = value if isinstance(value, list) else [value]
    return Text("\n".join(_line(one, leave_out) for one in lines))


def _line(value: Any, leave_out: Collection[str]) -> str:
    """Each value beside its name; what there is none of is left out."""
    if isinstance(value, Mapping):
        told = [(name, _plain(part)) for name, part in value.items() if name not in leave_out]
        return ", ".join(f"{name} {text}" for name, text in told if text)
    return _plain(value)


def _plain(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else _MOMENT.sub(r"\1 \2", str(value))
