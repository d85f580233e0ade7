"""What would be charged when, and how much: planned attempts, and the months to come."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from billing.domain.attempt import AttemptStatus
from billing.domain.errors import InvalidInput
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
            select(
                Subscription.next_due_at,
                Subscription.customer_uid,
                Subscription.next_cycle,
                Subscription.amount,
            )
            .where(
                Subscription.status == SubscriptionStatus.ACTIVE,
                Subscription.next_due_at < until,
            )
            .order_by(Subscription.next_due_at)
            .limit(limit)
        )
        rows = [*tx.session.execute(planned), *tx.session.execute(to_open)]
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
            "at", value, "is not a moment with an offset", "Write 2026-11-20T10:00:00+09:00"
        )
    return found
