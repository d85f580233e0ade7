"""Pinning an order's amount before its payment window opens, `prepare`: docs/gateway.md §11."""

from __future__ import annotations

from collections.abc import Mapping

from billing.sandbox.charging import storable, won
from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import Prepared
from billing.sandbox.reply import Reply, not_found, refusal, success

# The longest merchant_uid there is.
_LONGEST = 40


def prepare(sandbox: Sandbox, form: Mapping[str, object]) -> Reply:
    """Pin an amount, once; the window refuses another."""
    merchant_uid, amount = storable(form.get("merchant_uid")), won(form.get("amount"))
    if not merchant_uid or len(merchant_uid) > _LONGEST or amount < 0:
        return refusal("merchant_uid, amount가 올바르지 않습니다.")
    if merchant_uid in sandbox.ledger.prepared:
        return refusal("이미 등록된 merchant_uid입니다.")
    sandbox.ledger.put(Prepared(merchant_uid, amount))
    return success({"merchant_uid": merchant_uid, "amount": amount})


def prepared(sandbox: Sandbox, merchant_uid: str) -> Reply:
    """The amount that was pinned."""
    amount = sandbox.ledger.prepared.get(merchant_uid)
    if amount is None:
        return not_found("사전등록된 결제정보가 존재하지 않습니다.")
    return success({"merchant_uid": merchant_uid, "amount": amount})
