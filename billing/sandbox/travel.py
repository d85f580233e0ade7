"""A journey through time in steps, so that a biller beside the sandbox can follow.

A clock that jumps over a month jumps over the days on which somebody had to be charged. A journey
stops at the hours at which billers charge, on every day on which a payment may be expected, for as
long as charges keep coming.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta

from billing.sandbox.clock import SEOUL, seoul_day
from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import BillingKey, Status
from billing.sandbox.months import after, clamped, month_of, within

# In Seoul; a moment later, so that what is planned for the hour itself is due.
STOPS = (time(10, 0, 1), time(18, 0, 1))
_EVENING = time(19)
PAUSE_SECONDS = 1.5
LONGEST = timedelta(days=400)
# As long as charges come, the clock waits, but not for ever.
_LONGEST_WAIT_SECONDS = 60.0
# On somebody's own day the first request is waited for: a biller on a busy machine needs its time.
# One that asks for nothing at all holds the journey up no longer than this.
_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_MARGIN_DAYS = 5


class Journey:
    """Moves a sandbox's clock on, stop by stop, in the background. One at a time."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._task: asyncio.Task[None] | None = None
        self.until: datetime | None = None

    def start(
        self,
        until: datetime,
        *,
        pause: float = PAUSE_SECONDS,
        stops: Sequence[time] = STOPS,
    ) -> None:
        """Travel to `until`; a journey under way is given up."""
        self.stop()
        self.until = until
        self._task = asyncio.get_running_loop().create_task(self._travel(until, pause, stops))

    def stop(self) -> None:
        """Stay where the clock is."""
        if self._task is not None:
            self._task.cancel()
        self._task = self.until = None

    async def _travel(self, until: datetime, pause: float, stops: Sequence[time]) -> None:
        box = self._sandbox
        while (now := box.clock.now()) < until:
            # What a payment changes about the days ahead is known only at each stop.
            box.clock.set(min(next_stop(box, now, until, stops), until))
            box.clock_moved()
            # A disk that is full is told to whoever asks for something.
            with contextlib.suppress(Exception):
                await box.ledger.committed()
            await self._calm(pause)
        self._task = self.until = None

    async def _calm(self, pause: float) -> None:
        """At least `pause`; longer while charges come, or are to be expected."""
        box, waited = self._sandbox, 0.0
        while waited < _LONGEST_WAIT_SECONDS:
            seen = len(box.ledger.requests)
            await box.sleep(pause)
            waited += pause
            fresh = box.ledger.requests[seen:]
            busy = box.in_hand or any(one.kind == "again" for one in fresh)
            if not busy and (waited >= _PATIENCE_SECONDS or not expected_today(box)):
                return
            await box.sleep(_LOOK_SECONDS)


def next_stop(
    sandbox: Sandbox, now: datetime, until: datetime, stops: Sequence[time] = STOPS
) -> datetime:
    """The next hour of charging on a day on which somebody may be charged, at most `until`."""
    for moment in _hours(now, until, stops):
        day = seoul_day(moment.timestamp())
        if any(_may_be_charged(sandbox, key, day) for key in sandbox.ledger.keys.values()):
            return moment
    return until


def expected_today(sandbox: Sandbox) -> bool:
    """Whether it is the day of somebody who may be charged, and nobody has asked for it yet."""
    today = seoul_day(sandbox.clock.unix())
    asked: set[str] = set()
    for one in reversed(sandbox.ledger.requests):
        if seoul_day(one.at) != today:
            break
        if one.kind == "again":
            asked.add(one.customer_uid)
    return any(
        key.customer_uid not in asked
        and clamped(month_of(today), seoul_day(key.issued_at).day) == today
        and _may_be_charged(sandbox, key, today)
        for key in sandbox.ledger.keys.values()
    )


def a_month_later(now: datetime) -> datetime:
    """The same day of the next month, or its last, when its hours of charging are over."""
    here = now.astimezone(SEOUL)
    day = clamped(after(month_of(here.date())), here.day)
    return datetime.combine(day, max(here.time(), _EVENING), SEOUL)


def _hours(now: datetime, until: datetime, stops: Sequence[time]) -> Iterator[datetime]:
    day = now.astimezone(SEOUL).date()
    while day <= until.astimezone(SEOUL).date():
        for hour in stops:
            moment = datetime.combine(day, hour, SEOUL)
            if now < moment < until:
                yield moment
        day += timedelta(days=1)


def _may_be_charged(sandbox: Sandbox, key: BillingKey, day: date) -> bool:
    """Within the margin, unpaid this month, and the chain is whole."""
    if key.deleted_at or not within(day, seoul_day(key.issued_at).day, _MARGIN_DAYS):
        return False
    paid = {
        month_of(seoul_day(one.paid_at))
        for one in sandbox.ledger.of_customer(key.customer_uid)
        if one.status is Status.PAID
    }
    return month_of(day) not in paid and after(month_of(day), -1) in paid
