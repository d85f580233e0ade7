"""Lists as files: streamed, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    return StreamingResponse(
        cells.lines(header, (map(row, page) for page in pages)),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="maewol-{name}.csv"'},
    )
