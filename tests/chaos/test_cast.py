"""The cast is due today, whatever day today is."""

from __future__ import annotations

import calendar
from datetime import date, datetime, time, timedelta

import pytest

from tests.chaos.cast import ROOM, Ending, NotToday, members
from tests.chaos.judge import KOREA

# A leap year and the year before: every length of a month before every other.
DAYS = [date(2027, 1, 1) + timedelta(days=number) for number in range(731)]


@pytest.mark.parametrize("at", [time(0, 0, 1), time(12, 0), time(23, 30)])
def test_everybody_who_must_be_charged_can_be_charged_now(at: time) -> None:
    for day in DAYS:
        now = datetime.combine(day, at, KOREA)
        for one in members(40, 1, now):
            low = min(one.anchor_on.day, 26)
            high = min(low + 5, calendar.monthrange(day.year, day.month)[1])
            assert low <= day.day <= high, (day, one.anchor_on)
            assert one.initial_paid_at < now
            assert (one.anchor_on.year * 12 + one.anchor_on.month) == (
                day.year * 12 + day.month - 1
            )
            if one.ending is Ending.UNPAID:
                assert day.day < high, "left for another day, and there is none"


def test_nobody_is_due_in_the_last_minutes_of_a_month_of_30_days_or_more() -> None:
    for month, last in ((1, 31), (4, 30)):
        midnight = datetime(2027, month, last, tzinfo=KOREA) + timedelta(days=1)
        assert members(10, 1, midnight - ROOM - timedelta(seconds=1))
        with pytest.raises(NotToday):
            members(10, 1, midnight - ROOM + timedelta(seconds=1))
        assert members(10, 1, midnight)
