"""An order: its names, its way through a browser, and the payment that belongs to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from billing.domain.errors import InvalidInput
from billing.domain.money import Won
from billing.domain.order import Offer, Order
from billing.domain.payment import Payment

NAME = "0123456789abcdef01234567"
OFFER = Offer(Won(9_900), "월간 구독")
ORDER = Order.new(OFFER.amount, OFFER.order_name, NAME)
PAID = Payment(
    imp_uid="imp_1",
    merchant_uid=ORDER.merchant_uid,
    customer_uid=ORDER.customer_uid,
    status="paid",
    amount=OFFER.amount,
    order_name=OFFER.order_name,
)


def test_its_names_fit_the_gateway() -> None:
    assert len(ORDER.merchant_uid) <= 40
    assert ORDER.merchant_uid.isascii()
    assert ORDER.customer_uid not in repr(ORDER)


def test_there_and_back() -> None:
    assert Order.from_json(ORDER.as_json()) == ORDER


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"name": NAME},
        {**ORDER.as_json(), "amount": "9900"},
        {**ORDER.as_json(), "name": "x"},
    ],
)
def test_what_is_no_order(document: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        Order.from_json(document)
    assert caught.value.field in ("order", "name")


def test_what_came_through_a_browser_is_not_shown() -> None:
    with pytest.raises(InvalidInput) as caught:
        Order.from_json({"name": "somebody's"})
    assert (caught.value.field, caught.value.value) == ("order", "…")


@pytest.mark.parametrize("name", ["", NAME.upper(), NAME + "0", NAME[:-1] + "\n", "../" + NAME[3:]])
def test_a_name_of_another_form(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"^name="):
        Order.new(OFFER.amount, OFFER.order_name, name)


def test_the_payment_of_an_order() -> None:
    assert Order.paid_by(PAID, OFFER) == ORDER


@pytest.mark.parametrize(
    "change",
    [
        {"status": "failed"},
        {"status": "cancelled"},
        {"amount": Won(9_901)},
        {"order_name": "월간 구독 "},
        {"customer_uid": None},
        {"customer_uid": "customer-" + NAME[::-1]},
        {"merchant_uid": NAME},
        {"merchant_uid": f"order-{NAME}0"},
        {"merchant_uid": "mw-abc-202611-01"},
    ],
)
def test_the_payment_of_something_else(change: dict[str, Any]) -> None:
    assert Order.paid_by(replace(PAID, **change), OFFER) is None
