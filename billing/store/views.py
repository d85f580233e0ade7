"""Read-only views for people and programs: what the book says, in the contract's shapes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleStatus
from billing.domain.notice import NoticeStatus
from billing.domain.subscription import SubscriptionStatus
from billing.store import differences, health, notices, refunds
from billing.store.tables import Attempt, Cycle, Notice, Refund, Subscription

Rows = Generator[dict[str, Any], None, None]
_ROWS_OF_A_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and the id of the last of them where there are more."""

    items: list[dict[str, Any]]
    last_id: int | None


def status(
    session: Session, now: datetime, closing_soon: timedelta, zone: ZoneInfo
) -> dict[str, Any]:
    """Counts by status, money collected, and whether the gateway is up."""
    soon = select(func.count()).where(
        Cycle.status == CycleStatus.OPEN,
        Cycle.closes_at > now,
        Cycle.closes_at <= now + closing_soon,
    )
    collected = select(func.coalesce(func.sum(Cycle.amount), 0)).where(
        Cycle.status == CycleStatus.PAID
    )
    return {
        "at": moment(now, zone),
        "subscriptions": _counts(session, Subscription.status, SubscriptionStatus),
        "cycles": _counts(session, Cycle.status, CycleStatus),
        "attempts": _counts(session, Attempt.status, AttemptStatus),
        "won_collected": int(session.execute(collected).scalar_one()),
        "closing_soon": session.execute(soon).scalar_one(),
        "differences": differences.count_open(session),
        "refunds_open": refunds.count_open(session),
        "notices_waiting": notices.count(session, NoticeStatus.WAITING),
        "notices_dead": notices.count(session, NoticeStatus.DEAD),
        "gateway": "up" if health.is_up(health.read(session), now) else "down",
        "hold": health.hold_reason(session),
    }


def _counts(session: Session, column: Any, members: type[StrEnum]) -> dict[str, int]:
    found = {
        value: count
        for value, count in session.execute(select(column, func.count()).group_by(column))
    }
    return {str(member): found.get(str(member), 0) for member in members}


