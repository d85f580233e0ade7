"""Pinning the amount of an order before its payment window opens (docs/gateway.md §11).

A browser can be made to ask for another amount; the gateway then refuses it. The enrolment compares
the amount once more, so that a pin that failed costs a customer nothing but a clear refusal.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation

from billing.domain.errors import GatewayRefused, GatewayUnavailable
from billing.domain.money import Won
from billing.portone.answer import Answer, Unreadable, envelope

PATH = "/payments/prepare"


def body(merchant_uid: str, amount: Won) -> bytes:
    """The JSON of the request."""
    return json.dumps({"merchant_uid": merchant_uid, "amount": amount.amount}).encode()


def is_done(answer: Answer, merchant_uid: str, amount: Won) -> bool:
    """Whether the answer proves that the amount is pinned; False when the order has a pin already,
    or something else is wrong with it, and has to be looked up.

    Raises `GatewayRefused` and `GatewayUnavailable`."""
    if answer.status in (401, 403):
        raise GatewayRefused(f"prepare: HTTP {answer.status}")
    if answer.status != 200:
        raise GatewayUnavailable(f"prepare: HTTP {answer.status}")
    try:
        answered = envelope(answer.body)
    except Unreadable as error:
        raise GatewayUnavailable(f"prepare: {error}") from None
    if answered.code != 0:
        return False
    pinned = answered.response
    if not isinstance(pinned, dict) or pinned.get("merchant_uid") != merchant_uid:
        raise GatewayUnavailable("prepare: the answer is about another order")
    check_pinned(pinned, amount)
    return True


def check_pinned(row: object, amount: Won) -> None:
    """Raises `GatewayRefused` unless the order's pin is this amount."""
    pinned = row.get("amount") if isinstance(row, dict) else None
    # An amount may come as 9900, 9900.0 or "9900"; none at all is no number either.
    try:
        same = Decimal(str(pinned)) == amount.amount
    except InvalidOperation:
        same = False
    if not same:
        raise GatewayRefused("prepare: the amount of the order is not pinned")
