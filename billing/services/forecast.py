"""What would be charged when, and how much: planned attempts, and the months to come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

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
    book: Book, policy: BillingPolicy, since: datetime | None, days: int, limit: int
) -> list[dict[str, Any]]:
    """Charges from `since` (now when None) over `days` days, earliest first, at most `limit`.

    Overdue ones count as due at once.
    """
    with book.transaction() as tx:
        start = since or tx.now
        until = start + timedelta(days=days)
        planned = (
            select(Attempt.ready_at, Subscription.customer_uid, Cycle.number, Cycle.amount)
            .join(Cycle, Cycle.id == Attempt.cycle_id)
            .join(Subscription, Subscription.id == Cycle.subscription_id)
            .where(Attempt.status == AttemptStatus.DUE, Attempt.ready_at < until)
            .order_by(Attempt.ready_at)
            .limit(limit)
        )
        to_open = (
            select(Subscription)
            .where(
                Subscription.status == SubscriptionStatus.ACTIVE,
                Subscription.next_due_at < until,
            )
            .order_by(Subscription.next_due_at)
            .limit(limit)
        )
        rows = [(row[0], row[1], row[2], row[3]) for row in tx.session.execute(planned)]
        for subscription in tx.session.execute(to_open).scalars():
            rows.extend(_months(subscription, until, policy))
    rows.sort(key=lambda row: (max(row[0], start), row[1]))
    return [
        {
            "at": moment(max(at, start), policy.plan.zone),
            "customer_uid": customer_uid,
            "cycle": number,
            "amount": amount,
        }
        for at, customer_uid, number, amount in rows[:limit]
    ]


def _months(
    subscription: Subscription, until: datetime, policy: BillingPolicy
) -> Iterator[tuple[datetime, str, int, int]]:
    """Every month of a subscription whose first attempt would go out before `until`."""
    plan = policy.plan
    for dates in cycles(subscription.anchor_on, plan.calendar, subscription.next_cycle):
        at = first_attempt_at(dates, plan)
        if at >= until:
            return
        yield at, subscription.customer_uid, dates.number, subscription.amount


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
