"""When a month may be charged: cycles, due days, windows and bands, as Asia/Seoul dates.

The rule (sources and doubts: design notes on the gateway, section 1). The anchor is the date of the
initial payment. Cycle k belongs to the k-th calendar month after the anchor's and is due on the
anchor day, clamped to that month's last day and always counted from the anchor, so that it never
drifts (31 Jan, 29 Feb, 31 Mar).

- The *window* is what the gateway may accept: the due day ±5 days, clipped to the calendar month,
  since exactly one payment belongs in every calendar month.
- The *band* is where we plan attempts: month days min(anchor day, 26) to five days later. Any two
  payments inside it are at most five days of the month apart, so the gateway is content whether it
  counts from the initial payment or from last month's.

Pure arithmetic: only `day_of`, `start_of` and `end_of` know of moments and time zones.
"""

from __future__ import annotations

from calendar import isleap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from billing.domain.errors import InvalidInput

SEOUL: Final = ZoneInfo("Asia/Seoul")
# A day from either end of the calendar, so that each is a moment in every time zone.
FIRST_MOMENT: Final = datetime(1, 1, 2, tzinfo=UTC)
LAST_MOMENT: Final = datetime(9999, 12, 30, tzinfo=UTC)

# "매월 동일한 날짜(오차 5일 내)": the same date every month, five days of error to either side.
GATEWAY_MARGIN_DAYS: Final = 5
# The last day from which six days of a 31-day month remain.
LATEST_BAND_OPENING: Final = 26

_ONE_DAY: Final = timedelta(days=1)
_MONTH_LENGTHS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class Window:
    """A run of days, both ends included. Also used for the band."""

    opens_on: date
    closes_on: date

    def __contains__(self, day: date) -> bool:
        return self.opens_on <= day <= self.closes_on


@dataclass(frozen=True, slots=True)
class CalendarPolicy:
    """What an operator may choose of the calendar. Both in days.

    `window_days` may only narrow the gateway's margin of 5; `band_retry_days` is how many days
    should remain in the band after the first attempt. Raises `InvalidInput` out of range.
    """

    window_days: int = GATEWAY_MARGIN_DAYS
    band_retry_days: int = 3

    def __post_init__(self) -> None:
        if type(self.window_days) is not int or not 0 <= self.window_days <= GATEWAY_MARGIN_DAYS:
            raise InvalidInput(
                "WINDOW_DAYS",
                self.window_days,
                "the gateway accepts a payment at most 5 days from the due day",
                "Use a whole number from 0 to 5",
            )
        if type(self.band_retry_days) is not int or self.band_retry_days < 0:
            raise InvalidInput(
                "BAND_RETRY_DAYS",
                self.band_retry_days,
                "days cannot be fewer than none",
                "Use a whole number from 0 up; 3 is usual",
            )


@dataclass(frozen=True, slots=True)
class CycleDates:
    """The dates of one cycle, all in one calendar month. `month` is that month's first day."""

    number: int
    month: date
    due_on: date
    window: Window
    band: Window
    first_attempt_on: date

    @property
    def last_attempt_on(self) -> date:
        """The last day on which an attempt may be made."""
        return self.band.closes_on


_USUAL: Final = CalendarPolicy()


# Everybody who was first paid on one day shares these.
@lru_cache(maxsize=4096)
def cycle_dates(anchor_on: date, number: int, policy: CalendarPolicy = _USUAL) -> CycleDates:
    """The dates of cycle `number` (from 1) of a subscription first paid on `anchor_on`.

    Raises `InvalidInput` for a number below 1 and for months beyond the year 9999.
    """
    if number < 1:
        raise InvalidInput("cycle", number, "cycles are numbered from 1", "Use 1 or more")
    year, month0 = divmod(_month_index(anchor_on) + number, 12)
    if year > date.max.year:
        raise InvalidInput(
            "cycle", number, f"counted from {anchor_on} it lies beyond the year 9999", "Use less"
        )
    month = month0 + 1
    length = 29 if month == 2 and isleap(year) else _MONTH_LENGTHS[month0]

    due = min(anchor_on.day, length)
    opens = max(due - policy.window_days, 1)
    closes = min(due + policy.window_days, length)
    # Inside the window by itself, unless WINDOW_DAYS was lowered. The due day is always in both.
    low = min(anchor_on.day, LATEST_BAND_OPENING)
    first = max(low, opens)
    last = min(low + GATEWAY_MARGIN_DAYS, closes)
    attempt = max(first, min(due, last - policy.band_retry_days))

    return CycleDates(
        number=number,
        month=date(year, month, 1),
        due_on=date(year, month, due),
        window=Window(date(year, month, opens), date(year, month, closes)),
        band=Window(date(year, month, first), date(year, month, last)),
        first_attempt_on=date(year, month, attempt),
    )


