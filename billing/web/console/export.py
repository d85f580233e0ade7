"""CSV for spreadsheets: streamed, readable by Excel, and safe from cells that are formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from starlette.responses import Response, StreamingResponse

# A cell that begins so is a formula to a spreadsheet, whatever blanks stand before it; the wide
# forms are typed in Korea and mean the same to some.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_BOM = "\ufeff"


def csv_response(
    name: str,
    header: Sequence[str],
    pages: Iterable[Sequence[Any]],
    row: Callable[[Any], Sequence[object]],
) -> Response:
    """A file of every row of these pages; read and sent a page at a time."""

    def lines() -> Iterator[str]:
        yield _BOM + _line(header)
        for page in pages:
            yield "".join(_line(row(one)) for one in page)

    return StreamingResponse(
        lines(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="maewol-{name}.csv"'},
    )


def _line(cells: Sequence[object]) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n").writerow(
        [safe(cell) for cell in cells]
    )
    return out.getvalue()


def safe(cell: object) -> str | int:
    """A cell that every spreadsheet shows and none runs."""
    if cell is None:
        return ""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return cell
    text = cell.isoformat(timespec="seconds") if isinstance(cell, datetime) else str(cell)
    # Control characters are nobody's data; a tab or a line end may begin a formula, too.
    text = "".join(char if char.isprintable() else " " for char in text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
