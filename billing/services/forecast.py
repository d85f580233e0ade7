"""What would be charged when, and how much: planned attempts, and the months to come."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from heapq import merge
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from billing.domain.attempt import AttemptStatus
from billing.domain.calendar import LAST_MOMENT, beyond, cycles
from billing.domain.errors import InvalidInput
from billing.domain.plan import first_attempt_at, last_start
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import SubscriptionStatus
from billing.services.coming import EARLIER, next_dates
from billing.store.session import Book
from billing.store.tables import Attempt, Cycle, Subscription
from billing.store.views import moment


def due(
    book: Book, policy: BillingPolicy, since: datetime | None, days: int
) -> Generator[dict[str, Any], None, None]:
    """Charges from `since` (now when None) over `days` days, earliest first.

    Overdue ones count as due at once; what is held, or past its last start, is not charged. Memory
    does not grow with their number.
    """
    with book.transaction() as tx:
        now = tx.now
        start = since or now
        if start > LAST_MOMENT - timedelta(days=days) - EARLIER:
            raise beyond(start)
        until = start + timedelta(days=days)
        with (
            closing(_planned(tx.session, start, until)) as planned,
            closing(_to_open(tx.session, now, start, until, policy)) as to_open,
        ):
            for at, customer_uid, number, amount in merge(planned, to_open):
                yield {
                    "at": moment(at, policy.plan.zone),
                    "customer_uid": customer_uid,
                    "cycle": number,
                    "amount": amount,
                }


# When, whose, which cycle, how much: they sort by moment, then by name.
_Charge = tuple[datetime, str, int, int]
# As Python sorts, so that two sorted lists can be merged.
_BY_NAME = Subscription.customer_uid.collate("C")
_ROWS_AT_ONCE = {"yield_per": 1000}


def _planned(session: Session, start: datetime, until: datetime) -> Generator[_Charge, None, None]:
    """Attempts that are planned already."""
    at = func.greatest(Attempt.ready_at, start)
    query = (
        select(at, Subscription.customer_uid, Cycle.number, Cycle.amount)
        .join(Cycle, Cycle.id == Attempt.cycle_id)
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .where(
            Attempt.status == AttemptStatus.DUE,
            Attempt.ready_at < until,
            Cycle.held.is_(None),
            Cycle.last_start_at >= at,
            Subscription.status == SubscriptionStatus.ACTIVE,
        )
        .order_by(at, _BY_NAME)
    )
    with session.execute(query.execution_options(**_ROWS_AT_ONCE)) as rows:
        for row in rows:
            yield row[0], row[1], row[2], row[3]


def _to_open(
    session: Session, now: datetime, start: datetime, until: datetime, policy: BillingPolicy
) -> Generator[_Charge, None, None]:
    """Months that are not open yet. Who has the same anchor is charged at the same moment, so each
    moment is planned once for all of them, and those it is for are read when it comes."""
    waiting = (
        Subscription.status == SubscriptionStatus.ACTIVE,
        Subscription.next_due_at < until + EARLIER,
    )
    standing = (Subscription.anchor_on, Subscription.next_cycle, Subscription.next_closes_at)
    plan: dict[datetime, dict[Standing, list[int]]] = {}
    for stored in session.execute(select(*standing).where(*waiting).distinct()).all():
        group = Standing(*stored)
        for at, number in months(group, now, start, until, policy):
            plan.setdefault(max(at, start), {}).setdefault(group, []).append(number)
    who = select(Subscription.customer_uid, Subscription.amount, *standing)
    for at, numbers in sorted(plan.items()):
        query = who.where(*waiting, tuple_(*standing).in_(numbers)).order_by(_BY_NAME)
        with session.execute(query.execution_options(**_ROWS_AT_ONCE)) as rows:
            for row in rows:
                for number in numbers[Standing(*row[-3:])]:
                    yield at, row.customer_uid, number, row.amount


class Standing(NamedTuple):
    """What decides which months a subscription has before it, and when."""

    anchor_on: date
    next_cycle: int
    next_closes_at: datetime


def months(
    standing: Standing, now: datetime, start: datetime, until: datetime, policy: BillingPolicy
) -> Iterator[tuple[datetime, int]]:
    """Every month from the next one on whose first attempt would go out before `until`. None where
    the next one can be charged no more: it ends unpaid, and the chain with it."""
    plan = policy.plan
    coming = next_dates(standing, now, plan)
    if now > last_start(coming, plan):
        return
    following = cycles(standing.anchor_on, plan.calendar, standing.next_cycle + 1)
    for dates in chain([coming], following):
        at = first_attempt_at(dates, plan)
        if at >= until:
            return
        if start <= last_start(dates, plan):
            yield at, dates.number


def moment_of(value: str | None) -> datetime | None:
    """A moment as a person types it. Raises `InvalidInput` without an offset."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidInput(
            "--at", value, "is not a moment with an offset", "Write 2026-11-20T10:00:00+09:00"
        )
    return found
