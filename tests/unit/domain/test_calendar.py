"""The calendar against a second, differently written one, and against the rule's own promises."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.domain.calendar import (
    FIRST_MOMENT,
    LAST_MOMENT,
    SEOUL,
    CalendarPolicy,
    CycleDates,
    Window,
    cycle_dates,
    cycle_number_of,
    cycles,
    day_of,
    end_of,
    first_cycle,
    start_of,
)
from billing.domain.errors import InvalidInput
from tests.unit.domain.calendar_oracle import MonthPlan, months_between, plan_month

ANCHORS = st.dates(date(1999, 1, 1), date(2399, 12, 31))
NUMBERS = st.integers(1, 480)
POLICIES = st.builds(CalendarPolicy, st.integers(0, 5), st.integers(0, 40))


def as_oracle(dates: CycleDates) -> tuple[date, ...]:
    window, band = dates.window, dates.band
    return (
        dates.month,
        dates.due_on,
        window.opens_on,
        window.closes_on,
        band.opens_on,
        band.closes_on,
        dates.first_attempt_on,
    )


def from_oracle(days: tuple[date, ...], plan: MonthPlan) -> tuple[date, ...]:
    window, band = plan.window, plan.band
    return (days[0], plan.due, window[0], window[-1], band[0], band[-1], plan.first_attempt)


# A leap year between two that are none, a century that is none, and one that is.
YEARS = (2023, 2024, 2025, 2026, 2096, 2099, 2100, 2104, 2399, 2400)


def test_every_anchor_day_and_the_fourteen_months_after_it() -> None:
    """Every day of years that show all orders of month lengths there are, and of each the next
    fourteen months: each calendar month, and two of them a second time a year later."""
    anchors = 0
    for year in YEARS:
        months = months_between(date(year, 1, 1), date(year + 2, 3, 31))
        by_anchor_day = [
            {anchor: from_oracle(days, plan_month(days, anchor)) for anchor in range(1, 32)}
            for days in months
        ]
        for index, days in enumerate(months[:12]):
            for anchor_on in days:
                anchors += 1
                for number in range(1, 15):
                    expected = by_anchor_day[index + number][anchor_on.day]
                    assert as_oracle(cycle_dates(anchor_on, number)) == expected, anchor_on
    assert anchors == 10 * 365 + 4


@pytest.mark.parametrize("start", [1, 2, 29])
def test_cycles_follow_each_other(start: int) -> None:
    anchor_on = date(2023, 12, 31)
    found = list(islice(cycles(anchor_on, start=start), 14))
    assert found == [cycle_dates(anchor_on, start + more) for more in range(14)]


def test_every_policy_in_every_shape_of_month() -> None:
    """All 31 anchor days, month lengths and WINDOW_DAYS, and BAND_RETRY_DAYS from 0 to 7."""
    months = months_between(date(2023, 1, 1), date(2024, 12, 31))
    assert {len(days) for days in months} == {28, 29, 30, 31}
    for anchor_day in range(1, 32):
        anchor_on = date(2022, 12, anchor_day)
        for number, days in enumerate(months, start=1):
            for window_days in range(6):
                for retry_days in range(8):
                    policy = CalendarPolicy(window_days, retry_days)
                    plan = plan_month(days, anchor_day, window_days, retry_days)
                    found = as_oracle(cycle_dates(anchor_on, number, policy))
                    assert found == from_oracle(days, plan), (anchor_on, number, policy)


@pytest.mark.parametrize(
    ("anchor", "number", "due", "window", "band", "first"),
    [
        ("2024-01-31", 1, "2024-02-29", "24..29", "26..29", 26),
        ("2023-01-31", 1, "2023-02-28", "23..28", "26..28", 26),
        ("2024-01-31", 2, "2024-03-31", "26..31", "26..31", 28),
        ("2024-01-31", 3, "2024-04-30", "25..30", "26..30", 27),
        ("2024-01-20", 1, "2024-02-20", "15..25", "20..25", 20),
        ("2024-12-01", 1, "2025-01-01", "1..6", "1..6", 1),
        ("2024-02-29", 12, "2025-02-28", "23..28", "26..28", 26),
        ("2024-02-29", 48, "2028-02-29", "24..29", "26..29", 26),
        ("2100-01-29", 1, "2100-02-28", "23..28", "26..28", 26),
        ("2000-01-29", 1, "2000-02-29", "24..29", "26..29", 26),
    ],
)
def test_dates_that_people_ask_about(
    anchor: str, number: int, due: str, window: str, band: str, first: int
) -> None:
    dates = cycle_dates(date.fromisoformat(anchor), number)

    def days(run: Window) -> str:
        return f"{run.opens_on.day}..{run.closes_on.day}"

    assert dates.due_on == date.fromisoformat(due)
    assert (days(dates.window), days(dates.band)) == (window, band)
    assert dates.first_attempt_on.day == first
    assert dates.last_attempt_on == dates.band.closes_on
    assert dates.month == dates.due_on.replace(day=1)


@given(ANCHORS, NUMBERS, NUMBERS, POLICIES)
@settings(max_examples=300, deadline=None)
def test_payments_inside_the_bands_please_either_reading_of_the_rule(
    anchor_on: date, number: int, other: int, policy: CalendarPolicy
) -> None:
    """Whether the gateway counts from the initial payment or from last month's: at most 5 days."""
    ours, theirs = cycle_dates(anchor_on, number, policy), cycle_dates(anchor_on, other, policy)
    for day in _days_of(ours.band):
        assert day in ours.window
        assert abs(day - ours.due_on) <= timedelta(days=policy.window_days)
        assert abs(day.day - anchor_on.day) <= 5
        assert all(abs(day.day - their_day.day) <= 5 for their_day in _days_of(theirs.band))


