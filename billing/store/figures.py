"""Figures of days and months: money collected, the month by due day, declines, hours of the day.

Each query reads one index over at most a month, or half a year by month.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Date, Integer, cast, distinct, extract, func, select
from sqlalchemy.orm import Session

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleStatus
from billing.domain.subscription import SubscriptionStatus
from billing.store.tables import Attempt, Cycle, Subscription


@dataclass(frozen=True, slots=True)
class Collected:
    """What one day or month brought: payments that stand, and payments that were given back."""

    on: date
    count: int
    won: int
    refunded_count: int
    refunded_won: int


@dataclass(frozen=True, slots=True)
class Cohort:
    """The cycles of one month that are due on one day and stand alike."""

    due_on: date
    status: str
    count: int
    won: int


@dataclass(frozen=True, slots=True)
class Group:
    """Active subscriptions of one anchor day whose next cycle lies in one month."""

    anchor_day: int
    month: date
    count: int
    won: int


@dataclass(frozen=True, slots=True)
class DeclinedBy:
    """The declines of one class, and what became of the months in which they happened."""

    decline_class: str
    declines: int
    cycles: int
    paid: int
    open: int


@dataclass(frozen=True, slots=True)
class Hour:
    """What the carrier answered in one hour of the day."""

    hour: int
    approved: int
    declined: int


def by_day(
    session: Session, begins: datetime, ends: datetime, zone: ZoneInfo
) -> Sequence[Collected]:
    """Money by the day on which it was paid; days without a payment are left out."""
    return _collected(session, cast(_wall(Cycle.paid_at, zone), Date), begins, ends)


def by_month(
    session: Session, begins: datetime, ends: datetime, zone: ZoneInfo
) -> Sequence[Collected]:
    """Money by the month in which it was paid."""
    month = cast(func.date_trunc("month", _wall(Cycle.paid_at, zone)), Date)
    return _collected(session, month, begins, ends)


def _wall(column: Any, zone: ZoneInfo) -> ColumnElement[Any]:
    """A moment as the clock on the wall of `zone` shows it."""
    return func.timezone(zone.key, column)


def _collected(
    session: Session, key: ColumnElement[Any], begins: datetime, ends: datetime
) -> Sequence[Collected]:
    kept = Cycle.status == CycleStatus.PAID
    rows = session.execute(
        select(
            key,
            func.count().filter(kept),
            func.coalesce(func.sum(Cycle.amount).filter(kept), 0),
            func.count().filter(~kept),
            func.coalesce(func.sum(Cycle.amount).filter(~kept), 0),
        )
        .where(Cycle.paid_at >= begins, Cycle.paid_at < ends)
        .group_by(key)
        .order_by(key)
    )
    return [Collected(on, count, int(won), back, int(lost)) for on, count, won, back, lost in rows]


def month(session: Session, first_day: date) -> Sequence[Cohort]:
    """The cycles of a month, by due day and status."""
    rows = session.execute(
        select(Cycle.due_on, Cycle.status, func.count(), func.sum(Cycle.amount))
        .where(Cycle.month == first_day)
        .group_by(Cycle.due_on, Cycle.status)
        .order_by(Cycle.due_on, Cycle.status)
    )
    return [Cohort(due_on, status, count, int(won)) for due_on, status, count, won in rows]


def to_come(session: Session, before: datetime, zone: ZoneInfo) -> Sequence[Group]:
    """Active subscriptions whose next cycle opens before a moment. Every one with the same anchor
    day has the same dates, so a million of them are a few dozen groups."""
    anchor_day = cast(extract("day", Subscription.anchor_on), Integer)
    month = cast(func.date_trunc("month", _wall(Subscription.next_due_at, zone)), Date)
    rows = session.execute(
        select(anchor_day, month, func.count(), func.sum(Subscription.amount))
        .where(Subscription.status == SubscriptionStatus.ACTIVE, Subscription.next_due_at < before)
        .group_by(anchor_day, month)
    )
    return [Group(day, first, count, int(won)) for day, first, count, won in rows]


def planned(session: Session, before: datetime, zone: ZoneInfo) -> Sequence[tuple[date, int, int]]:
    """Attempts that are planned before a moment, by day: the day, how many, and their won."""
    day = cast(_wall(Attempt.ready_at, zone), Date)
    rows = session.execute(
        select(day, func.count(), func.sum(Cycle.amount))
        .join(Cycle, Cycle.id == Attempt.cycle_id)
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .where(
            Attempt.status == AttemptStatus.DUE,
            Attempt.ready_at < before,
            Subscription.status == SubscriptionStatus.ACTIVE,
        )
        .group_by(day)
    )
    return [(on, count, int(won)) for on, count, won in rows]


def declines(session: Session, begins: datetime, ends: datetime) -> Sequence[DeclinedBy]:
    """Declines by class, the most frequent first, and how their months ended."""
    status = {
        one: func.count(distinct(Cycle.id)).filter(Cycle.status == one)
        for one in (CycleStatus.PAID, CycleStatus.OPEN)
    }
    rows = session.execute(
        select(
            Attempt.decline_class,
            func.count(),
            func.count(distinct(Cycle.id)),
            status[CycleStatus.PAID],
            status[CycleStatus.OPEN],
        )
        .join(Cycle, Cycle.id == Attempt.cycle_id)
        .where(
            Attempt.status == AttemptStatus.DECLINED,
            Attempt.settled_at >= begins,
            Attempt.settled_at < ends,
        )
        .group_by(Attempt.decline_class)
        .order_by(func.count().desc(), Attempt.decline_class)
    )
    return [DeclinedBy(str(row[0]), row[1], row[2], row[3], row[4]) for row in rows]


def hours(session: Session, begins: datetime, ends: datetime, zone: ZoneInfo) -> Sequence[Hour]:
    """Approvals and declines by the hour of the day, 0 to 23, at which the carrier answered."""
    approved = _by_hour(session, Cycle.paid_at, begins, ends, zone, Cycle.paid_at.is_not(None))
    declined = _by_hour(
        session,
        Attempt.settled_at,
        begins,
        ends,
        zone,
        Attempt.status == AttemptStatus.DECLINED,
    )
    return [Hour(hour, approved.get(hour, 0), declined.get(hour, 0)) for hour in range(24)]


def _by_hour(
    session: Session,
    column: Any,
    begins: datetime,
    ends: datetime,
    zone: ZoneInfo,
    those: ColumnElement[bool],
) -> dict[int, int]:
    hour = cast(extract("hour", _wall(column, zone)), Integer)
    rows = session.execute(
        select(hour, func.count()).where(those, column >= begins, column < ends).group_by(hour)
    )
    return {int(one): count for one, count in rows}
