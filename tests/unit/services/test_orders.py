"""Orders of the checkout page whose payments are odd."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from billing.domain.errors import (
    AnswerUnusable,
    Conflict,
    GatewayUnavailable,
    InvalidInput,
    NotFound,
)
from billing.domain.money import Won
from billing.domain.order import Offer, Order
from billing.domain.payment import Payment
from billing.services import pick_up_order as module
from billing.services.finish_order import NothingShown, NotPaid, finish_order
from billing.services.pick_up_order import pick_up_order

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
ORDER = Order.new(Won(9900), "plan", "0" * 24)
OFFER = Offer(ORDER.amount, ORDER.order_name)
NOBODY: Any = None


def a_payment(status: str = "paid", **more: Any) -> Payment:
    return Payment(
        "imp_1",
        ORDER.merchant_uid,
        status,
        ORDER.amount,
        ORDER.customer_uid,
        order_name=ORDER.order_name,
        **more,
    )


def picked_up(offer: Offer | None, payment: Payment) -> bool:
    return asyncio.run(pick_up_order(NOBODY, NOBODY, lambda: b"", NOBODY, offer, payment))


def test_what_is_sold_no_more_is_not_picked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "enrol_payment", NOBODY)
    assert not picked_up(None, a_payment())
    assert not picked_up(OFFER, a_payment("failed"))
    assert not picked_up(Offer(Won(9901), "plan"), a_payment())


@pytest.mark.parametrize(
    "refusal",
    [
        Conflict("홍길동 is known otherwise"),
        InvalidInput("buyer_name", "홍길동", "is too long"),
    ],
)
def test_what_is_refused_is_told_without_the_buyers_words(
    refusal: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(module, "enrol_payment", refuse)
    assert not picked_up(OFFER, a_payment())
    (line,) = caplog.messages
    assert line == f"order {ORDER.merchant_uid} was refused ({type(refusal).__name__})"


@pytest.mark.parametrize(
    ("away", "then"),
    [
        (GatewayUnavailable("503"), GatewayUnavailable),
        # A look-up that is behind the webhook.
        (NotFound("no such payment"), AnswerUnusable),
    ],
)
def test_a_gateway_that_does_not_show_it_is_asked_again(
    away: Exception, then: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise away

    monkeypatch.setattr(module, "enrol_payment", fails)
    with pytest.raises(then):
        picked_up(OFFER, a_payment())


def test_of_several_tries_the_newest_tells_why() -> None:
    tries = [
        a_payment("failed", failed_at=NOW, fail_reason="the second"),
        a_payment("failed", failed_at=NOW + timedelta(seconds=1), fail_reason="a third"),
        a_payment("failed", failed_at=NOW - timedelta(seconds=1), fail_reason="zzz, the first"),
    ]
    begun = a_payment("ready", fail_reason="no try that ended")

    def said(*payments: Payment) -> object:
        async def of_order(_: str) -> list[Payment]:
            return list(payments)

        gateway: Any = SimpleNamespace(payments_of_order=of_order)
        return asyncio.run(finish_order(NOBODY, NOBODY, lambda: b"", gateway, ORDER))

    assert said(*tries) == NotPaid("a third")
    assert said(a_payment("failed")) == NotPaid(None)
    # Nothing is called unpaid that may be paid yet.
    assert said(*tries, begun) == said(begun) == said() == NothingShown()
