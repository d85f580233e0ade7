"""Suspend those whom the gateway declined for good, once it is clear that the fault is not ours.

With wrong keys or another store's contract every customer is "unknown". A suspension cannot be
taken back, so it waits half a minute for what the other charges say (`domain.brake`).
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select

from billing.domain import brake
from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleStatus, HoldReason
from billing.domain.declines import DeclineClass
from billing.domain.subscription import (
    SUBSCRIPTION_TRANSITIONS,
    SubscriptionStatus,
    SuspensionReason,
)
from billing.services import news
from billing.store import events, health
from billing.store.session import Transaction
from billing.store.tables import Attempt, Cycle, Subscription

BATCH = 500
# Longer than charges sent side by side take to be declined one after the other.
WAIT = timedelta(seconds=30)


def confirm_suspensions(tx: Transaction) -> int:
    """Suspend what has waited long enough; nobody while charging is held. Returns how many."""
    if health.hold_reason(tx.session) is not None:
        return 0
    if not brake.are_believed(health.read(tx.session).verdicts):
        return 0
    declined_at = (
        select(func.max(Attempt.settled_at))
        .where(Attempt.cycle_id == Cycle.id, Attempt.status == AttemptStatus.DECLINED)
        .scalar_subquery()
    )
    rows = tx.session.execute(
        select(Cycle, Subscription)
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .where(
            Cycle.status == CycleStatus.OPEN,
            Cycle.held == HoldReason.UNCONFIRMED,
            Subscription.status.in_([SubscriptionStatus.ACTIVE, SubscriptionStatus.PAUSED]),
            declined_at <= tx.now - WAIT,
        )
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    for cycle, subscription in rows:
        cycle.held = None
        _suspend(tx, cycle, subscription)
    return len(rows)


def _suspend(tx: Transaction, cycle: Cycle, subscription: Subscription) -> None:
    SUBSCRIPTION_TRANSITIONS.check(
        SubscriptionStatus(subscription.status), SubscriptionStatus.SUSPENDED
    )
    reason = _reason(tx, cycle)
    subscription.status = SubscriptionStatus.SUSPENDED
    subscription.status_reason = reason
    events.add(
        tx.session,
        at=tx.now,
        kind="subscription.suspended",
        subscription_id=subscription.id,
        cycle_id=cycle.id,
        data={"reason": reason},
    )
    events.notify(
        tx.session, at=tx.now, subscription_id=subscription.id, news=news.suspended(reason)
    )


def _reason(tx: Transaction, cycle: Cycle) -> SuspensionReason:
    newest = tx.session.execute(
        select(Attempt.decline_class)
        .where(Attempt.cycle_id == cycle.id, Attempt.status == AttemptStatus.DECLINED)
        .order_by(Attempt.number.desc())
        .limit(1)
    ).scalar_one()
    if newest == DeclineClass.CHAIN_BROKEN:
        return SuspensionReason.CHAIN_BROKEN
    return SuspensionReason.KEY_INVALID
