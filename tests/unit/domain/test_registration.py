"""Which payment begins a subscription, and which one never does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.domain.errors import Conflict, InvalidInput
from billing.domain.money import Won
from billing.domain.payment import Buyer, Payment
from billing.domain.registration import Expected, checked_imp_uid, registration
from billing.domain.subscription import NewSubscription

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
PAID_AT = NOW - timedelta(minutes=1)
PAYMENT = Payment(
    imp_uid="imp_1",
    merchant_uid="order-1",
    status="paid",
    amount=Won(9900),
    customer_uid="customer-1",
    paid_at=PAID_AT,
    pay_method="phone",
    pg_provider="mobilians",
    order_name="월정액 ",
    currency="KRW",
    customer_uid_usage="issue",
    buyer=Buyer("=홍길동", "hong@example.com", "010 1234 5678"),
)


def read(
    expected: Expected | None = None, test_mode: bool = False, **changes: Any
) -> NewSubscription:
    payment = replace(PAYMENT, **changes)
    return registration(payment, expected or Expected(), NOW, sandbox=test_mode)


def test_every_text_is_kept_as_the_payment_shows_it() -> None:
    """Also what a spreadsheet cell must not be: the carrier compares, we correct nothing."""
    new = read()
    facts = new.facts
    assert (facts.customer_uid, facts.amount, facts.initial_paid_at) == (
        "customer-1",
        Won(9900),
        PAID_AT,
    )
    assert (facts.order_name, facts.buyer_name) == ("월정액 ", "=홍길동")
    assert (facts.buyer_email, facts.buyer_tel) == ("hong@example.com", "010 1234 5678")
    assert (new.initial_imp_uid, new.initial_merchant_uid) == ("imp_1", "order-1")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"status": "failed"}, "is failed, not paid"),
        ({"status": "ready"}, "is ready, not paid"),
        ({"status": "cancelled"}, "is cancelled, not paid"),
        ({"status": "\x1b[2Jpaid"}, "not paid"),
        ({"cancelled_amount": Won(1)}, "given back in part"),
        ({"paid_at": None}, "no moment that has passed"),
        ({"paid_at": NOW + timedelta(minutes=6)}, "no moment that has passed"),
        ({"pay_method": "card"}, "no payment by phone bill"),
        ({"pay_method": None}, "no payment by phone bill"),
        ({"pg_provider": "danal"}, "not made through mobilians"),
        ({"pg_provider": "mobilians_v2"}, "not made through mobilians"),
        ({"pg_provider": None}, "not made through mobilians"),
        ({"currency": "USD"}, "is not in KRW"),
        ({"amount": Won(300)}, "below 301 won"),
        ({"customer_uid": None}, "registered no billing key"),
        ({"customer_uid": ""}, "registered no billing key"),
        ({"customer_uid_usage": "payment"}, "did not register one"),
        ({"customer_uid_usage": "payment.scheduled"}, "did not register one"),
        ({"sandbox": True}, "is a test payment"),
    ],
)
def test_what_registers_no_key_that_we_may_charge(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(Conflict, match=problem):
        read(**changes)


def test_a_live_payment_where_test_ones_are_expected() -> None:
    with pytest.raises(Conflict, match="live payment"):
        read(test_mode=True)
    assert read(test_mode=True, sandbox=True).initial_imp_uid == "imp_1"


@pytest.mark.parametrize(
    ("expected", "problem"),
    [
        (Expected(customer_uid="customer-2"), "another customer_uid"),
        (Expected(merchant_uid="order-2"), "another merchant_uid"),
        (Expected(amount=19900), "is of 9,900 KRW"),
    ],
)
def test_what_was_ordered_is_what_was_paid(expected: Expected, problem: str) -> None:
    with pytest.raises(Conflict, match=problem) as caught:
        read(expected)
    assert "customer-" not in str(caught.value)
    assert read(Expected("customer-1", "order-1", 9900)).initial_imp_uid == "imp_1"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"order_name": None}, "order_name"),
        ({"order_name": "x" * 41}, "order_name"),
        ({"order_name": "a\nb"}, "order_name"),
        ({"buyer": Buyer(name="Christopher Robin")}, "buyer_name"),
        ({"buyer": Buyer(email="x" * 65)}, "buyer_email"),
        ({"buyer": Buyer(tel="0" * 17)}, "buyer_tel"),
        ({"customer_uid": "x" * 81}, "customer_uid"),
        ({"customer_uid": "=cmd"}, "customer_uid"),
        ({"merchant_uid": "x" * 41}, "initial_merchant_uid"),
    ],
)
def test_what_no_later_payment_could_repeat_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(**changes)
    assert caught.value.field == field
    assert caught.value.remedy
    assert "Christopher" not in str(caught.value)


def test_a_missing_name_is_shown_as_empty() -> None:
    with pytest.raises(InvalidInput) as caught:
        read(order_name=None)
    assert caught.value.value == ""


def test_the_longest_texts_and_the_smallest_amount_that_can_be_repeated() -> None:
    buyer = Buyer(name="x" * 16, email="x" * 64, tel="0" * 16)
    new = read(order_name="x" * 40, buyer=buyer, merchant_uid="x" * 40, amount=Won(301))
    assert new.facts.order_name == "x" * 40
    assert (new.facts.buyer_name, new.facts.buyer_email) == (buyer.name, buyer.email)
    assert (new.facts.buyer_tel, new.initial_merchant_uid) == (buyer.tel, "x" * 40)
    assert new.facts.amount == Won(301)


def test_clocks_may_differ_by_five_minutes() -> None:
    soon = NOW + timedelta(minutes=5)
    assert read(paid_at=soon).facts.initial_paid_at == soon
    with pytest.raises(Conflict, match="no moment that has passed"):
        read(paid_at=soon + timedelta(microseconds=1))


@pytest.mark.parametrize("value", ["", "imp 1", "../customers/x", "imp_1\n", "x" * 65, "імр_1"])
def test_what_is_no_id_of_a_payment(value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_imp_uid(value)
    assert caught.value.field == "imp_uid"


def test_an_id_of_a_payment() -> None:
    assert checked_imp_uid("imp_123456789012") == "imp_123456789012"
