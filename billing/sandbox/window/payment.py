"""The money of a window: the initial payment that issues the billing key, or a failure of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, time, timedelta
from enum import StrEnum

from billing.sandbox.clock import SEOUL
from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import BillingKey, Origin, Payment
from billing.sandbox.months import after, clamped, month_of
from billing.sandbox.texts import Decline, decline
from billing.sandbox.view import payment_row
from billing.sandbox.window.order import Order


class Now(StrEnum):
    """What shall happen to the payment in the window."""

    APPROVED = "approved"
    LIMIT = "0031"
    BLOCKED = "0024"
    CARRIER = "0098"
    EXPIRED = "expired"
    """The window's time is up."""
    LOST = "lost"
    """Paid, but the browser is never told, as when its line breaks in that moment."""


class Later(StrEnum):
    """What shall happen in the months after it."""

    PAID = "paid"
    ONCE = "declined:0098"
    """A fault of the carrier's system, once."""
    SILENT = "timeout_after_charge"
    """Charged next month, and the answer is lost."""
    OVERDUE = "0016"
    """A bill is overdue next month, and paid two days later."""
    LIMIT = "0031"
    """The line's limit is used up, every month."""
    MOVED = "0023"
    """The number moves to another carrier."""


class Failure(StrEnum):
    """How a window fails without the carrier's word."""

    CANCELLED = "cancelled"
    WRONG_CODE = "wrong_code"
    EXPIRED = "expired"


FAILURES: Mapping[Failure, tuple[str, str]] = {
    Failure.CANCELLED: ("F400", "[결제포기] 사용자가 결제를 취소하셨습니다."),
    Failure.WRONG_CODE: ("F401", "[인증실패] 인증번호를 3회 잘못 입력하셨습니다."),
    Failure.EXPIRED: ("F408", "[시간초과] 결제 시간이 초과되었습니다. 다시 시도해 주세요."),
}
_REFUSED_BY_CARRIER = "F500"


def approve(sandbox: Sandbox, order: Order, later: Later) -> Payment:
    """Charge the amount and issue the key; a known customer_uid's key is overwritten."""
    now = sandbox.clock.unix()
    key = _key(sandbox, order, now, later)
    sandbox.ledger.put(key)
    payment = sandbox.enter(
        key,
        order.merchant_uid,
        key,
        now,
        Origin.WINDOW,
        custom_data=order.custom_data,
        notice_url=order.notice_url,
    )
    sandbox.webhooks.tell(payment)
    return payment


def refuse(sandbox: Sandbox, order: Order, code: str) -> Payment:
    """The carrier's refusal, as a failed payment without a key."""
    return _failed(sandbox, order, decline(code))


def fail(sandbox: Sandbox, order: Order, failure: Failure) -> Payment:
    """A window that came to nothing, as a failed payment: the gateway keeps those, too."""
    # Class A: not the line's own failure, none that the carrier would count.
    return _failed(sandbox, order, Decline("", "A", FAILURES[failure][1]))


def told(payment: Payment, failure: Failure | None = None) -> dict[str, object]:
    """The SDK's `rsp` for a payment."""
    row = payment_row(payment)
    names = ("imp_uid", "merchant_uid", "pay_method", "pg_provider", "pg_tid", "name", "status")
    buyer = ("buyer_name", "buyer_email", "buyer_tel", "custom_data", "customer_uid")
    good = bool(payment.paid_at)
    rsp = {"success": good, "imp_success": good, **{name: row[name] for name in (*names, *buyer)}}
    if good:
        paid = {name: row[name] for name in ("paid_at", "receipt_url", "currency")}
        return {**rsp, "paid_amount": payment.amount, **paid}
    code = FAILURES[failure][0] if failure else _REFUSED_BY_CARRIER
    return {**rsp, "error_code": code, "error_msg": payment.fail_reason}


def _failed(sandbox: Sandbox, order: Order, said: Decline) -> Payment:
    now = sandbox.clock.unix()
    terms = _key(sandbox, order, now, Later.PAID)
    return sandbox.enter(
        terms,
        order.merchant_uid,
        terms,
        now,
        Origin.WINDOW,
        decline=said,
        custom_data=order.custom_data,
        notice_url=order.notice_url,
    )


def _key(sandbox: Sandbox, order: Order, now: float, later: Later) -> BillingKey:
    key = BillingKey(
        customer_uid=order.customer_uid,
        amount=order.amount,
        name=order.name,
        issued_at=int(now),
        buyer_name=order.buyer_name,
        buyer_email=order.buyer_email,
        buyer_tel=order.buyer_tel,
        script_from=sandbox.ledger.times_asked(order.customer_uid),
        sandbox=sandbox.mood.test_mode,
    )
    match later:
        case Later.PAID:
            return key
        case Later.ONCE | Later.SILENT:
            return replace(key, script=later.value)
        case Later.OVERDUE:
            return replace(key, condition=later.value, condition_until=_two_days_late(now))
        case Later.LIMIT | Later.MOVED:
            return replace(key, condition=later.value)


def _two_days_late(now: float) -> float:
    """The morning of the second day after next month's due day."""
    first = datetime.fromtimestamp(now, SEOUL).date()
    due = clamped(after(month_of(first)), first.day)
    return datetime.combine(due + timedelta(days=2), time(9), SEOUL).timestamp()
