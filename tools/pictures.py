"""Draws the pictures of docs/concepts.md from the calendar's own rules.

python tools/pictures.py            writes them
python tools/pictures.py --check    exit 1 where one that is kept is not what would be drawn
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from xml.sax.saxutils import escape

from billing.domain.calendar import CycleDates, cycle_dates, cycle_number_of

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"

_FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans KR', sans-serif"
_STYLE = """
    text { fill: #0f172a }
    .small { font-size: 12px; fill: #475569 }
    .grid { stroke: #e2e8f0 }
    .window { fill: #dbeafe; stroke: #1d4ed8 }
    .band { fill: #60a5fa }
    .due { fill: #0f172a }
    .first { fill: #047857 }
    .declined { fill: #b45309 }
    .paid { fill: #047857 }
    .way { fill: none; stroke: #475569; stroke-width: 1.5 }"""


def pictures() -> dict[str, str]:
    """Every picture by the name of its file."""
    return {"window-and-band.svg": _windows(), "one-month.svg": _one_month()}


# -- window and band: one month for several anchors ------------------------------------------------

_LEFT, _TOP, _CELL, _ROW = 190, 74, 21, 46
_ANCHORS = (3, 15, 24, 28, 31)
_MONTHS = ((2026, 11), (2027, 2))


def _windows() -> str:
    parts = [*_legend(_LEFT, 28)]
    top = _TOP
    for year, month in _MONTHS:
        parts += _month(year, month, top)
        top += _ROW * len(_ANCHORS) + 56
    return _svg(
        _LEFT + 31 * _CELL + 24,
        top - 20,
        "Window and band",
        "For anchor days 3, 15, 24, 28 and 31, in November and in February: the billing window is"
        " the due day and five days to either side within the month; the band is at most six days"
        " of it; the first attempt leaves three days for retries.",
        parts,
    )


def _legend(x: float, y: float) -> Iterator[str]:
    yield f'<rect class="window" x="{x}" y="{y - 12}" width="26" height="16" rx="3"/>'
    yield _text(x + 34, y, "window 결제 가능 기간")
    yield f'<rect class="band" x="{x + 190}" y="{y - 12}" width="26" height="16" rx="3"/>'
    yield _text(x + 224, y, "band 시도 구간")
    yield f'<circle class="due" cx="{x + 348}" cy="{y - 4}" r="5"/>'
    yield _text(x + 360, y, "due 예정일")
    yield f'<path class="first" d="M{x + 448} {y - 11}l8 14h-16z"/>'
    yield _text(x + 464, y, "first attempt 첫 시도")


def _month(year: int, month: int, top: float) -> Iterator[str]:
    length = (date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)).day
    yield _text(20, top, f"{year}-{month:02d}", weight=600)
    for day in range(1, length + 1):
        middle = _middle(day)
        yield _text(middle, top, str(day), small=True, anchor="middle")
        bottom = top + 8 + _ROW * len(_ANCHORS)
        yield f'<path class="grid" d="M{middle} {top + 8}V{bottom}"/>'
    for row, anchor_day in enumerate(_ANCHORS):
        # October has a 31st, and every month shown comes after it.
        anchor_on = date(2026, 10, anchor_day)
        dates = cycle_dates(anchor_on, cycle_number_of(anchor_on, date(year, month, 1)))
        yield from _row(dates, anchor_day, top + 14 + row * _ROW)


def _row(dates: CycleDates, anchor_day: int, top: float) -> Iterator[str]:
    yield _text(20, top + 20, f"anchor day {anchor_day}")
    for name, span, inset in (("window", dates.window, 0), ("band", dates.band, 6)):
        left = _middle(span.opens_on.day) - _CELL / 2
        width = (span.closes_on.day - span.opens_on.day + 1) * _CELL
        yield (
            f'<rect class="{name}" x="{left:g}" y="{top + inset}" width="{width}"'
            f' height="{30 - 2 * inset}" rx="4"/>'
        )
    yield f'<circle class="due" cx="{_middle(dates.due_on.day):g}" cy="{top + 15}" r="5"/>'
    first = _middle(dates.first_attempt_on.day)
    yield f'<path class="first" d="M{first:g} {top + 24}l8 14h-16z"/>'


def _middle(day: int) -> float:
    return _LEFT + (day - 0.5) * _CELL


# -- one month of one subscription: a cycle and its attempts ---------------------------------------

# What happens in the example: day, hour, and what became of the attempt.
_TRIED = (
    (20, 10, "declined", "bill unpaid"),
    (21, 10, "declined", "bill unpaid"),
    (22, 10, "paid", ""),
)
_FROM, _WIDE = 15, 68


def _one_month() -> str:
    dates = cycle_dates(date(2026, 10, 20), 1)
    parts = [
        _text(24, 34, "cycle 1, November 2026 (anchor: 20 October)", weight=600),
        *_days(),
        *_span("window", dates.window.opens_on.day, dates.window.closes_on.day, 96, "window 15–25"),
        *_span("band", dates.band.opens_on.day, dates.band.closes_on.day, 140, "band 20–25"),
        *_attempts(),
    ]
    return _svg(
        _place(26) + 24,
        330,
        "One month of one subscription",
        "The cycle is due on the 20th. Attempt 1 on the 20th and attempt 2 on the 21st are"
        " declined; attempt 3 on the 22nd is approved, and the cycle is paid. Each attempt has a"
        " merchant_uid of its own.",
        parts,
    )


def _days() -> Iterator[str]:
    for day in range(_FROM, 27):
        yield f'<path class="grid" d="M{_place(day):g} 64V300"/>'
        if day < 26:
            yield _text(_place(day) + _WIDE / 2, 80, str(day), small=True, anchor="middle")


def _span(name: str, opens: int, closes: int, top: float, label: str) -> Iterator[str]:
    left, width = _place(opens), (closes - opens + 1) * _WIDE
    yield f'<rect class="{name}" x="{left:g}" y="{top}" width="{width}" height="32" rx="5"/>'
    yield _text(left + 10, top + 21, label)


def _attempts() -> Iterator[str]:
    for number, (day, hour, status, why) in enumerate(_TRIED, start=1):
        x, y = _place(day) + _WIDE * hour / 24, 206 + 34 * (number - 1)
        yield f'<path class="way" d="M{x:g} 172V{y - 8}"/>'
        yield f'<circle class="{status}" cx="{x:g}" cy="{y}" r="8"/>'
        told = "approved: the cycle is paid" if status == "paid" else f"declined: {why}"
        yield _text(x + 16, y + 5, f"attempt {number}, {told}")
        yield _text(x - 16, y + 5, f"mw-…-202611-{number:02d}", small=True, anchor="end")


def _place(day: int) -> float:
    return 24 + (day - _FROM) * _WIDE


# -- drawing ---------------------------------------------------------------------------------------


def _text(
    x: float, y: float, text: str, *, small: bool = False, anchor: str = "start", weight: int = 400
) -> str:
    kind = ' class="small"' if small else ""
    bold = f' font-weight="{weight}"' if weight != 400 else ""
    end = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:g}" y="{y:g}"{kind}{bold}{end}>{escape(text)}</text>'


def _svg(width: float, height: float, title: str, told: str, parts: list[str]) -> str:
    body = "\n".join(f"  {part}" for part in parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img"'
        f' aria-labelledby="t d" font-family="{_FONT}" font-size="14">\n'
        f'  <title id="t">{escape(title)}</title>\n  <desc id="d">{escape(told)}</desc>\n'
        f"  <style>{_STYLE}\n  </style>\n"
        f'  <rect width="{width:g}" height="{height:g}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def main(arguments: list[str]) -> int:
    """Write or compare; returns the exit code."""
    stale = 0
    for name, text in pictures().items():
        path = FOLDER / name
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"docs/pictures/{name} is stale: python tools/pictures.py", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
