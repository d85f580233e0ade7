"""The event log and the outbox, written in the same transaction as what they tell."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
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


def newest(session: Session) -> int:
    """The highest event number in the book; 0 in an empty one."""
    return session.execute(select(func.coalesce(func.max(Event.id), 0))).scalar_one()


def told_since(session: Session, kind: str, since: datetime) -> list[dict[str, Any]]:
    """The data of every alarm of a kind since a moment."""
    query = select(Event.data).where(Event.alarm, Event.kind == kind, Event.at >= since)
    return list(session.execute(query).scalars())


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
