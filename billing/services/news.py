"""What the book's rows tell the merchant's own system (`domain.notice`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Protocol

from billing.domain.attempt import LIVE, AttemptStatus
from billing.domain.calendar import SEOUL
from billing.domain.customer_advice import (
    NOT_DECLINED,
    REGISTER_ANEW,
    TELL_TO_REGISTER,
    for_customer,
)
from billing.domain.cycle import CycleStatus
from billing.domain.money import Won
from billing.domain.notice import (
    ClosingSoon,
    Declined,
    Missed,
    News,
    Paid,
    Refunded,
    Skipped,
    Suspended,
    UnknownPayment,
)
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.reconciliation import Difference, DifferenceKind
from billing.domain.refund import month_of, refundable_until
from billing.domain.remedies import Remedy, remedy
from billing.store.tables import Attempt, Cycle, Refund, Subscription


class PaidCycle(Protocol):
    """What is told of a month that is paid: its row, or what a statement says of it."""

    @property
    def number(self) -> int: ...
    @property
    def month(self) -> date: ...
    @property
    def amount(self) -> int: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def paid_imp_uid(self) -> str | None: ...
    @property
    def paid_merchant_uid(self) -> str | None: ...


def paid(cycle: PaidCycle, paid_at: datetime) -> Paid:
    """A cycle that has just been settled as paid."""
    return Paid(
        **_month(cycle),
        merchant_uid=str(cycle.paid_merchant_uid),
        imp_uid=str(cycle.paid_imp_uid),
        paid_at=paid_at,
        reason=cycle.reason,
    )


def declined(
    policy: BillingPolicy, cycle: Cycle, attempt: Attempt, next_attempt_at: datetime | None
) -> Declined:
    """An attempt that has just been settled as declined."""
    return Declined(
        **_month(cycle),
        **_refusal(policy, cycle, attempt, next_attempt_at),
        attempt=attempt.number,
        merchant_uid=attempt.merchant_uid,
        imp_uid=attempt.imp_uid,
    )


def closing_soon(policy: BillingPolicy, cycle: Cycle, tried: Sequence[Attempt]) -> ClosingSoon:
    """An open cycle and its attempts, the newest last."""
    refused = [attempt for attempt in tried if attempt.status == AttemptStatus.DECLINED]
    # Not one that came back and may go only when it is too late.
    live = [
        attempt.ready_at
        for attempt in tried
        if attempt.status in LIVE and attempt.ready_at <= cycle.last_start_at
    ]
    return ClosingSoon(
        **_month(cycle),
        **_refusal(policy, cycle, refused[-1] if refused else None, live[-1] if live else None),
        closes_at=cycle.closes_at,
    )


def ended(cycle: Cycle) -> News:
    """A cycle that has just ended without a payment."""
    if cycle.status == CycleStatus.SKIPPED:
        return Skipped(**_month(cycle), reason=str(cycle.reason))
    return Missed(
        **_month(cycle),
        reason=str(cycle.reason),
        advice=TELL_TO_REGISTER,
        for_customer=REGISTER_ANEW,
    )


def suspended(reason: str) -> Suspended:
    return Suspended(reason=reason, advice=TELL_TO_REGISTER, for_customer=REGISTER_ANEW)


def refunded(refund: Refund, cycle: Cycle | None, at: datetime, *, at_risk: bool) -> Refunded:
    """A payment that was given back; with the cycle that it had paid, if any."""
    return Refunded(
        cycle=cycle.number if cycle else None,
        month=f"{cycle.month:%Y-%m}" if cycle else None,
        amount=refund.amount,
        merchant_uid=refund.merchant_uid,
        imp_uid=refund.imp_uid,
        refunded_at=at,
        chain_at_risk=at_risk,
    )


def paid_twice(kept: str, other: Payment, now: datetime, policy: BillingPolicy) -> UnknownPayment:
    """A second payment of one month, found by a look-up; `kept` is the `imp_uid` of the first. The
    gateway may not say when it was made; that must not hide the first."""
    paid_at, zone = other.paid_at, policy.plan.zone
    found = Difference(
        kind=DifferenceKind.DOUBLE,
        at=paid_at or now,
        imp_uid=other.imp_uid,
        merchant_uid=other.merchant_uid,
        customer_uid=other.customer_uid,
        month=month_of(paid_at, zone) if paid_at else None,
        paid_at=paid_at,
        ledger_amount=other.amount,
        keep=kept,
        refund_by=refundable_until(paid_at, zone) if paid_at else None,
    )
    return unknown(found, paid_at or now)


def paid_after_cancel(
    subscription: Subscription, cycle: Cycle, policy: BillingPolicy
) -> UnknownPayment:
    """A charge that was under way when its subscription was cancelled, and has just been paid."""
    if cycle.paid_at is None:
        raise AssertionError("a CHECK constraint says that a paid cycle has its moment")
    found = Difference(
        kind=DifferenceKind.PAID_NOT_DUE,
        at=cycle.paid_at,
        imp_uid=cycle.paid_imp_uid,
        merchant_uid=str(cycle.paid_merchant_uid),
        customer_uid=subscription.customer_uid,
        month=cycle.month,
        paid_at=cycle.paid_at,
        ledger_amount=Won(cycle.amount),
        refund_by=refundable_until(cycle.paid_at, policy.plan.zone),
    )
    return unknown(found, cycle.paid_at)


def unknown(found: Difference, now: datetime) -> UnknownPayment:
    """A payment at the gateway that the book cannot count."""
    return UnknownPayment(
        customer_uid=found.customer_uid,
        reason=found.kind,
        merchant_uid=found.merchant_uid,
        imp_uid=found.imp_uid,
        amount=found.ledger_amount.amount if found.ledger_amount else None,
        paid_at=found.paid_at,
        keep=found.keep,
        refund_by=found.refund_by,
        advice=remedy(found, now, SEOUL),
    )


def _month(cycle: Cycle | PaidCycle) -> dict[str, Any]:
    return {"cycle": cycle.number, "month": f"{cycle.month:%Y-%m}", "amount": cycle.amount}


def _refusal(
    policy: BillingPolicy, cycle: Cycle, refused: Attempt | None, next_attempt_at: datetime | None
) -> dict[str, Any]:
    last = cycle.last_start_at
    told = {"next_attempt_at": next_attempt_at, "last_chance_at": last}
    if refused is None:
        nothing = dict.fromkeys(("decline_class", "code", "message"))
        return {
            **told,
            **nothing,
            "advice": NOT_DECLINED,
            "for_customer": for_customer(None, last),
        }
    decline = policy.declines.classify(refused.message)
    return {
        **told,
        "decline_class": decline.decline_class,
        "code": decline.code,
        "message": refused.message,
        "advice": Remedy(decline.advice_en, decline.advice_ko),
        "for_customer": for_customer(decline.decline_class, last),
    }
