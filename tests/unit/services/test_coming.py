"""The dates of a month that has not begun, when the settings are not those it was planned by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pytest

from billing.bootstrap import billing_policy
from billing.domain.calendar import SEOUL, Window, cycle_dates
from billing.domain.plan import PlanPolicy, closes_at, last_start
from billing.services.coming import next_dates
from billing.settings import Settings

ANCHOR = date(2026, 10, 20)
MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Waiting:
    """One that was first paid on 20 October 2026; its first month closes at this moment."""

    next_closes_at: datetime
    anchor_on: date = ANCHOR
    next_cycle: int = 1


def a_plan(window_days: int) -> PlanPolicy:
    return billing_policy(Settings.load(window_days=window_days)).plan


def closing(window_days: int) -> Waiting:
    """Planned by a window of so many days."""
    plan = a_plan(window_days)
    return Waiting(closes_at(cycle_dates(ANCHOR, 1, plan.calendar), plan))


def window(days: int) -> Window:
    """So many days to either side of 20 November."""
    return Window(date(2026, 11, 20 - days), date(2026, 11, 20 + days))


def last_moment(plan: PlanPolicy) -> datetime:
    return last_start(cycle_dates(ANCHOR, 1, plan.calendar), plan)


@pytest.mark.parametrize("before", [0, 2, 5])
@pytest.mark.parametrize("after", [0, 2, 5])
def test_while_it_can_be_charged_by_the_settings_in_force_those_count(
    before: int, after: int
) -> None:
    plan = a_plan(after)
    for now in (datetime(2026, 11, 1, tzinfo=SEOUL), last_moment(plan)):
        dates = next_dates(closing(before), now, plan)
        assert dates == cycle_dates(ANCHOR, 1, plan.calendar)


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("after", range(6))
def test_later_it_keeps_the_longer_window(before: int, after: int) -> None:
    """Narrower settings end no month that has begun, and wider ones count at once."""
    plan = a_plan(after)
    dates = next_dates(closing(before), last_moment(plan) + MOMENT, plan)
    assert (dates.number, dates.window) == (1, window(max(before, after)))


def test_no_window_becomes_longer_than_the_gateway_accepts() -> None:
    """Whatever moment the book holds."""
    plan = a_plan(3)
    dates = next_dates(
        Waiting(datetime(2027, 1, 1, tzinfo=SEOUL)), last_moment(plan) + MOMENT, plan
    )
    assert dates.window == window(5)
