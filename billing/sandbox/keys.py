"""Billing keys: deleting them, and the gateway's own scheduler on them (docs/gateway.md §5, §6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from billing.sandbox.charging import read_asked
from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import Schedule
from billing.sandbox.reply import Reply, not_found, refusal, success
from billing.sandbox.view import key_row, schedule_row

# Year 9999, as unix seconds: what comes later is no moment.
_LATEST = 253_370_764_800


def delete(sandbox: Sandbox, customer_uid: str) -> Reply:
    """Delete a billing key for good; its payments stay in the book."""
    key = sandbox.ledger.key(customer_uid)
    if key is None:
        return not_found(f"요청하신 customer_uid({customer_uid})로 등록된 정보를 찾을 수 없습니다.")
    deleted = replace(key, deleted_at=int(sandbox.clock.unix()))
    sandbox.ledger.put(deleted)
    return success(key_row(deleted))


def schedule(sandbox: Sandbox, form: Mapping[str, object]) -> Reply:
    """Have the gateway charge a key later, once each, by itself."""
    key = sandbox.ledger.key(str(form.get("customer_uid") or ""))
    if key is None:
        return refusal("등록된 고객정보가 없습니다.")
    asked = form.get("schedules")
    rows = [_planned(key.customer_uid, one) for one in asked] if isinstance(asked, list) else []
    now = sandbox.clock.unix()
    if not rows or any(row is None or row.schedule_at <= now for row in rows):
        return refusal("예약 정보가 올바르지 않습니다.")
    made = [row for row in rows if row is not None]
    if any(row.merchant_uid in sandbox.ledger.schedules for row in made):
        return refusal("이미 등록된 merchant_uid입니다.")
    for row in made:
        sandbox.ledger.put(row)
    return success([schedule_row(row) for row in made])


def unschedule(sandbox: Sandbox, form: Mapping[str, object]) -> Reply:
    """Take back what the gateway was to charge: the orders named, or all of the key."""
    customer_uid = str(form.get("customer_uid") or "")
    named = form.get("merchant_uid") or []
    names = [str(one) for one in named] if isinstance(named, list) else [str(named)]
    found = [
        one
        for one in sandbox.ledger.schedules.values()
        if one.customer_uid == customer_uid
        and one.status == "scheduled"
        and (not names or one.merchant_uid in names)
    ]
    if not found:
        return refusal("취소할 예약결제 기록이 존재하지 않습니다.")
    revoked = [replace(one, status="revoked") for one in found]
    for one in revoked:
        sandbox.ledger.put(one)
    return success([schedule_row(one) for one in revoked])


def _planned(customer_uid: str, form: object) -> Schedule | None:
    if not isinstance(form, dict):
        return None
    asked, at = read_asked(form), form.get("schedule_at")
    if not asked.merchant_uid or asked.amount < 0 or type(at) is not int or at >= _LATEST:
        return None
    return Schedule(
        merchant_uid=asked.merchant_uid,
        customer_uid=customer_uid,
        schedule_at=at,
        amount=asked.amount,
        name=asked.name,
        buyer_name=asked.buyer_name,
        buyer_email=asked.buyer_email,
        buyer_tel=asked.buyer_tel,
    )
