"""What addresses ask for, read with care: a month, a page, a number of weeks."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import Query

# The id of the last row of the page before.
Before = Annotated[int | None, Query(ge=1, lt=2**63)]


def month_asked(text: str | None, today: date) -> date:
    """The first day of a month such as `2026-11`; this month where it is none."""
    try:
        year, _, month = (text or "").partition("-")
        asked = date(int(year), int(month), 1)
    except (ValueError, OverflowError):
        return today.replace(day=1)
    return asked if 2000 <= asked.year <= 2100 else today.replace(day=1)
