"""The day at a glance: what is due, paid, retried, unknown or closes soon, what needs a person.

For a page that is open all day: every count reads an index of what is open or of one day, whatever
the size of the book.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session, aliased

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleStatus
from billing.domain.money import Sum
from billing.domain.subscription import SubscriptionStatus
from billing.store import differences, refunds
from billing.store.tables import Attempt, Cycle, Event, Notice, Subscription

# What is listed; the counts beside the lists are whole.
MOST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Day:
    """One day in numbers. `waiting` is due at this moment, `later` comes before the day ends (by
    planned attempts and by cycles that are still to open); `retrying` is the part of both that was
    declined before."""

    waiting: Sum
    later: Sum
    retrying: int
    sending: int
    unknown: int
    oldest_unknown_at: datetime | None
    paid: Sum
    refunded: int
    declined: int
    closing_soon: int
    held: int
    differences: int
    refunds_open: int
    dead_notices: int


def day(
    session: Session, now: datetime, begins: datetime, ends: datetime, closing_soon: timedelta
) -> Day:
    """The numbers of the day from `begins` to `ends`, which holds `now`."""
    waiting, planned, retrying = _due(session, now, ends)
    unknown, oldest = _unknown(session)
    paid, refunded = _collected(session, begins, ends)
    return Day(
        waiting=waiting,
        later=planned + _to_open(session, ends),
        retrying=retrying,
        sending=_count(session, _attempts(AttemptStatus.SENDING)),
        unknown=unknown,
        oldest_unknown_at=oldest,
        paid=paid,
        refunded=refunded,
        declined=_count(
            session,
            _attempts(AttemptStatus.DECLINED).where(
                Attempt.settled_at >= begins, Attempt.settled_at < ends
            ),
        ),
        closing_soon=_count(session, select(Cycle.id).where(_closes_soon(now, closing_soon))),
        held=_count(
            session,
            select(Cycle.id).where(Cycle.status == CycleStatus.OPEN, Cycle.held.is_not(None)),
        ),
        differences=differences.count_open(session),
        refunds_open=refunds.count_open(session),
        dead_notices=_count(session, select(Notice.id).where(Notice.dead_at.is_not(None))),
    )


def _due(session: Session, now: datetime, ends: datetime) -> tuple[Sum, Sum, int]:
    """Attempts that wait now, those of later today, and how many of both were declined before."""
    is_now = Attempt.ready_at <= now
    earlier = aliased(Attempt)
    # A pause and a resumption number an attempt anew, too. Not by EXISTS, for which the planner may
    # read all declines there ever were.
    decline = (
        select(earlier.id)
        .where(earlier.cycle_id == Attempt.cycle_id, earlier.status == AttemptStatus.DECLINED)
        .limit(1)
        .scalar_subquery()
    )
    row = session.execute(
        select(
            func.count().filter(is_now),
            func.coalesce(func.sum(Cycle.amount).filter(is_now), 0),
            func.count().filter(~is_now),
            func.coalesce(func.sum(Cycle.amount).filter(~is_now), 0),
            func.count().filter(Attempt.number > 1, decline.is_not(None)),
        )
        # Only open cycles have such attempts; saying so spares reading all the others.
        .join(Cycle, and_(Cycle.id == Attempt.cycle_id, Cycle.status == CycleStatus.OPEN))
        .where(
            Attempt.status == AttemptStatus.DUE,
            Attempt.ready_at < ends,
            Cycle.held.is_(None),
            Cycle.last_start_at >= func.greatest(Attempt.ready_at, now),
        )
    ).one()
    return Sum(row[0], int(row[1])), Sum(row[2], int(row[3])), row[4]


def _to_open(session: Session, ends: datetime) -> Sum:
    query = select(func.count(), func.coalesce(func.sum(Subscription.amount), 0)).where(
        Subscription.status == SubscriptionStatus.ACTIVE, Subscription.next_due_at < ends
    )
    count, won = session.execute(query).one()
    return Sum(count, int(won))


def _unknown(session: Session) -> tuple[int, datetime | None]:
    query = select(func.count(), func.min(Attempt.sent_at)).where(
        Attempt.status == AttemptStatus.UNKNOWN
    )
    count, oldest = session.execute(query).one()
    return count, oldest


def _collected(session: Session, begins: datetime, ends: datetime) -> tuple[Sum, int]:
    kept = Cycle.status == CycleStatus.PAID
    query = select(
        func.count().filter(kept),
        func.coalesce(func.sum(Cycle.amount).filter(kept), 0),
        func.count().filter(~kept),
    ).where(Cycle.paid_at >= begins, Cycle.paid_at < ends)
    count, won, refunded = session.execute(query).one()
    return Sum(count, int(won)), refunded


def _attempts(status: AttemptStatus) -> Select[int]:
    return select(Attempt.id).where(Attempt.status == status)


def _count(session: Session, query: Select[int]) -> int:
    return session.execute(select(func.count()).select_from(query.subquery())).scalar_one()


def _closes_soon(now: datetime, within: timedelta) -> ColumnElement[bool]:
    return and_(
        Cycle.status == CycleStatus.OPEN, Cycle.closes_at > now, Cycle.closes_at <= now + within
    )


def closing_soon(session: Session, now: datetime, within: timedelta) -> Sequence[Any]:
    """The open cycles that close first: cycle, subscription, and the moment of the next attempt."""
    planned = (
        select(Attempt.ready_at)
        .where(Attempt.cycle_id == Cycle.id, Attempt.status == AttemptStatus.DUE)
        .scalar_subquery()
    )
    return session.execute(
        select(Cycle, Subscription, planned.label("next_at"))
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .where(_closes_soon(now, within))
        .order_by(Cycle.closes_at, Cycle.id)
        .limit(MOST_ROWS)
    ).all()


def unknown(session: Session) -> Sequence[Any]:
    """The attempts whose outcome is not known, the first to be asked about first."""
    return session.execute(
        select(Attempt, Cycle, Subscription)
        .join(Cycle, Cycle.id == Attempt.cycle_id)
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .where(Attempt.status == AttemptStatus.UNKNOWN)
        .order_by(Attempt.ask_at)
        .limit(MOST_ROWS)
    ).all()


def newest_alarms(session: Session, since: datetime, limit: int) -> Sequence[Any]:
    """The newest alarms, as far as they are not older than `since`, each with its subscription,
    where it has one."""
    rows = session.execute(
        select(Event, Subscription.customer_uid)
        .outerjoin(Subscription, Subscription.id == Event.subscription_id)
        .where(Event.alarm)
        .order_by(Event.id.desc())
        .limit(limit)
    )
    # Not asked of the database: without a new alarm it would read all that there ever were.
    return [row for row in rows if row[0].at >= since]
