"""Lists as files: streamed, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from starlette.responses import Response, StreamingResponse

from billing.presenting import cells


def csv_response(
    name: str,
    header: Sequence[str],
    pages: Iterable[Sequence[Any]],
    row: Callable[[Any], Sequence[object]],
) -> Response:
    """A file of every row of these pages; read and sent a page at a time."""
    return csv_file(f"maewol-{name}.csv", cells.lines(header, (map(row, page) for page in pages)))


def csv_file(name: str, lines: Iterator[str]) -> Response:
    """The same, of lines that are made already."""
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=kept_as(name))


def kept_as(name: str) -> dict[str, str]:
    """The header by which a browser keeps what it gets, under this name."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}
