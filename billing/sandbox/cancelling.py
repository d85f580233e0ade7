"""Undoing a payment, `cancel`: docs/gateway.md §8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from billing.sandbox.charging import storable, won
from billing.sandbox.clock import seoul_day
from billing.sandbox.faults import Fault, cancel_fault
from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import Payment, Status
from billing.sandbox.months import month_of
from billing.sandbox.mood import by_chance
from billing.sandbox.reply import Reply, refusal, success
from billing.sandbox.view import payment_row

NOTHING_TO_CANCEL = "취소할 결제건이 존재하지 않습니다."


def fault_of(sandbox: Sandbox) -> Fault | None:
    """What a cancellation meets now."""
    if spell := sandbox.spell():
        return spell
    chances = sandbox.mood.chances.cancel
    if not chances:
        return None
    dice = sandbox.dice.of("cancel", len(sandbox.ledger.requests))
    return cancel_fault(by_chance(chances, dice))


def cancel_in_console(sandbox: Sandbox, imp_uid: str, reason: str) -> Reply:
    """Cancel as a person does in the gateway's console: the merchant's server is told of it."""
    return cancel(sandbox, {"imp_uid": imp_uid, "reason": reason, "enable_webhook": True})


def cancel(sandbox: Sandbox, form: Mapping[str, object]) -> Reply:
    """Cancel a payment: in its own calendar month and in full, phone billing knows nothing else.

    By the API the merchant's server is told only with `enable_webhook`.
    """
    payment = _to_cancel(sandbox, form)
    if payment is None:
        return refusal(NOTHING_TO_CANCEL)
    if payment.status is not Status.PAID:
        return refusal("이미 취소되었거나 결제되지 않은 거래입니다. 기 취소 거래")
    now = sandbox.clock.unix()
    if payment.sandbox and seoul_day(payment.paid_at) < seoul_day(now):
        # A test payment is taken back by the gateway itself that day, without showing it.
        return refusal("기 취소 거래")
    checksum, amount = form.get("checksum"), form.get("amount")
    if checksum is not None and won(checksum) != payment.amount:
        return refusal("취소 가능 금액(checksum)이 일치하지 않습니다.")
    if amount is not None and won(amount) not in (0, payment.amount):
        return refusal("휴대폰 결제는 부분취소가 불가능합니다.")
    if month_of(seoul_day(payment.paid_at)) != month_of(seoul_day(now)):
        return refusal("[0042] 취소 가능 기간이 경과되었습니다.")
    cancelled = replace(
        payment,
        status=Status.CANCELLED,
        cancelled_at=int(now),
        cancel_reason=storable(form.get("reason")),
    )
    sandbox.ledger.put(cancelled)
    if form.get("enable_webhook") in (True, "true"):
        sandbox.webhooks.tell(cancelled)
    return success(payment_row(cancelled))


def _to_cancel(sandbox: Sandbox, form: Mapping[str, object]) -> Payment | None:
    """`imp_uid` wins over `merchant_uid`; of several rows the paid one is meant."""
    if imp_uid := form.get("imp_uid"):
        return sandbox.ledger.by_imp_uid(str(imp_uid))
    rows = sandbox.ledger.of_order(str(form.get("merchant_uid") or ""))
    return max(rows, key=lambda one: (one.status is Status.PAID, one.number), default=None)
