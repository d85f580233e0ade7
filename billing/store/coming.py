"""Queries on the next month of each subscription: read in order of the ids, written where other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from billing.domain.subscription import SubscriptionStatus
from billing.store.tables import Subscription


@dataclass(frozen=True, slots=True)
class Coming:
    """One subscription and its next month, as stored."""

    id: int
    anchor_on: date
    next_cycle: int
    next_due_at: datetime
    next_closes_at: datetime


_COLUMNS = (
    Subscription.id,
    Subscription.anchor_on,
    Subscription.next_cycle,
    Subscription.next_due_at,
    Subscription.next_closes_at,
)
# Not where the month was opened meanwhile: then the one after it is planned already.
_WRITE = text(
    """
    UPDATE subscriptions s SET next_due_at = v.due, next_closes_at = v.closing
    FROM unnest(CAST(:ids AS bigint[]), CAST(:numbers AS bigint[]), CAST(:due AS timestamptz[]),
        CAST(:closing AS timestamptz[])) AS v (id, number, due, closing)
    WHERE s.id = v.id AND s.next_cycle = v.number
    """
)


def after(session: Session, subscription_id: int, limit: int) -> list[Coming]:
    """Subscriptions that may be charged some day, with higher ids than this."""
    query = (
        select(*_COLUMNS)
        .where(
            Subscription.id > subscription_id,
            Subscription.status != SubscriptionStatus.CANCELLED,
        )
        .order_by(Subscription.id)
        .limit(limit)
    )
    return [Coming(*row) for row in session.execute(query)]


def write(session: Session, planned: Sequence[Coming | Subscription]) -> None:
    """Store these next months."""
    if planned:
        values = {
            "ids": [one.id for one in planned],
            "numbers": [one.next_cycle for one in planned],
            "due": [one.next_due_at for one in planned],
            "closing": [one.next_closes_at for one in planned],
        }
        session.execute(_WRITE, values)
