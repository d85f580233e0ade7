"""Rows of the book as the gateway shows them (docs/gateway.md §3, §5, §6)."""

from __future__ import annotations

from billing.sandbox.model import BillingKey, Origin, Payment, Schedule, Status
from billing.sandbox.webhooks import cancellation_id

_USAGE = {
    Origin.WINDOW: "issue",
    Origin.AGAIN: "payment",
    Origin.HAND: "payment",
    Origin.SCHEDULE: "payment.scheduled",
}
_PG_ID = "170622040674"


def payment_row(payment: Payment) -> dict[str, object]:
    """One payment."""
    cancelled = payment.status is Status.CANCELLED
    return {
        "imp_uid": payment.imp_uid,
        "merchant_uid": payment.merchant_uid,
        "pay_method": "phone",
        "channel": "pc" if payment.origin is Origin.WINDOW else "api",
        "pg_provider": "mobilians",
        "emb_pg_provider": None,
        "pg_tid": f"KG{payment.number:018d}",
        "pg_id": _PG_ID,
        "sandbox": payment.sandbox,
        "escrow": False,
        "apply_num": None,
        "name": payment.name or None,
        "amount": payment.amount,
        "cancel_amount": payment.amount if cancelled else 0,
        "currency": "KRW",
        "buyer_name": payment.buyer_name or None,
        "buyer_email": payment.buyer_email or None,
        "buyer_tel": payment.buyer_tel or None,
        "buyer_addr": None,
        "buyer_postcode": None,
        "custom_data": payment.custom_data or None,
        "status": payment.status.value,
        "started_at": payment.started_at,
        "paid_at": payment.paid_at,
        "failed_at": payment.failed_at,
        "cancelled_at": payment.cancelled_at,
        "fail_reason": payment.fail_reason or None,
        "cancel_reason": payment.cancel_reason or None,
        "cancel_history": [_cancellation(payment)] if cancelled else [],
        "receipt_url": f"https://receipt.invalid/{payment.imp_uid}" if payment.paid_at else None,
        "cash_receipt_issued": False,
        "customer_uid": payment.customer_uid or None,
        "customer_uid_usage": _USAGE[payment.origin],
    }


def _cancellation(payment: Payment) -> dict[str, object]:
    return {
        "pg_tid": f"KG{payment.number:018d}",
        "amount": payment.amount,
        "cancelled_at": payment.cancelled_at,
        "reason": payment.cancel_reason,
        "cancellation_id": cancellation_id(payment),
        "receipt_url": None,
    }


def balance_row(payment: Payment) -> dict[str, object]:
    """What is left to cancel of a payment; VAT is 1/11 of the amount."""
    left = payment.amount if payment.status is Status.PAID else 0
    vat = left // 11
    nothing = {"tax_free": 0, "supply": 0, "vat": 0, "service": 0}
    return {
        "amount": left,
        "cash_receipt": nothing,
        "primary": {**nothing, "supply": left - vat, "vat": vat},
        "secondary": nothing,
        "discount": nothing,
        "histories": [],
    }


def key_row(key: BillingKey) -> dict[str, object]:
    """One billing key. It shows neither the amount nor the anchor."""
    return {
        "customer_uid": key.customer_uid,
        "pg_provider": "mobilians",
        "pg_id": _PG_ID,
        "sandbox": key.sandbox,
        "customer_id": None,
        "card_name": None,
        "card_code": None,
        "card_number": None,
        "card_type": None,
        "customer_name": key.buyer_name or None,
        "customer_tel": key.buyer_tel or None,
        "customer_email": key.buyer_email or None,
        "customer_addr": None,
        "customer_postcode": None,
        "inserted": key.issued_at,
        "updated": key.issued_at,
    }


def schedule_row(schedule: Schedule, payment: Payment | None = None) -> dict[str, object]:
    """One entry of the gateway's own scheduler, with the payment that came of it."""
    return {
        "customer_uid": schedule.customer_uid,
        "merchant_uid": schedule.merchant_uid,
        "imp_uid": schedule.imp_uid or None,
        "schedule_at": schedule.schedule_at,
        "executed_at": schedule.executed_at,
        "revoked_at": 0,
        "amount": schedule.amount,
        "currency": "KRW",
        "name": schedule.name or None,
        "buyer_name": schedule.buyer_name or None,
        "buyer_email": schedule.buyer_email or None,
        "buyer_tel": schedule.buyer_tel or None,
        "schedule_status": schedule.status,
        "payment_status": schedule.payment_status or None,
        "fail_reason": None if payment is None else payment.fail_reason or None,
    }
