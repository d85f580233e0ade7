"""Nothing that a list shows is applied or told before the gateway was asked about it by name."""

from __future__ import annotations

from dataclasses import replace

from billing.domain.errors import InvalidInput
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.reconciliation import Case, Difference, judge
from billing.ports import PaymentGateway


async def by_name(gateway: PaymentGateway, policy: BillingPolicy, case: Case) -> Difference | None:
    """Judge a case by what the gateway says of the payment itself, now. Raises `GatewayError`."""
    try:
        payment = await gateway.payment(case.payment.imp_uid)
        kept = await gateway.payment(case.double_of) if case.double_of is not None else None
    except InvalidInput:
        # By such an id nothing can be asked about.
        payment = kept = None
    if payment is None or _is_paid_otherwise(payment, case.payment):
        # In the list alone, or in it as another: told as the list shows it, never applied.
        found = judge(case, sandbox=policy.sandbox, zone=policy.plan.zone)
        return None if found is None else replace(found, confirmed=False)
    still_double = kept is not None and kept.status == "paid"
    fresh = replace(case, payment=payment, double_of=case.double_of if still_double else None)
    seen_at = case.payment.paid_at
    return judge(fresh, sandbox=policy.sandbox, zone=policy.plan.zone, seen_at=seen_at)


def _is_paid_otherwise(payment: Payment, listed: Payment) -> bool:
    """Whether the gateway names or dates a payment in two ways. Whose it is, and of which month,
    was found by what the list says."""
    same = (payment.merchant_uid, payment.paid_at) == (listed.merchant_uid, listed.paid_at)
    return payment.status == "paid" and not same
