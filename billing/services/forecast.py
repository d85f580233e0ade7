"""What would be charged when, and how much: planned attempts, and the months to come."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from heapq import merge
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from billing.domain.attempt import AttemptStatus
from billing.domain.calendar import cycles
from billing.domain.errors import InvalidInput
from billing.domain.plan import first_attempt_at
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import SubscriptionStatus
from billing.store.session import Book
from billing.store.tables import Attempt, Cycle, Subscription
from billing.store.views import moment


def due(
    book: Book, policy: BillingPolicy, since: datetime | None, days: int
) -> Generator[dict[str, Any], None, None]:
    """Charges from `since` (now when None) over `days` days, earliest first.

    Overdue ones count as due at once. Memory does not grow with their number.
    """
    with book.transaction() as tx:
        start = since or tx.now
        until = start + timedelta(days=days)
        with (
            closing(_planned(tx.session, start, until)) as planned,
            closing(_to_open(tx.session, start, until, policy)) as to_open,
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
        .where(Attempt.status == AttemptStatus.DUE, Attempt.ready_at < until)
        .order_by(at, _BY_NAME)
    )
    with session.execute(query.execution_options(**_ROWS_AT_ONCE)) as rows:
        for row in rows:
            yield row[0], row[1], row[2], row[3]


def _to_open(
    session: Session, start: datetime, until: datetime, policy: BillingPolicy
) -> Generator[_Charge, None, None]:
    """Months that are not open yet. Who has the same anchor is charged at the same moment, so each
    moment is planned once for all of them, and those it is for are read when it comes."""
    waiting = (
        Subscription.status == SubscriptionStatus.ACTIVE,
        Subscription.next_due_at < until,
    )
    plan: dict[datetime, dict[tuple[date, int], list[int]]] = {}
    groups = select(Subscription.anchor_on, Subscription.next_cycle).where(*waiting).distinct()
    for anchor_on, next_cycle in session.execute(groups).all():
        for at, number in _months(anchor_on, next_cycle, until, policy):
            group = plan.setdefault(max(at, start), {})
            group.setdefault((anchor_on, next_cycle), []).append(number)
    standing = tuple_(Subscription.anchor_on, Subscription.next_cycle)
    who = select(
        Subscription.customer_uid,
        Subscription.amount,
        Subscription.anchor_on,
        Subscription.next_cycle,
    )
    for at, numbers in sorted(plan.items()):
        query = who.where(*waiting, standing.in_(numbers)).order_by(_BY_NAME)
        with session.execute(query.execution_options(**_ROWS_AT_ONCE)) as rows:
            for row in rows:
                for number in numbers[row.anchor_on, row.next_cycle]:
                    yield at, row.customer_uid, number, row.amount


def _months(
    anchor_on: date, next_cycle: int, until: datetime, policy: BillingPolicy
) -> Iterator[tuple[datetime, int]]:
    """Every month from the next one on whose first attempt would go out before `until`."""
    plan = policy.plan
    for dates in cycles(anchor_on, plan.calendar, next_cycle):
        at = first_attempt_at(dates, plan)
        if at >= until:
            return
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
