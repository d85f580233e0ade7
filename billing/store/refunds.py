"""Queries on refunds: which are open, who may send one, what was given back on a day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from billing.domain.cycle import CycleStatus
from billing.domain.money import Won
from billing.domain.refund import OPEN, CancelRequest, RefundStatus
from billing.store.tables import Cycle, Refund, Subscription
from billing.store.waiting import is_time


@dataclass(frozen=True, slots=True)
class RefundClaim:
    """A refund that this worker alone may send, or an open question about one."""

    refund_id: int
    fence: int
    request: CancelRequest


def standing(session: Session, imp_uid: str) -> Refund | None:
    """The refund of a payment that is not refused, locked; None when there is none. After its
    subscription, as all of a customer's rows are (`attempts.lock_with_cycle`)."""
    return session.execute(
        select(Refund)
        .join(Subscription, Subscription.id == Refund.subscription_id)
        .where(Refund.imp_uid == imp_uid, Refund.status != RefundStatus.REFUSED)
        .with_for_update(of=[Subscription, Refund])
    ).scalar_one_or_none()


def given_back(session: Session, imp_uids: Sequence[str]) -> set[str]:
    """Those of these payments that are given back, or about to be."""
    query = select(Refund.imp_uid).where(
        Refund.imp_uid.in_(imp_uids), Refund.status != RefundStatus.REFUSED
    )
    return set(session.execute(query).scalars())


def month_is_paid_besides(session: Session, refund: Refund) -> bool:
    """Whether the month of a payment that stands refunded counts another one, which is neither
    given back nor about to be."""
    # A day before the end of the month lies in it, whatever the zone.
    month = (refund.refund_by - timedelta(days=1)).date().replace(day=1)
    query = select(Cycle.paid_imp_uid).where(
        Cycle.subscription_id == refund.subscription_id,
        Cycle.month == month,
        Cycle.status == CycleStatus.PAID,
    )
    counted = session.execute(query).scalar_one_or_none()
    return counted is not None and not given_back(session, [counted])


def open_now(session: Session, now: datetime, limit: int) -> Sequence[int]:
    """Refunds that something should be done about now: sent, asked about, or given up on."""
    query = select(Refund.id).where(_due(now)).order_by(Refund.refund_by, Refund.id).limit(limit)
    return list(session.execute(query).scalars())


def count_open(session: Session) -> int:
    """How many refunds did not end yet."""
    query = select(func.count()).where(Refund.status.in_(OPEN))
    return session.execute(query).scalar_one()


def of_payment(session: Session, merchant_uid: str, imp_uid: str | None) -> Sequence[Refund]:
    """The refunds of a payment, by its name or its id; the newest first."""
    query = select(Refund).where(Refund.merchant_uid == merchant_uid).order_by(Refund.id.desc())
    if imp_uid is not None:
        query = query.where(Refund.imp_uid == imp_uid)
    return session.execute(query).scalars().all()


def _due(now: datetime) -> ColumnElement[bool]:
    """Each open status with its own moment."""
    return or_(
        and_(Refund.status == RefundStatus.SENDING, Refund.lease_until < now),
        and_(
            Refund.status.in_([RefundStatus.REQUESTED, RefundStatus.UNKNOWN]),
            or_(Refund.ask_at.is_(None), is_time(Refund.ask_at, now)),
        ),
    )


def locked(session: Session, refund_id: int) -> Refund | None:
    """One open refund, after its subscription, locked until the transaction ends; None when it
    ended."""
    return session.execute(
        select(Refund)
        .join(Subscription, Subscription.id == Refund.subscription_id)
        .where(Refund.id == refund_id, Refund.status.in_(OPEN))
        .with_for_update(of=[Subscription, Refund])
        .execution_options(populate_existing=True)
    ).scalar_one_or_none()


def claim(session: Session, refund_id: int, now: datetime, lease: timedelta) -> RefundClaim | None:
    """`requested → sending`, with a fencing number higher than any before; None when it was not
    there to be sent, or its month is over."""
    won = session.execute(
        update(Refund)
        .where(
            Refund.id == refund_id,
            Refund.status == RefundStatus.REQUESTED,
            Refund.refund_by > now,
        )
        .values(
            status=RefundStatus.SENDING,
            fence=Refund.fence + 1,
            sent_at=now,
            lease_until=now + lease,
            refusal=None,
            still_paid=0,
            provable_at=None,
            ask_at=None,
        )
        .returning(Refund)
        .execution_options(populate_existing=True)
    ).scalar_one_or_none()
    return None if won is None else as_claim(won)


def as_claim(refund: Refund) -> RefundClaim:
    request = CancelRequest(refund.imp_uid, refund.merchant_uid, Won(refund.amount), refund.reason)
    return RefundClaim(refund.id, refund.fence, request)


def with_cycle(session: Session, refund: Refund) -> tuple[Subscription, Cycle | None]:
    """The rows that a refund changes when it is done, locked."""
    subscription = session.execute(
        select(Subscription)
        .where(Subscription.id == refund.subscription_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).scalar_one()
    cycle = session.execute(
        select(Cycle)
        .where(Cycle.paid_imp_uid == refund.imp_uid)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).scalar_one_or_none()
    return subscription, cycle
