"""Calendar arithmetic of phone billing: months without days, days clamped and windows clipped."""

from __future__ import annotations

import calendar
from datetime import date, timedelta

Month = tuple[int, int]


def month_of(day: date) -> Month:
    """The calendar month of a day."""
    return day.year, day.month


def after(month: Month, count: int = 1) -> Month:
    """The month `count` months later; below zero goes back."""
    months = month[0] * 12 + month[1] - 1 + count
    return months // 12, months % 12 + 1


def clamped(month: Month, day: int) -> date:
    """Day `day` of a month, or its last where there is none. No source names the rule for month
    ends (docs/gateway.md §1); clamping stays inside the margin under every reading."""
    return date(*month, min(day, calendar.monthrange(*month)[1]))


def within(today: date, expected_day: int, margin: int) -> bool:
    """Whether `today` is at most `margin` days from the expected day of its own month. What spills
    into a neighbour month does not count: each month has its own payment."""
    return abs(today - clamped(month_of(today), expected_day)) <= timedelta(days=margin)
