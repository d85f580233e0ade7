"""Figures of days and months: money collected, the month by due day, declines, hours of the day.

Each query reads one index over at most a month, or half a year by month.
"""

from __future__ import annotations

from collections import defaultdict
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

    def __add__(self, other: Collected) -> Collected:
        return Collected(
            self.on,
            self.count + other.count,
            self.won + other.won,
            self.refunded_count + other.refunded_count,
            self.refunded_won + other.refunded_won,
        )


@dataclass(frozen=True, slots=True)
class CollectedInHour:
    """What one hour of one day brought."""

    collected: Collected
    hour: int


@dataclass(frozen=True, slots=True)
class Cohort:
    """The cycles of one month that are due on one day and stand alike."""

    due_on: date
    status: str
    count: int
    won: int


@dataclass(frozen=True, slots=True)
class Group:
    """Active subscriptions of one anchor day whose next cycle lies in one month, and closes at one
    moment by what is stored."""

    anchor_day: int
    month: date
    closes_at: datetime
    count: int
    won: int


@dataclass(frozen=True, slots=True)
class DeclinedBy:
    """The declines of one class, and what became of the months in which they happened; `paid` are
    those that brought money after all, also if it was given back."""

    decline_class: str
    declines: int
    cycles: int
    paid: int
    open: int


def by_hour(
    session: Session, begins: datetime, ends: datetime, zone: ZoneInfo
) -> Sequence[CollectedInHour]:
    """Money by the day and hour in which it was paid; hours without a payment are left out. A
    month's days and a day's hours come from this one reading."""
    kept = Cycle.status == CycleStatus.PAID
    hour = func.date_trunc("hour", _wall(Cycle.paid_at, zone))
    rows = session.execute(
        select(
            hour,
            func.count().filter(kept),
            func.coalesce(func.sum(Cycle.amount).filter(kept), 0),
            func.count().filter(~kept),
            func.coalesce(func.sum(Cycle.amount).filter(~kept), 0),
        )
        .where(Cycle.paid_at >= begins, Cycle.paid_at < ends)
        .group_by(hour)
        .order_by(hour)
    )
    return [
        CollectedInHour(Collected(at.date(), count, int(won), back, int(lost)), at.hour)
        for at, count, won, back, lost in rows
    ]


def by_month(session: Session, first: date, last: date) -> Sequence[Collected]:
    """Money by month, from the month that begins on `first` to that of `last`: a payment lies in
    its cycle's calendar month."""
    sums: dict[date, dict[str, tuple[int, int]]] = defaultdict(dict)
    rows = session.execute(
        select(Cycle.month, Cycle.status, func.count(), func.sum(Cycle.amount))
        .where(
            Cycle.month.between(first, last),
            Cycle.status.in_([CycleStatus.PAID, CycleStatus.REFUNDED]),
        )
        .group_by(Cycle.month, Cycle.status)
    )
    for on, status, count, won in rows:
        sums[on][status] = (count, int(won))
    return [
        Collected(on, *found.get("paid", (0, 0)), *found.get("refunded", (0, 0)))
        for on, found in sorted(sums.items())
    ]


def _wall(column: Any, zone: ZoneInfo) -> ColumnElement[Any]:
    """A moment as the clock on the wall of `zone` shows it."""
    return func.timezone(zone.key, column)


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
    rows = session.execute(
        select(
            Subscription.anchor_on,
            Subscription.next_due_at,
            Subscription.next_closes_at,
            func.count(),
            func.sum(Subscription.amount),
        )
        .where(Subscription.status == SubscriptionStatus.ACTIVE, Subscription.next_due_at < before)
        .group_by(Subscription.anchor_on, Subscription.next_due_at, Subscription.next_closes_at)
    )
    sums: dict[tuple[int, date, datetime], tuple[int, int]] = {}
    for anchor_on, due_at, closes_at, count, won in rows:
        key = (anchor_on.day, due_at.astimezone(zone).date().replace(day=1), closes_at)
        before_it = sums.get(key, (0, 0))
        sums[key] = (before_it[0] + count, before_it[1] + int(won))
    return [Group(*key, count, won) for key, (count, won) in sums.items()]


def planned(
    session: Session, now: datetime, before: datetime, zone: ZoneInfo
) -> Sequence[tuple[date, int, int]]:
    """Attempts that are planned before a moment and may go, by day: the day, how many, and their
    won."""
    day = cast(_wall(Attempt.ready_at, zone), Date)
    rows = session.execute(
        select(day, func.count(), func.sum(Cycle.amount))
        .join(Cycle, Cycle.id == Attempt.cycle_id)
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .where(
            Attempt.status == AttemptStatus.DUE,
            Attempt.ready_at < before,
            Cycle.held.is_(None),
            Cycle.last_start_at >= func.greatest(Attempt.ready_at, now),
            Subscription.status == SubscriptionStatus.ACTIVE,
        )
        .group_by(day)
    )
    return [(on, count, int(won)) for on, count, won in rows]


def declines(session: Session, begins: datetime, ends: datetime) -> Sequence[DeclinedBy]:
    """Declines by class, the most frequent first, and how their months ended."""
    collected = Cycle.status.in_([CycleStatus.PAID, CycleStatus.REFUNDED])
    still_open = Cycle.status == CycleStatus.OPEN
    rows = session.execute(
        select(
            Attempt.decline_class,
            func.count(),
            func.count(distinct(Cycle.id)),
            func.count(distinct(Cycle.id)).filter(collected),
            func.count(distinct(Cycle.id)).filter(still_open),
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


def declined_by_hour(
    session: Session, begins: datetime, ends: datetime, zone: ZoneInfo
) -> dict[int, int]:
    """Declines by the hour of the day, 0 to 23, at which the carrier answered."""
    hour = cast(extract("hour", _wall(Attempt.settled_at, zone)), Integer)
    rows = session.execute(
        select(hour, func.count())
        .where(
            Attempt.status == AttemptStatus.DECLINED,
            Attempt.settled_at >= begins,
            Attempt.settled_at < ends,
        )
        .group_by(hour)
    )
    return {int(one): count for one, count in rows}
