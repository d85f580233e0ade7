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


def was_paused(session: Session, subscription_id: int, at: datetime) -> bool:
    """Whether a subscription was paused at a moment that has passed, by what was written then."""
    newest = (
        select(Event.kind)
        .where(
            Event.subscription_id == subscription_id,
            Event.kind.in_(_STATUS_CHANGES),
            Event.at <= at,
        )
        .order_by(Event.id.desc())
        .limit(1)
    )
    return session.execute(newest).scalar_one_or_none() == "subscription.paused"


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