def cycles(
    session: Session,
    zone: ZoneInfo,
    *,
    status: str | None = None,
    customer_uid: str | None = None,
    number: int | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Cycles, newest first, each with its attempts."""
    page = cycle_page(
        session, zone, status=status, customer_uid=customer_uid, number=number, limit=limit
    )
    return page.items


def all_cycles(
    session: Session,
    zone: ZoneInfo,
    *,
    status: str | None = None,
    customer_uid: str | None = None,
) -> Rows:
    """Every cycle, newest first, read page by page: memory does not grow with their number."""

    def page(before: int | None) -> Page:
        return cycle_page(
            session,
            zone,
            status=status,
            customer_uid=customer_uid,
            before=before,
            limit=_ROWS_OF_A_PAGE,
        )

    return _all(page)


def _all(page: Callable[[int | None], Page]) -> Rows:
    found = page(None)
    yield from found.items
    while found.last_id is not None:
        found = page(found.last_id)
        yield from found.items


def cycle_page(
    session: Session,
    zone: ZoneInfo,
    *,
    status: str | None = None,
    customer_uid: str | None = None,
    number: int | None = None,
    before: int | None = None,
    limit: int = 100,
) -> Page:
    """Cycles with an id below `before`, newest first, each with its attempts."""
    query = select(Cycle, Subscription.customer_uid).join(
        Subscription, Subscription.id == Cycle.subscription_id
    )
    if status is not None:
        query = query.where(Cycle.status == status)
    if customer_uid is not None:
        query = query.where(Subscription.customer_uid == customer_uid)
    if number is not None:
        query = query.where(Cycle.number == number)
    if before is not None:
        query = query.where(Cycle.id < before)
    found = session.execute(query.order_by(Cycle.id.desc()).limit(limit + 1)).all()
    rows = found[:limit]
    attempts = _attempts(session, [row.Cycle.id for row in rows])
    items = [
        _cycle(row.Cycle, row.customer_uid, attempts.get(row.Cycle.id, []), zone) for row in rows
    ]
    return Page(items, rows[-1].Cycle.id if len(found) > limit else None)


def _attempts(session: Session, cycle_ids: Sequence[int]) -> dict[int, list[Attempt]]:
    found: dict[int, list[Attempt]] = {}
    query = select(Attempt).where(Attempt.cycle_id.in_(cycle_ids)).order_by(Attempt.number)
    for attempt in session.execute(query).scalars():
        found.setdefault(attempt.cycle_id, []).append(attempt)
    return found


def _cycle(
    cycle: Cycle, customer_uid: str, attempts: Sequence[Attempt], zone: ZoneInfo
) -> dict[str, Any]:
    return {
        "customer_uid": customer_uid,
        "cycle": cycle.number,
        "due_on": cycle.due_on.isoformat(),
        "opens_on": cycle.opens_on.isoformat(),
        "closes_on": cycle.closes_on.isoformat(),
        "status": cycle.status,
        "reason": cycle.reason,
        "held": cycle.held,
        "amount": cycle.amount,
        "merchant_uid": cycle.paid_merchant_uid,
        "imp_uid": cycle.paid_imp_uid,
        "paid_at": moment(cycle.paid_at, zone),
        "attempts": [_attempt(attempt, zone) for attempt in attempts],
    }


def _attempt(attempt: Attempt, zone: ZoneInfo) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "merchant_uid": attempt.merchant_uid,
        "status": attempt.status,
        "planned_at": moment(attempt.planned_at, zone),
        "sent_at": moment(attempt.sent_at, zone),
        "settled_at": moment(attempt.settled_at, zone),
        "decline_class": attempt.decline_class,
        "message": attempt.message,
    }


def subscriptions(
    session: Session,
    zone: ZoneInfo,
    *,
    status: str | None = None,
    customer_uid: str | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Subscriptions, newest first; without buyer data.

    `previous` and `next` are the `customer_uid`s under which the same customer was registered
    before and after."""
    page = subscription_page(session, zone, status=status, customer_uid=customer_uid, limit=limit)
    return page.items


def all_subscriptions(session: Session, zone: ZoneInfo, *, status: str | None = None) -> Rows:
    """Every subscription, newest first, read page by page as `all_cycles`."""
    return _all(
        lambda before: subscription_page(
            session, zone, status=status, before=before, limit=_ROWS_OF_A_PAGE
        )
    )


def subscription_page(
    session: Session,
    zone: ZoneInfo,
    *,
    status: str | None = None,
    customer_uid: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> Page:
    """Subscriptions with an id below `before`, newest first."""
    earlier, later = aliased(Subscription), aliased(Subscription)
    query = (
        select(Subscription, earlier.customer_uid, later.customer_uid)
        .outerjoin(earlier, earlier.id == Subscription.previous_id)
        .outerjoin(later, later.previous_id == Subscription.id)
    )
    if status is not None:
        query = query.where(Subscription.status == status)
    if customer_uid is not None:
        query = query.where(Subscription.customer_uid == customer_uid)
    if before is not None:
        query = query.where(Subscription.id < before)
    found = session.execute(query.order_by(Subscription.id.desc()).limit(limit + 1)).all()
    items = [_subscription(row, zone, previous, after) for row, previous, after in found[:limit]]
    return Page(items, found[limit - 1][0].id if len(found) > limit else None)


def _subscription(
    row: Subscription, zone: ZoneInfo, previous: str | None, following: str | None
) -> dict[str, Any]:
    return {
        "customer_uid": row.customer_uid,
        "status": row.status,
        "reason": row.status_reason,
        "amount": row.amount,
        "order_name": row.order_name,
        "anchor_on": row.anchor_on.isoformat(),
        "initial_paid_at": moment(row.initial_paid_at, zone),
        "enrolled_at": moment(row.enrolled_at, zone),
        "next_cycle": row.next_cycle,
        "next_due_at": moment(row.next_due_at, zone),
        "reference": row.reference,
        "previous": previous,
        "next": following,
        "forgotten_at": moment(row.forgotten_at, zone),
    }


def refund(session: Session, zone: ZoneInfo, refund_id: int, *, already: bool) -> dict[str, Any]:
    """One refund; `already` says that it was given back before it was asked for."""
    row = session.get_one(Refund, refund_id)
    owner = session.get_one(Subscription, row.subscription_id)
    return {
        "customer_uid": owner.customer_uid,
        "merchant_uid": row.merchant_uid,
        "imp_uid": row.imp_uid,
        "amount": row.amount,
        "status": row.status,
        "already": already,
        "requested_at": moment(row.requested_at, zone),
        "cancelled_at": moment(row.cancelled_at, zone),
        "refund_by": moment(row.refund_by, zone),
        "subscription": owner.status,
        "subscription_reason": owner.status_reason,
        "message": row.message,
    }


def outbox(
    session: Session,
    zone: ZoneInfo,
    *,
    status: NoticeStatus | None = None,
    limit: int = 100,
    before: int | None = None,
) -> list[dict[str, Any]]:
    """Notices, newest first; those older than the number `before` where it is given."""
    return [
        _notice(row, zone, customer_uid)
        for row, customer_uid in notices.listed(session, status, limit, before)
    ]


def _notice(row: Notice, zone: ZoneInfo, customer_uid: str | None) -> dict[str, Any]:
    # Whatever else somebody wrote there behind the book's back, no message can be made of.
    is_message = isinstance(row.data, dict)
    return {
        "id": row.id,
        "webhook_id": notices.as_outgoing(row, customer_uid).webhook_id if is_message else None,
        "type": row.kind,
        "customer_uid": customer_uid or (row.data.get("customer_uid") if is_message else None),
        "status": notices.status_of(row),
        "created_at": moment(row.created_at, zone),
        "tries": row.tries,
        "next_try_at": moment(row.next_try_at, zone) if notices.waits(row) else None,
        "delivered_at": moment(row.delivered_at, zone),
        "dead_at": moment(row.dead_at, zone),
        "problem": row.problem,
        "data": row.data,
    }


def moment(value: datetime | None, zone: ZoneInfo) -> str | None:
    """ISO 8601 with the offset of billing days."""
    return None if value is None else value.astimezone(zone).isoformat(timespec="seconds")
