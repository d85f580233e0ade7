"""The next month of each subscription, by the settings in force.

`next_due_at` and `next_closes_at` are stored, so that a tick finds what is due by an index; and
settings change. The book remembers by which settings they were planned. A tick whose settings are
others plans all of them anew, a batch at a time. What falls due before its turn is planned anew
when it is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Protocol

from billing.domain.calendar import GATEWAY_MARGIN_DAYS, CycleDates, cycle_dates
from billing.domain.errors import InvalidInput
from billing.domain.plan import PlanPolicy, closes_at, first_attempt_at, last_start
from billing.store import coming, installation
from billing.store.coming import Coming
from billing.store.session import Transaction

# Subscriptions that one tick looks at, of which it writes those that differ.
BATCH = 5000

# How much earlier the settings in force may plan a month than it is stored: from the last to the
# first day of a band, and from the last to the first slot of a day.
EARLIER = timedelta(days=GATEWAY_MARGIN_DAYS + 1)


class Waits(Protocol):
    """A subscription, or as much of it as is needed here."""

    @property
    def anchor_on(self) -> date: ...

    @property
    def next_cycle(self) -> int: ...

    @property
    def next_closes_at(self) -> datetime: ...


def next_dates(waits: Waits, now: datetime, plan: PlanPolicy) -> CycleDates:
    """The dates of the next month. One that the settings in force find over, and that has not
    closed as it was planned, keeps its window: narrower settings end no month that has begun."""
    calendar = plan.calendar
    dates = cycle_dates(waits.anchor_on, waits.next_cycle, calendar)
    if now <= last_start(dates, plan):
        return dates
    while (
        closes_at(dates, plan) < waits.next_closes_at and calendar.window_days < GATEWAY_MARGIN_DAYS
    ):
        calendar = replace(calendar, window_days=calendar.window_days + 1)
        dates = cycle_dates(waits.anchor_on, waits.next_cycle, calendar)
    return dates


def plan_anew(tx: Transaction, plan: PlanPolicy) -> None:
    """Plan a batch of next months anew, where the settings are not those of the last time."""
    wanted = plan.fingerprint
    is_done = installation.is_coming_by(tx.session, wanted)
    after = None if is_done else installation.coming_up_to(tx.session, wanted)
    if after is None:
        return
    found = coming.after(tx.session, after, BATCH)
    coming.write(tx.session, _other_than_stored(found, tx.now, plan))
    more = len(found) == BATCH
    installation.note_coming(tx.session, wanted, found[-1].id if more else None)


def _other_than_stored(found: Sequence[Coming], now: datetime, plan: PlanPolicy) -> list[Coming]:
    other = []
    for one in found:
        try:
            dates = next_dates(one, now, plan)
            due, closes = first_attempt_at(dates, plan), closes_at(dates, plan)
        except InvalidInput:
            # No month of any calendar: told of when it falls due (`open_cycles.put_off`).
            continue
        if (due, closes) != (one.next_due_at, one.next_closes_at):
            other.append(replace(one, next_due_at=due, next_closes_at=closes))
    return other
