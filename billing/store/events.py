"""The event log and the outbox, written in the same transaction as what they tell."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.store.tables import Event, Notice


def add(
    session: Session,
    *,
    at: datetime,
    kind: str,
    subscription_id: int | None = None,
    cycle_id: int | None = None,
    attempt_id: int | None = None,
    data: Mapping[str, Any] | None = None,
    alarm: bool = False,
) -> None:
    """Append one line. `data` holds ids, dates, amounts and the gateway's words; nobody's data."""
    session.add(
        Event(
            at=at,
            kind=kind,
            subscription_id=subscription_id,
            cycle_id=cycle_id,
            attempt_id=attempt_id,
            data=dict(data or {}),
            alarm=alarm,
        )
    )


_STATUS_CHANGES = (
    "subscription.paused",
    "subscription.resumed",
    "subscription.suspended",
    "subscription.cancelled",
)


def paused_then(session: Session, moments: Mapping[int, datetime]) -> frozenset[int]:
    """Which of these subscriptions were paused at a moment of each that has passed, by what was
    written then."""
    changes = (
        select(Event.subscription_id, Event.kind, Event.at)
        .where(Event.subscription_id.in_(moments), Event.kind.in_(_STATUS_CHANGES))
        .order_by(Event.id)
    )
    newest = {
        subscription_id: kind
        for subscription_id, kind, at in session.execute(changes)
        if subscription_id is not None and at <= moments[subscription_id]
    }
    return frozenset(one for one, kind in newest.items() if kind == "subscription.paused")


def notify(
    session: Session,
    *,
    at: datetime,
    kind: str,
    subscription_id: int | None,
    data: Mapping[str, Any],
) -> None:
    """Put news for the merchant's own system into the outbox."""
    session.add(
        Notice(
            subscription_id=subscription_id,
            kind=kind,
            data=dict(data),
            created_at=at,
            next_try_at=at,
        )
    )
