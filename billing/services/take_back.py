"""The one place at which a payment given back is applied: to its refund, its cycle and its
subscription, with the event lines and the notice that tell of it, in one transaction."""

from __future__ import annotations

from datetime import datetime

from billing.domain.cycle import CYCLE_TRANSITIONS, CycleStatus
from billing.domain.refund import REFUND_TRANSITIONS, RefundStatus
from billing.domain.subscription import CHAIN_AT_RISK, GOES_ON
from billing.services import news
from billing.services.answer import clean
from billing.store import events, refunds
from billing.store.session import Transaction
from billing.store.tables import Cycle, Refund, Subscription


def done(tx: Transaction, refund: Refund, cancelled_at: datetime, *, found: bool = False) -> None:
    """The gateway's own row says cancelled. `found` says that nothing we sent did it."""
    _end(tx, refund, RefundStatus.DONE, alarm=found)
    refund.cancelled_at = cancelled_at
    apply(tx, refund, cancelled_at)


def apply(tx: Transaction, refund: Refund, cancelled_at: datetime) -> None:
    """What a refund that is done does to the month that its payment counts for, if any."""
    subscription, cycle = refunds.with_cycle(tx.session, refund)
    if cycle is not None:
        # The month may have counted the payment only after it was asked back.
        refund.cycle_id = cycle.id
        if cycle.status == CycleStatus.PAID:
            _refund_cycle(tx, subscription, cycle, refund)
    # As it was when the refund was asked for, unless the month is paid by another payment by now.
    breaks_chain = refund.breaks_chain and not refunds.month_is_paid_besides(tx.session, refund)
    at_risk = breaks_chain and subscription.status in GOES_ON
    events.notify(
        tx.session,
        at=tx.now,
        subscription_id=subscription.id,
        news=news.refunded(refund, cycle, cancelled_at, at_risk=at_risk),
    )
    if at_risk:
        _chain_at_risk(tx, subscription, refund)


def refused(tx: Transaction, refund: Refund, message: str) -> None:
    """The gateway did not give it back, and its look-up shows the payment as it was."""
    refund.message = clean(message)
    _end(tx, refund, RefundStatus.REFUSED, alarm=True)


def _end(tx: Transaction, refund: Refund, status: RefundStatus, *, alarm: bool) -> None:
    REFUND_TRANSITIONS.check(RefundStatus(refund.status), status)
    refund.status = status
    refund.settled_at = tx.now
    refund.lease_until = refund.ask_at = None
    told(tx, refund, f"refund.{status}", alarm=alarm)


def told(
    tx: Transaction, refund: Refund, kind: str, *, why: str | None = None, alarm: bool = False
) -> None:
    """One event line about a refund."""
    data = {
        "imp_uid": refund.imp_uid,
        "merchant_uid": refund.merchant_uid,
        "amount": refund.amount,
        "fence": refund.fence,
    }
    said = why if why is not None else refund.message
    events.add(
        tx.session,
        at=tx.now,
        kind=kind,
        subscription_id=refund.subscription_id,
        cycle_id=refund.cycle_id,
        data=data if said is None else {**data, "why": clean(said)},
        alarm=alarm,
    )


def _refund_cycle(
    tx: Transaction, subscription: Subscription, cycle: Cycle, refund: Refund
) -> None:
    CYCLE_TRANSITIONS.check(CycleStatus(cycle.status), CycleStatus.REFUNDED)
    cycle.status = CycleStatus.REFUNDED
    events.add(
        tx.session,
        at=tx.now,
        kind="cycle.refunded",
        subscription_id=subscription.id,
        cycle_id=cycle.id,
        data={
            "cycle": cycle.number,
            "imp_uid": refund.imp_uid,
            "merchant_uid": refund.merchant_uid,
            "amount": refund.amount,
        },
    )


def _chain_at_risk(tx: Transaction, subscription: Subscription, refund: Refund) -> None:
    """The month has no payment left. Whether that ends the billing key no document says for sure:
    the subscription goes on, is marked, and next month's charge will tell (ADR 0008)."""
    subscription.status_reason = CHAIN_AT_RISK
    told(tx, refund, "subscription.chain_at_risk", alarm=True)