def cycles(
    anchor_on: date, policy: CalendarPolicy = _USUAL, start: int = 1
) -> Iterator[CycleDates]:
    """Every cycle from `start` on, in order. Raises `InvalidInput` after the year 9999."""
    number = start
    while True:
        yield cycle_dates(anchor_on, number, policy)
        number += 1


def cycle_number_of(anchor_on: date, day: date) -> int:
    """The number of the cycle whose calendar month holds `day`; 0 is the anchor's own month.

    Raises `InvalidInput` for a day in a month before the anchor's.
    """
    number = _month_index(day) - _month_index(anchor_on)
    if number < 0:
        raise InvalidInput(
            "day", day.isoformat(), f"lies before the initial payment of {anchor_on}", "Check both"
        )
    return number


def first_cycle(
    anchor_on: date,
    enrolled_at: datetime,
    last_paid_on: date | None = None,
    policy: CalendarPolicy = _USUAL,
    zone: ZoneInfo = SEOUL,
) -> int:
    """The first cycle that is ours to charge: the earliest whose window had not closed at enrolment
    and which `last_paid_on` does not cover. A payment covers its calendar month and all before.

    Raises `InvalidInput` when the dates contradict each other (a payment before the initial one, or
    after the enrolment).
    """
    # The gateway's clock may be ahead of ours by a moment, at midnight too.
    enrolled_on = max(day_of(enrolled_at, zone), anchor_on)
    number = max(cycle_number_of(anchor_on, enrolled_on), 1)
    if enrolled_on > cycle_dates(anchor_on, number, policy).window.closes_on:
        number += 1
    if last_paid_on is None:
        return number
    if not anchor_on <= last_paid_on <= enrolled_on:
        raise InvalidInput(
            "last_paid_on",
            last_paid_on.isoformat(),
            f"must lie from the initial payment ({anchor_on}) to the enrolment ({enrolled_on})",
            "Give the Asia/Seoul date of the newest payment, or leave it out",
        )
    return max(number, cycle_number_of(anchor_on, last_paid_on) + 1)


def day_of(moment: datetime, zone: ZoneInfo = SEOUL) -> date:
    """The date on the wall calendar of `zone` at this moment.

    Raises `ValueError` for a naive moment and `InvalidInput` at the ends of the calendar.
    """
    if moment.utcoffset() is None:
        raise ValueError(f"a moment needs an offset: {moment.isoformat()}")
    try:
        return moment.astimezone(zone).date()
    except OverflowError as error:
        raise beyond(moment) from error


def start_of(day: date, zone: ZoneInfo = SEOUL) -> datetime:
    """The first moment of a day, in UTC. Raises `InvalidInput` at the ends of the calendar."""
    try:
        return datetime.combine(day, time.min, zone).astimezone(UTC)
    except OverflowError as error:
        raise beyond(day) from error


def end_of(day: date, zone: ZoneInfo = SEOUL) -> datetime:
    """The first moment after a day, which is the start of the next, in UTC.

    Raises `InvalidInput` at the ends of the calendar.
    """
    if day == date.max:
        raise beyond(day)
    return start_of(day + _ONE_DAY, zone)


def _month_index(day: date) -> int:
    """Months since the year 0, so that months can be counted."""
    return day.year * 12 + day.month - 1


def beyond(value: date) -> InvalidInput:
    """What to raise for a date after, or before, which the calendar has no other."""
    return InvalidInput(
        "date",
        value.isoformat(),
        "lies too near the end of the calendar (years 1 to 9999)",
        "Use a date that a subscription can have",
    )
