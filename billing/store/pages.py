"""Lists for people, a page at a time: by the id of the last row shown, never by an offset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from billing.domain.cycle import CycleStatus
from billing.store.tables import (
    Attempt,
    Cycle,
    Event,
    LedgerDifference,
    Notice,
    Refund,
    Subscription,
)

PAGE = 50


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and where the next page begins; None on the last one."""

    rows: Sequence[Any]
    before: int | None = None


def _page(rows: Sequence[Any], size: int) -> Page:
    if len(rows) <= size:
        return Page(rows)
    return Page(rows[:size], _id(rows[size - 1]))


def _id(row: Any) -> int:
    return int((row[0] if isinstance(row, Row) else row).id)


# -- subscriptions ----------------------------------------------------------------------------


def subscriptions(
    session: Session, *, status: str | None, before: int | None, size: int = PAGE
) -> Page:
    """Subscriptions, newest first."""
    query = select(Subscription).order_by(Subscription.id.desc()).limit(size + 1)
    if status is not None:
        query = query.where(Subscription.status == status)
    if before is not None:
        query = query.where(Subscription.id < before)
    return _page(session.execute(query).scalars().all(), size)


def subscription_counts(session: Session) -> dict[str, int]:
    """How many subscriptions have which status."""
    query = select(Subscription.status, func.count()).group_by(Subscription.status)
    return {status: count for status, count in session.execute(query)}


def found(session: Session, wanted: str, limit: int = PAGE) -> Sequence[Subscription]:
    """Whatever a person may have at hand: what a `customer_uid` or reference begins with, or a
    whole `merchant_uid` or `imp_uid` of one of its payments, the first one included."""
    begins = wanted.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    ids: list[int] = []
    for query in (
        select(Subscription.id).where(Subscription.customer_uid == wanted),
        select(Cycle.subscription_id)
        .join(Attempt, Attempt.cycle_id == Cycle.id)
        .where(Attempt.merchant_uid == wanted),
        select(Cycle.subscription_id).where(Cycle.paid_imp_uid == wanted),
        select(Subscription.id).where(Subscription.initial_imp_uid == wanted),
        select(Subscription.id).where(Subscription.customer_uid.like(begins)),
        select(Subscription.id).where(Subscription.reference.like(begins)),
    ):
        ids += session.execute(query.limit(limit)).scalars()
    if not ids:
        # No index leads to the first order's number: it is asked for last.
        first = select(Subscription.id).where(Subscription.initial_merchant_uid == wanted)
        ids += session.execute(first.limit(limit)).scalars()
    # In the order in which they were found, each once.
    order = {one: place for place, one in enumerate(dict.fromkeys(ids))}
    rows = session.execute(select(Subscription).where(Subscription.id.in_(order))).scalars()
    return sorted(rows, key=lambda row: order[row.id])[:limit]


# -- cycles -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Those:
    """Which cycles: by status, those that close soon, those that are held."""

    status: str | None = None
    soon: bool = False
    held: bool = False


def cycles(
    session: Session,
    those: Those,
    now: datetime,
    closing_soon: timedelta,
    *,
    before: int | None,
    size: int = PAGE,
) -> Page:
    """Cycles with their subscriptions, newest first."""
    query = (
        select(Cycle, Subscription)
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .order_by(Cycle.id.desc())
        .limit(size + 1)
    )
    if those.status is not None:
        query = query.where(Cycle.status == those.status)
    if those.soon:
        query = query.where(
            Cycle.status == CycleStatus.OPEN,
            Cycle.closes_at > now,
            Cycle.closes_at <= now + closing_soon,
        )
    if those.held:
        query = query.where(Cycle.status == CycleStatus.OPEN, Cycle.held.is_not(None))
    if before is not None:
        query = query.where(Cycle.id < before)
    return _page(session.execute(query).all(), size)


# -- events, differences, notices, refunds ----------------------------------------------------


def events(session: Session, *, alarms: bool, before: int | None, size: int = PAGE) -> Page:
    """Event lines with the `customer_uid` they tell of, newest first."""
    query = (
        select(Event, Subscription.customer_uid)
        .outerjoin(Subscription, Subscription.id == Event.subscription_id)
        .order_by(Event.id.desc())
        .limit(size + 1)
    )
    if alarms:
        query = query.where(Event.alarm)
    if before is not None:
        query = query.where(Event.id < before)
    return _page(session.execute(query).all(), size)


def differences(session: Session, limit: int = 500) -> Sequence[Any]:
    """Differences that wait for a person, the newest payment first."""
    return session.execute(
        select(LedgerDifference, Subscription.customer_uid)
        .outerjoin(Subscription, Subscription.id == LedgerDifference.subscription_id)
        .where(LedgerDifference.resolved_at.is_(None))
        .order_by(LedgerDifference.at.desc())
        .limit(limit)
    ).all()


def notices(session: Session, *, dead: bool, before: int | None, size: int = PAGE) -> Page:
    """Notices with their `customer_uid`, newest first: all, or those that were given up."""
    query = (
        select(Notice, Subscription.customer_uid)
        .outerjoin(Subscription, Subscription.id == Notice.subscription_id)
        .order_by(Notice.id.desc())
        .limit(size + 1)
    )
    if dead:
        query = query.where(Notice.dead_at.is_not(None))
    if before is not None:
        query = query.where(Notice.id < before)
    return _page(session.execute(query).all(), size)


def open_refunds(session: Session, limit: int = PAGE) -> Sequence[Any]:
    """Refunds that did not end yet, the first to run out of time first."""
    return session.execute(
        select(Refund, Subscription.customer_uid)
        .join(Subscription, Subscription.id == Refund.subscription_id)
        .where(Refund.status.in_(["requested", "sending", "unknown"]))
        .order_by(Refund.refund_by)
        .limit(limit)
    ).all()


def walk(page: Any, size: int = 1000) -> Iterator[Sequence[Any]]:
    """Every page of a list, one after the other: `page(before, size)` gives one."""
    before = None
    while True:
        found: Page = page(before, size)
        yield found.rows
        if found.before is None:
            return
        before = found.before
