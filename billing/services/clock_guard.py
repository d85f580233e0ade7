"""Nothing ends, and nothing opens, by a clock that nobody vouches for.

Billing time is the database's. A clock that leaps ahead, be it for one tick, would close every
month that is open: each a subscriber lost for good. So before a month is closed or skipped, or a
subscription suspended, the gateway's clock must have been compared with ours, lately, and agree.
It is looked at in the transaction that ends something, so that a leap after the comparison counts.

compared lately, agree      go on
compared, and too far apart nothing, until a comparison agrees (alarm `clock.skewed`)
the gateway cannot be asked closing late is harmless, so wait; an alarm after two hours. After a day
                            months end all the same if the clock of this process's own host agrees
                            with the database's. Opening, and warning of what closes soon, end
                            nothing: they go on at once where the two agree.

How long the gateway has been away is measured by a clock that only goes forward, never by the one
in doubt; a process that starts anew waits anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from billing.domain.calendar import FIRST_MOMENT
from billing.domain.errors import GatewayError, GatewayUnavailable
from billing.ports import PaymentGateway
from billing.store import events, health
from billing.store.session import Book, Transaction, single
from billing.store.tables import Installation
from billing.store.waiting import no_later

T = TypeVar("T")

# Without a comparison for so long a person is told; and then this host's clock is believed.
TELL_AFTER = timedelta(hours=2)
ALONE_AFTER = timedelta(hours=24)
# Another process, or this one started anew, tells no sooner than so long after the last telling.
TELL_AGAIN_AFTER = timedelta(days=1)
# Who has not tried for so long was not waiting: the time is counted from the next try.
NOT_WAITING = timedelta(hours=1)
# Charging stops long before; but a minute more or less decides of hardly anybody's month.
DAY_IN_DOUBT = timedelta(hours=1)
# An answer that was longer on its way says too little about now.
_GOOD_FOR = timedelta(seconds=10)


async def compare_clocks(
    book: Book, gateway: PaymentGateway, monotonic: Callable[[], float]
) -> bool:
    """Ask for the gateway's `now` and keep how far it is from ours, with an alarm when that has
    just become too far. False when the answer was long on its way, or slept over by a stopped
    process: as much as it is old the clocks may differ without our seeing it. Raises
    `GatewayError`."""
    asked_at = monotonic()
    theirs = await gateway.moment()

    def note(tx: Transaction) -> bool:
        if monotonic() - asked_at > _GOOD_FOR.total_seconds():
            return False
        skew = theirs - tx.now
        if health.note_skew(tx.session, tx.now, skew):
            data = {"seconds": round(skew.total_seconds(), 1)}
            events.add(tx.session, at=tx.now, kind="clock.skewed", data=data, alarm=True)
        return True

    return await asyncio.to_thread(book.run, note)


async def compare_where_stale(book: Book, gateway: PaymentGateway) -> bool:
    """Compare, where nobody did lately. False where the gateway cannot be asked: the clock stays in
    doubt."""
    if await asyncio.to_thread(book.run, lambda tx: health.skew_is_stale(tx.session, tx.now)):
        try:
            await compare_clocks(book, gateway, asyncio.get_running_loop().time)
        except GatewayError:
            return False
    return True


def is_doubted(tx: Transaction) -> bool:
    """Whether this transaction's moment is by a clock that does not agree with the gateway's, or
    was not compared with it lately."""
    return health.is_skewed(tx.session) or health.skew_is_stale(tx.session, tx.now)


def asked_at(tx: Transaction) -> datetime:
    """When a look-up is made, for what it proves. By a clock in doubt it is never late enough for
    "nothing there" to prove anything."""
    return FIRST_MOMENT if is_doubted(tx) else tx.now


def proves_from(tx: Transaction, written: datetime) -> datetime:
    """Since when a look proves something, by what is written of it. Further ahead than anything
    waits it was written by a clock that was; but by a clock in doubt it may be this one that is
    behind."""
    return written if is_doubted(tx) else no_later(written, tx.now)


def is_far_off(tx: Transaction) -> bool:
    """Whether the clock was just found to be wrong by so much that nobody knows what day it is."""
    skew = health.read(tx.session).clock_skew
    stale = health.skew_is_stale(tx.session, tx.now)
    return skew is not None and abs(skew) > DAY_IN_DOUBT and not stale


def check_day(tx: Transaction) -> None:
    """For what asks for the day and for nothing of the gateway's. Raises `GatewayUnavailable` by a
    clock that is far off: whoever waits may try again."""
    if is_far_off(tx):
        raise GatewayUnavailable(
            "the gateway's clock and the database's differ by more than an hour, so that nobody"
            " knows what day it is. Set the database's clock right"
        )


class ClockGuard:
    """One for each process that opens and closes. `host_time` is the clock of its host, `monotonic`
    seconds that only go forward."""

    def __init__(self, host_time: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._host_time = host_time
        self._monotonic = monotonic
        # The last try without a comparison (None: the newest had one), by the monotonic clock; when
        # the span of such tries began, and whether a person was told of it.
        self._tried: float | None = None
        self._since, self._told = 0.0, False

    def may_open(self, tx: Transaction) -> bool:
        """Whether months may be opened, and warned of, at this transaction's moment."""
        if health.is_skewed(tx.session):
            return False
        return not health.skew_is_stale(tx.session, tx.now) or self._host_agrees(tx)

    def may_end(self, tx: Transaction) -> bool:
        """Whether months may be closed or skipped, and subscriptions suspended."""
        if health.is_skewed(tx.session):
            return False
        if not health.skew_is_stale(tx.session, tx.now):
            return True
        return self._waited() >= ALONE_AFTER and self._host_agrees(tx)

    def must_compare(self, book: Book, waits: Callable[[Transaction], bool]) -> bool:
        """Whether something `waits`, and the last comparison is too old or did not agree."""

        return book.run(lambda tx: is_doubted(tx) and waits(tx))

    async def compare(self, book: Book, gateway: PaymentGateway) -> None:
        """Compare our clock with the gateway's, and keep what was found. Never raises
        `GatewayError`: then it is known that the gateway could not be asked."""
        try:
            compared = await compare_clocks(book, gateway, self._monotonic)
        except GatewayError as error:
            await asyncio.to_thread(self.not_compared, book, str(error))
            return
        if compared:
            self._tried = None
        else:
            await asyncio.to_thread(self.not_compared, book, "the gateway's answers come late")

    def not_compared(self, book: Book, why: str) -> None:
        """Keep that the gateway could not be asked; an alarm, once, when that goes on for long."""
        now = self._monotonic()
        if self._tried is None or now - self._tried > NOT_WAITING.total_seconds():
            self._since, self._told = now, False
        self._tried = now
        if self._told or self._waited() < TELL_AFTER:
            return
        data = {"hours": round(self._waited() / timedelta(hours=1), 1), "why": why[:200]}

        def tell(tx: Transaction) -> None:
            kind, within = "clock.not_compared", TELL_AGAIN_AFTER
            events.alarm_unless_told(tx.session, at=tx.now, kind=kind, data=data, within=within)

        book.run(tell)
        self._told = True

    def _waited(self) -> timedelta:
        return timedelta(seconds=0 if self._tried is None else self._tried - self._since)

    def _host_agrees(self, tx: Transaction) -> bool:
        # The offset is zero in production (see `billing.clock`).
        ours = tx.now - single(tx.session, Installation).clock_offset
        return abs(ours - self._host_time()) <= health.MAX_SKEW


def guarded(
    guard: ClockGuard | None,
    allows: Callable[[ClockGuard, Transaction], bool],
    step: Callable[[Transaction], T],
) -> Callable[[Transaction], T | None]:
    """The step, where the guard allows it; without a guard the caller vouches for the clock."""
    return lambda tx: step(tx) if guard is None or allows(guard, tx) else None