@given(ANCHORS, NUMBERS, POLICIES)
@settings(max_examples=300, deadline=None)
def test_each_cycle_lives_in_its_own_calendar_month(
    anchor_on: date, number: int, policy: CalendarPolicy
) -> None:
    dates = cycle_dates(anchor_on, number, policy)
    months = {day.replace(day=1) for run in (dates.window, dates.band) for day in _days_of(run)}
    assert months == {dates.month}
    assert cycle_number_of(anchor_on, dates.due_on) == number
    assert dates.due_on in dates.band
    assert dates.first_attempt_on in dates.band
    assert dates.first_attempt_on <= dates.due_on


def test_the_first_attempt_leaves_days_to_retry() -> None:
    for anchor_day in range(1, 32):
        for dates in islice(cycles(date(2022, 12, anchor_day)), 36):
            spare = dates.band.closes_on - dates.first_attempt_on
            short_month = dates.band.closes_on - dates.band.opens_on < timedelta(days=3)
            assert spare >= timedelta(days=3) or short_month


@given(ANCHORS, st.integers(0, 2_000), st.integers(0, 2_000), POLICIES)
@settings(max_examples=300, deadline=None)
def test_the_first_cycle_by_walking_through_the_cycles(
    anchor_on: date, enrolled_after: int, paid_after: int, policy: CalendarPolicy
) -> None:
    enrolled_on = anchor_on + timedelta(days=enrolled_after)
    last_paid_on = min(anchor_on + timedelta(days=paid_after), enrolled_on)
    noon = start_of(enrolled_on) + timedelta(hours=12)

    still_open = (d for d in cycles(anchor_on, policy) if d.window.closes_on >= enrolled_on)
    assert first_cycle(anchor_on, noon, None, policy) == next(still_open).number

    ours = (
        dates
        for dates in cycles(anchor_on, policy)
        if dates.window.closes_on >= enrolled_on
        and (dates.month.year, dates.month.month) > (last_paid_on.year, last_paid_on.month)
    )
    assert first_cycle(anchor_on, noon, last_paid_on, policy) == next(ours).number


def test_a_window_closes_with_its_last_day_in_seoul() -> None:
    anchor = date(2024, 1, 10)
    last_moment = datetime(2024, 2, 15, 14, 59, 59, tzinfo=UTC)
    assert first_cycle(anchor, last_moment) == 1
    assert first_cycle(anchor, last_moment + timedelta(seconds=1)) == 2


@pytest.mark.parametrize("last_paid_on", [date(2024, 1, 9), date(2024, 3, 2), date(2042, 2, 1)])
def test_a_last_payment_outside_the_subscription_is_refused(last_paid_on: date) -> None:
    enrolled_at = datetime(2024, 3, 1, tzinfo=UTC)
    with pytest.raises(InvalidInput, match=r"^last_paid_on=") as refused:
        first_cycle(date(2024, 1, 10), enrolled_at, last_paid_on)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("last_paid_on", "first"),
    [(None, 2), (date(2024, 1, 10), 2), (date(2024, 2, 29), 2), (date(2024, 3, 1), 3)],
)
def test_a_payment_covers_its_month_and_all_before(last_paid_on: date | None, first: int) -> None:
    """From the day of the initial payment to that of the enrolment, both included."""
    enrolled_at = datetime(2024, 3, 1, 3, tzinfo=UTC)
    assert first_cycle(date(2024, 1, 10), enrolled_at, last_paid_on) == first


def test_a_window_holds_both_its_ends() -> None:
    window = Window(date(2024, 3, 5), date(2024, 3, 7))
    days = [date(2024, 3, day) for day in range(3, 10)]
    assert [day.day for day in days if day in window] == [5, 6, 7]


