"""Rows of the gateway's own book, as look-ups show them. Everything raises `Unreadable` only."""

from __future__ import annotations

from billing.domain.money import Won
from billing.portone import fields
from billing.portone.answer import Unreadable
from billing.ports import BillingKey, Buyer, Payment, ScheduledPayment


def payment(value: object, *, sandbox: bool = False) -> Payment:
    """One payment (docs/gateway.md §3, payment fields). `sandbox` says which kind a row
    is of that does not tell: it contradicts nothing."""
    row = fields.row(value)
    flag = fields.flag(row, "sandbox")
    reason = row.get("fail_reason")
    return Payment(
        imp_uid=fields.needed_text(row, "imp_uid"),
        merchant_uid=fields.needed_text(row, "merchant_uid"),
        status=fields.needed_text(row, "status"),
        amount=Won(fields.needed_amount(row, "amount")),
        customer_uid=fields.text(row, "customer_uid"),
        paid_at=fields.moment(row, "paid_at"),
        failed_at=fields.moment(row, "failed_at"),
        cancelled_at=fields.moment(row, "cancelled_at"),
        started_at=fields.moment(row, "started_at"),
        cancelled_amount=Won(fields.amount(row, "cancel_amount") or 0),
        fail_reason=None if reason is None else fields.message(reason),
        pay_method=fields.text(row, "pay_method"),
        pg_provider=fields.text(row, "pg_provider"),
        order_name=fields.text(row, "name"),
        currency=fields.text(row, "currency"),
        sandbox=sandbox if flag is None else flag,
        customer_uid_usage=fields.text(row, "customer_uid_usage"),
        buyer=Buyer(
            name=fields.text(row, "buyer_name"),
            email=fields.text(row, "buyer_email"),
            tel=fields.text(row, "buyer_tel"),
        ),
    )


def billing_key(value: object, customer_uid: str) -> BillingKey:
    """One billing key (docs/gateway.md §5). An answer about another key is no answer."""
    row = fields.row(value)
    if fields.needed_text(row, "customer_uid") != customer_uid:
        raise Unreadable("an answer about another billing key")
    return BillingKey(
        customer_uid=customer_uid,
        pg_provider=fields.text(row, "pg_provider"),
        sandbox=fields.flag(row, "sandbox") or False,
        inserted_at=fields.moment(row, "inserted"),
    )


def scheduled_payment(value: object) -> ScheduledPayment:
    """One entry of the gateway's own scheduler (docs/gateway.md §6)."""
    row = fields.row(value)
    return ScheduledPayment(
        merchant_uid=fields.needed_text(row, "merchant_uid"),
        scheduled_at=fields.needed_moment(row, "schedule_at"),
        amount=Won(fields.needed_amount(row, "amount")),
        status=fields.needed_text(row, "schedule_status"),
    )
