"""The calendar's rule a second time, in the words of the rule instead of in arithmetic.

It knows no month lengths and no leap years: it walks the days of the calendar one by one, and
filters the days of a month by what the rule says of each. Shares no code with `billing.domain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from typing import NamedTuple


class MonthPlan(NamedTuple):
    """What the rule says of one month: days of that month."""

    due: date
    window: tuple[date, ...]
    band: tuple[date, ...]
    first_attempt: date


def months_between(first: date, last: date) -> list[tuple[date, ...]]:
    """Every calendar month that has a day in [first, last], each as the days it has in there."""
    months: list[list[date]] = []
    day = first
    while True:
        if not months or months[-1][-1].month != day.month:
            months.append([])
        months[-1].append(day)
        if day == last:
            return [tuple(days) for days in months]
        day += timedelta(days=1)


@cache
def plan_month(
    days: Sequence[date], anchor_day: int, window_days: int = 5, retry_days: int = 3
) -> MonthPlan:
    """The rule for a month with these days."""
    on_the_day = [day for day in days if day.day == anchor_day]
    due = on_the_day[0] if on_the_day else days[-1]
    window = tuple(day for day in days if abs(day - due) <= timedelta(days=window_days))
    six_days = range(anchor_day, anchor_day + 6) if anchor_day < 26 else range(26, 32)
    band = tuple(day for day in window if day.day in six_days)
    leave_enough = [
        day
        for position, day in enumerate(band)
        if day <= due and len(band) - position - 1 >= retry_days
    ]
    return MonthPlan(due, window, band, leave_enough[-1] if leave_enough else band[0])
