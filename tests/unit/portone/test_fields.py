"""Each kind of field at its edges, and each row of the gateway field by field."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from billing.domain.money import Won
from billing.domain.payment import Buyer, Payment
from billing.portone import fields, rows
from billing.portone.answer import Unreadable
from billing.ports import BillingKey, ScheduledPayment

Read = Callable[[fields.Row, str], Any]
AT = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
SECONDS = int(AT.timestamp())


@pytest.mark.parametrize(
    ("read", "value", "found"),
    [
        (fields.text, None, None),
        (fields.text, "", None),
        (fields.text, " 한글 ", " 한글 "),
        (fields.needed_text, "a", "a"),
        (fields.whole, None, None),
        (fields.whole, -7, -7),
        (fields.whole, 9900.0, 9900),
        (fields.amount, None, None),
        (fields.amount, 0, 0),
        (fields.amount, 10**15, 10**15),
        (fields.needed_amount, 0, 0),
        (fields.flag, None, None),
        (fields.flag, False, False),
        (fields.flag, True, True),
        (fields.moment, None, None),
        (fields.moment, 0, None),
        (fields.moment, 0.4, None),
        (fields.moment, SECONDS, AT),
        (fields.moment, SECONDS + 0.9, AT),
        (fields.moment, -1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (fields.needed_moment, SECONDS, AT),
    ],
)
def test_what_is_read(read: Read, value: object, found: object) -> None:
    got = read({"field": value, "other": "another"}, "field")
    assert (type(got), got) == (type(found), found)


@pytest.mark.parametrize(
    ("read", "value", "why"),
    [
        (fields.text, 7, "field is no text"),
        (fields.text, "a\0", "field is no text"),
        (fields.text, "a\ud800", "field is no text"),
        (fields.text, "\udfffa", "field is no text"),
        (fields.needed_text, None, "field is missing"),
        (fields.needed_text, "", "field is missing"),
        (fields.whole, True, "field is no whole number"),
        (fields.whole, "9900", "field is no whole number"),
        (fields.whole, 9900.5, "field is no whole number"),
        (fields.whole, float("inf"), "field is no whole number"),
        (fields.amount, -1, "field is below zero"),
        (fields.amount, 10**15 + 1, "field is no amount of money"),
        (fields.needed_amount, None, "field is missing"),
        (fields.flag, 0, "field is neither true nor false"),
        (fields.flag, "true", "field is neither true nor false"),
        (fields.moment, float("nan"), "field is no whole number"),
        (fields.moment, "1", "field is no whole number"),
        (fields.moment, 10**18, "field is no moment"),
        (fields.needed_moment, 0, "field is missing"),
    ],
)
def test_what_is_not(read: Read, value: object, why: str) -> None:
    with pytest.raises(Unreadable, match=f"^{why}$"):
        read({"field": value}, "field")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("m" * 501, "m" * 500),
        ("a\0\ud800b\udfff", "a\ufffd\ufffdb\ufffd"),
        (None, ""),
        (["no"], ""),
    ],
)
def test_a_message_is_made_storable(value: object, found: str) -> None:
    assert fields.message(value) == found


@pytest.mark.parametrize("value", [None, [], "row", 1])
def test_a_row_is_an_object(value: object) -> None:
    with pytest.raises(Unreadable, match="not an object"):
        fields.row(value)


WHOLE = {
    "imp_uid": "imp_1",
    "merchant_uid": "mw-1",
    "status": "cancelled",
    "amount": 9900,
    "customer_uid": "customer-1",
    "paid_at": SECONDS + 1,
    "failed_at": SECONDS + 2,
    "cancelled_at": SECONDS + 3,
    "started_at": SECONDS,
    "cancel_amount": 9800,
    "fail_reason": "0098 later",
    "pay_method": "phone",
    "pg_provider": "mobilians",
    "name": "Monthly plan",
    "currency": "KRW",
    "sandbox": False,
    "customer_uid_usage": "payment",
    "buyer_name": "Hong",
    "buyer_email": "hong@example.com",
    "buyer_tel": "010-0000-0000",
}


def at(second: int) -> datetime:
    return datetime.fromtimestamp(SECONDS + second, UTC)


def test_every_field_of_a_payment() -> None:
    assert rows.payment(WHOLE, sandbox=True) == Payment(
        imp_uid="imp_1",
        merchant_uid="mw-1",
        status="cancelled",
        amount=Won(9900),
        customer_uid="customer-1",
        paid_at=at(1),
        failed_at=at(2),
        cancelled_at=at(3),
        started_at=at(0),
        cancelled_amount=Won(9800),
        fail_reason="0098 later",
        pay_method="phone",
        pg_provider="mobilians",
        order_name="Monthly plan",
        currency="KRW",
        sandbox=False,
        customer_uid_usage="payment",
        buyer=Buyer("Hong", "hong@example.com", "010-0000-0000"),
    )


def test_a_payment_that_tells_only_what_it_must() -> None:
    bare = {name: WHOLE[name] for name in ("imp_uid", "merchant_uid", "status", "amount")}
    for kind in (True, False):
        found = rows.payment(bare, sandbox=kind)
        assert found.sandbox is kind
        assert found.cancelled_amount == Won(0)
        assert (found.customer_uid, found.paid_at, found.fail_reason) == (None, None, None)
        assert found.buyer == Buyer(None, None, None)


@pytest.mark.parametrize("name", ["imp_uid", "merchant_uid", "status", "amount"])
def test_a_payment_without_what_it_must_tell_is_none(name: str) -> None:
    with pytest.raises(Unreadable, match=f"^{name} is missing$"):
        rows.payment({**WHOLE, name: None})


def test_a_billing_key() -> None:
    told = {"customer_uid": "c", "pg_provider": "mobilians", "sandbox": True, "inserted": SECONDS}
    assert rows.billing_key(told, "c") == BillingKey("c", "mobilians", True, AT)
    assert rows.billing_key({"customer_uid": "c"}, "c") == BillingKey("c", None, False, None)
    with pytest.raises(Unreadable, match=r"^an answer about another billing key$"):
        rows.billing_key(told, "d")


def test_a_scheduled_payment() -> None:
    told = {
        "merchant_uid": "theirs-1",
        "schedule_at": SECONDS,
        "amount": 9900,
        "schedule_status": "scheduled",
    }
    found = rows.scheduled_payment(told)
    assert found == ScheduledPayment("theirs-1", AT, Won(9900), "scheduled")
    for name in told:
        with pytest.raises(Unreadable, match=f"^{name} is missing$"):
            rows.scheduled_payment({**told, name: None})
