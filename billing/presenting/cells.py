"""CSV for spreadsheets: readable by Excel, and safe from cells that are formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

# A cell that begins so is a formula to a spreadsheet, whatever blanks stand before it; the wide
# forms are typed in Korea and mean the same to some.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_BOM = "\ufeff"
_JOINERS = "\u200c\u200d"
_BLANK = " \u00a0\u3000" + _JOINERS


def lines(header: Sequence[str], pages: Iterable[Iterable[Sequence[object]]]) -> Iterator[str]:
    """The text of a file, a page of rows at a time."""
    yield _BOM + _line(header)
    for page in pages:
        yield "".join(map(_line, page))


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
    # Control characters are nobody's data; a tab or a line end may begin a formula, too. Joiners
    # are somebody's: an emoji or a Persian name is made of them.
    text = "".join(char if char.isprintable() or char in _JOINERS else " " for char in text)
    return f"'{text}" if text.lstrip(_BLANK).startswith(_FORMULA) else text
