"""Asking the gateway what it knows of one cycle: the same look-ups before and after a charge."""

from __future__ import annotations

from collections.abc import Sequence

from billing.domain.calendar import start_of
from billing.domain.finding import Finding, Question, find
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.ports import PaymentGateway
from billing.store.attempts import Claim


async def already_there(gateway: PaymentGateway, policy: BillingPolicy, claim: Claim) -> Finding:
    """What the gateway shows before this attempt is sent.

    The key's payments of the month, and every `merchant_uid` of the cycle that was sent before: a
    failed one may have turned paid (docs/gateway.md §3). Raises `GatewayError`.
    """
    sent_before = [*claim.earlier, *([claim.request.merchant_uid] if claim.resent else [])]
    return await _ask(gateway, policy, claim, sent_before)


async def what_became(gateway: PaymentGateway, policy: BillingPolicy, claim: Claim) -> Finding:
    """What the gateway shows of an attempt whose outcome is unknown. Raises `GatewayError`."""
    sent = [claim.request.merchant_uid, *claim.earlier]
    return await _ask(gateway, policy, claim, sent)


async def _ask(
    gateway: PaymentGateway,
    policy: BillingPolicy,
    claim: Claim,
    merchant_uids: Sequence[str],
) -> Finding:
    rows: list[Payment] = []
    for merchant_uid in merchant_uids:
        rows.extend(await gateway.payments_of_order(merchant_uid))
    since = start_of(claim.month, policy.plan.zone)
    rows.extend(await gateway.payments_of_key(claim.request.customer_uid, since))
    question = Question(
        customer_uid=claim.request.customer_uid,
        amount=claim.request.amount,
        month=claim.month,
        merchant_uid=claim.request.merchant_uid,
        earlier=claim.earlier,
        zone=policy.plan.zone,
        sandbox=policy.sandbox,
    )
    return find(question, rows)
