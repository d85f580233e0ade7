"""Reads the book while the story runs. Nothing here decides anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleStatus
from billing.domain.subscription import SubscriptionStatus
from billing.store.session import Book, Transaction
from billing.store.tables import Attempt, Cycle, Event, Installation, Subscription

# What starts within this is not worth a jump of the clock.
SOON = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class Month:
    """How one subscriber's month stands; `cycle` is None where none was opened."""

    subscription: str
    reason: str | None
    cycle: str | None
    merchant_uid: str | None
    amount: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The book at one moment. `busy` says that something is being done, or should be;
    `stranded` that it is only waiting for messages; `next_at` is when something is planned next."""

    at: datetime
    cycles: Mapping[str, int]
    attempts: Mapping[str, int]
    suspended: int
    hold: str | None
    busy: bool
    stranded: bool
    next_at: datetime | None

    @property
    def in_flight(self) -> int:
        return self.attempts.get(AttemptStatus.SENDING, 0)

    @property
    def unknown(self) -> int:
        return self.attempts.get(AttemptStatus.UNKNOWN, 0)


@dataclass(frozen=True, slots=True)
class Line:
    """One event, with nobody's data in it."""

    id: int
    at: datetime
    kind: str
    data: Mapping[str, object]


def look(book: Book) -> Snapshot:
    """How everything stands now."""
    return book.run(_look)


def lines_after(book: Book, last: int) -> Sequence[Line]:
    """What happened since the event with this id."""
    query = select(Event).where(Event.id > last).order_by(Event.id).limit(2000)
    rows = book.run(lambda tx: list(tx.session.execute(query).scalars()))
    return [Line(row.id, row.at, row.kind, row.data) for row in rows]


def months(book: Book) -> Mapping[str, Month]:
    """How every subscriber's month stands, by `customer_uid`."""
    query = select(Subscription, Cycle).outerjoin(Cycle, Cycle.subscription_id == Subscription.id)
    rows = book.run(lambda tx: list(tx.session.execute(query)))
    return {
        subscription.customer_uid: Month(
            subscription=subscription.status,
            reason=subscription.status_reason,
            cycle=cycle.status if cycle else None,
            merchant_uid=cycle.paid_merchant_uid if cycle else None,
            amount=subscription.amount,
        )
        for subscription, cycle in rows
    }


def move_clock(book: Book, offset: timedelta) -> None:
    """Set how far billing's time is from the database's (see billing/clock.py)."""
    book.run(lambda tx: tx.session.execute(update(Installation).values(clock_offset=offset)))


def _look(tx: Transaction) -> Snapshot:
    session, soon = tx.session, tx.now + SOON
    attempts = _count(session, Attempt)
    planned_at = session.execute(
        select(func.min(Attempt.ready_at)).where(Attempt.status == AttemptStatus.DUE)
    ).scalar_one()
    opens_at = session.execute(
        select(func.min(Subscription.next_due_at)).where(
            Subscription.status == SubscriptionStatus.ACTIVE
        )
    ).scalar_one()
    closes_at = session.execute(
        select(func.min(Cycle.closes_at)).where(Cycle.status == CycleStatus.OPEN)
    ).scalar_one()
    waiting = [moment for moment in (planned_at, opens_at, closes_at) if moment is not None]
    live = attempts[AttemptStatus.SENDING] + attempts[AttemptStatus.UNKNOWN]
    return Snapshot(
        at=tx.now,
        cycles=_count(session, Cycle),
        attempts=attempts,
        suspended=_count(session, Subscription)[SubscriptionStatus.SUSPENDED],
        hold=session.execute(select(Installation.hold_reason)).scalar_one(),
        stranded=live == 0 and planned_at is not None and planned_at <= tx.now,
        busy=live > 0 or any(moment <= soon for moment in waiting),
        next_at=min(waiting, default=None),
    )


def _count(
    session: Session, table: type[Attempt] | type[Cycle] | type[Subscription]
) -> Counter[str]:
    rows = session.execute(select(table.status, func.count()).group_by(table.status))
    return Counter({status: count for status, count in rows})