def test_cycle_numbers_count_calendar_months() -> None:
    anchor = date(2023, 12, 31)
    assert cycle_number_of(anchor, date(2023, 12, 1)) == 0
    assert cycle_number_of(anchor, date(2024, 1, 1)) == 1
    assert cycle_number_of(anchor, date(2025, 12, 31)) == 24
    with pytest.raises(InvalidInput, match=r"^day=.*before the initial payment"):
        cycle_number_of(anchor, date(2023, 11, 30))


def test_cycles_may_start_anywhere() -> None:
    anchor = date(2024, 1, 31)
    assert [d.number for d in islice(cycles(anchor, start=7), 3)] == [7, 8, 9]


@pytest.mark.parametrize("number", [0, -1])
def test_cycles_are_numbered_from_one(number: int) -> None:
    with pytest.raises(InvalidInput, match=r"^cycle=.*from 1"):
        cycle_dates(date(2024, 1, 31), number)


def test_the_calendar_ends_clearly_with_the_year_9999() -> None:
    assert cycle_dates(date(9999, 11, 30), 1).window.closes_on == date(9999, 12, 31)
    with pytest.raises(InvalidInput, match=r"^cycle=.*beyond the year 9999"):
        cycle_dates(date(9999, 12, 1), 1)
    with pytest.raises(InvalidInput, match=r"^cycle=.*beyond the year 9999"):
        cycle_dates(date(2024, 1, 1), 10**9)
    with pytest.raises(InvalidInput, match=r"^date=.*end of the calendar"):
        end_of(date.max)
    with pytest.raises(InvalidInput, match=r"^date=.*end of the calendar"):
        start_of(date.min)
    with pytest.raises(InvalidInput, match=r"^date=.*end of the calendar"):
        day_of(datetime.max.replace(tzinfo=UTC))


@pytest.mark.parametrize("window_days", [-1, 6, True, 2.5])
def test_the_window_may_only_be_narrowed(window_days: int) -> None:
    with pytest.raises(InvalidInput, match=r"^WINDOW_DAYS="):
        CalendarPolicy(window_days=window_days)


def test_a_policy_may_be_as_narrow_as_one_day() -> None:
    policy = CalendarPolicy(window_days=0, band_retry_days=0)
    assert cycle_dates(date(2024, 1, 31), 2, policy).first_attempt_on == date(2024, 3, 31)


@pytest.mark.parametrize("band_retry_days", [-1, False, 0.5])
def test_retry_days_are_whole_days(band_retry_days: int) -> None:
    with pytest.raises(InvalidInput, match=r"^BAND_RETRY_DAYS="):
        CalendarPolicy(band_retry_days=band_retry_days)


def test_days_are_days_in_seoul() -> None:
    assert day_of(datetime(2024, 1, 31, 14, 59, tzinfo=UTC)) == date(2024, 1, 31)
    assert day_of(datetime(2024, 1, 31, 15, 0, tzinfo=UTC)) == date(2024, 2, 1)
    assert start_of(date(2024, 2, 1)) == datetime(2024, 1, 31, 15, tzinfo=UTC)
    assert start_of(date(2024, 2, 1)).tzinfo is UTC
    with pytest.raises(ValueError, match="needs an offset"):
        day_of(datetime(2024, 1, 31))  # noqa: DTZ001  # the naive moment is the point


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Asia/Seoul", "2026-10-25", 24),
        ("Europe/Amsterdam", "2026-10-25", 25),
        ("Europe/Amsterdam", "2026-03-29", 23),
        ("Australia/Lord_Howe", "2026-10-04", 23.5),
    ],
)
def test_a_day_is_as_long_as_its_zone_makes_it(zone: str, day: str, hours: float) -> None:
    on, where = date.fromisoformat(day), ZoneInfo(zone)
    assert end_of(on, where) - start_of(on, where) == timedelta(hours=hours)


@given(ANCHORS, st.integers(0, 10**9), st.integers(0, 999_999))
@settings(max_examples=300, deadline=None)
def test_every_moment_lies_in_exactly_its_own_day(
    some_day: date, seconds: int, microseconds: int
) -> None:
    moment = start_of(some_day) + timedelta(seconds=seconds, microseconds=microseconds)
    day = day_of(moment)
    assert start_of(day) <= moment < end_of(day)
    assert end_of(day) == start_of(day + timedelta(days=1), SEOUL)


def _days_of(run: Window) -> list[date]:
    length = (run.closes_on - run.opens_on).days + 1
    return [run.opens_on + timedelta(days=n) for n in range(length)]


@pytest.mark.parametrize(
    "away", [timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)]
)
def test_the_ends_of_the_calendar_are_moments_in_every_zone(away: timedelta) -> None:
    """A day from either end, and no further: whatever lies between can be shown anywhere."""
    a_day = timedelta(days=1)
    assert (FIRST_MOMENT.date() - date.min, date.max - LAST_MOMENT.date()) == (a_day, a_day)
    for end in (FIRST_MOMENT, LAST_MOMENT):
        assert end.time() == time.min
        assert end.astimezone(timezone(away)) == end
