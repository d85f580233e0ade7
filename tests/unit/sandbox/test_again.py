"""`again` at the wire: what is charged, what is refused, and what the answer looks like."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.unit.sandbox.kit import ADA, TERMS, Shop, a_customer, seoul

AGAIN = "/subscribe/payments/again"
NOW = int(seoul("2027-02-20 10:00").timestamp())


def test_a_paid_answer_whole() -> None:
    payment = Shop().register().payment(custom_data="{}")
    expected = {
        "imp_uid": "imp_000000000002",
        "merchant_uid": "m-1",
        "pay_method": "phone",
        "channel": "api",
        "pg_provider": "mobilians",
        "sandbox": False,
        "name": "월간 구독",
        "amount": 9_900,
        "cancel_amount": 0,
        "currency": "KRW",
        "buyer_tel": "010-0000-0000",
        "buyer_name": None,
        "status": "paid",
        "started_at": NOW,
        "paid_at": NOW,
        "failed_at": 0,
        "cancelled_at": 0,
        "fail_reason": None,
        "cancel_reason": None,
        "cancel_history": [],
        "customer_uid": ADA,
        "customer_uid_usage": "payment",
        "custom_data": "{}",
    }
    assert {name: payment[name] for name in expected} == expected
    assert {"pg_tid", "pg_id", "receipt_url"} <= payment.keys()


def test_a_failed_answer() -> None:
    payment = Shop().register(a_customer(condition="0031")).payment()
    assert (payment["status"], payment["paid_at"], payment["failed_at"]) == ("failed", 0, NOW)
    assert payment["receipt_url"] is None


def test_form_body() -> None:
    body = {"customer_uid": ADA, "merchant_uid": "m-1", **TERMS}
    answer = Shop().register().call("POST", AGAIN, data=body)
    assert answer.json()["response"]["status"] == "paid"


@pytest.mark.parametrize("order", ["m-1"])
def test_unknown_buyer(order: str) -> None:
    shop = Shop()
    answer = shop.charge(order)
    assert answer.status_code == 200
    assert answer.json() == {
        "code": 1,
        "message": "등록되지 않은 구매자입니다.",
        "response": None,
    }
    assert shop.sandbox.ledger.payments == []


def test_paid_order_is_refused_even_after_cancelling() -> None:
    shop = Shop().register()
    imp_uid = shop.payment()["imp_uid"]
    for _ in range(2):
        answer = shop.charge().json()
        assert (answer["code"], answer["response"]) == (1, None)
        assert answer["message"] == "이미 결제가 이루어진 거래건입니다."
        shop.call("POST", "/payments/cancel", json={"imp_uid": imp_uid})
    assert len(shop.sandbox.ledger.payments) == 2


def test_failed_order_may_be_used_again_when_loose() -> None:
    shop = Shop().register(a_customer(script=["declined:0098"]))
    assert [shop.payment()["status"], shop.payment()["status"]] == ["failed", "paid"]
    assert shop.found("/payments/findAll/m-1")["total"] == 2


def test_failed_order_may_not_when_strict() -> None:
    shop = Shop(faults={"failed_merchant_uid": "strict"})
    shop.register(a_customer(script=["declined:0098"]))
    assert shop.payment()["status"] == "failed"
    answer = shop.charge().json()
    assert (answer["code"], answer["response"]) == (1, None)
    assert shop.payment("m-2")["status"] == "paid"


@pytest.mark.parametrize(
    "change",
    [
        {"customer_uid": ""},
        {"merchant_uid": None},
        {"name": ""},
        {"amount": None},
        {"amount": "많이"},
        {"amount": True},
        {"amount": 9_900.5},
        {"amount": -1},
        {"amount": 10**400},
        {"amount": float("1e300")},
        {"merchant_uid": "m" * 41},
        {"customer_uid": "c" * 81},
        {"name": "n" * 41},
        {"buyer_name": "b" * 17},
        {"buyer_email": "b" * 65},
        {"buyer_tel": "0" * 17},
        {"buyer_addr": "b" * 129},
        {"buyer_postcode": "0" * 9},
        {"channel_key": "k" * 56},
    ],
)
def test_malformed_fields(change: dict[str, object]) -> None:
    shop = Shop().register()
    body = {"customer_uid": ADA, "merchant_uid": "m-1", **TERMS, **change}
    answer = shop.call("POST", AGAIN, json=body)
    assert answer.status_code == 200
    assert answer.json()["code"] != 0
    assert len(shop.sandbox.ledger.payments) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"a":' * 2000, b"null", b"x" * (2 << 20)]
)
def test_bodies_that_are_none(content: bytes) -> None:
    shop = Shop().register()
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {shop.token()}",
    }
    answer = shop.call("POST", AGAIN, content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["code"] == -1


def test_half_a_surrogate_pair_is_only_a_mismatch() -> None:
    shop = Shop().register()
    body = json.dumps({"customer_uid": ADA, "merchant_uid": "m", **TERMS, "name": "\ud800"})
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {shop.token()}",
    }
    answer = shop.call("POST", AGAIN, content=body.encode(), headers=headers)
    assert answer.json()["response"]["fail_reason"].startswith("[0060]")


def together(shop: Shop, *orders: str) -> list[Any]:
    """Charges that reach the gateway side by side."""

    async def all_of_them() -> list[httpx.Response]:
        bodies = [{"customer_uid": ADA, "merchant_uid": order, **TERMS} for order in orders]
        return await asyncio.gather(*(shop.send("POST", AGAIN, json=body) for body in bodies))

    return [answer.json()["response"] for answer in shop.run(all_of_them)]


def test_two_at_once_are_charged_once() -> None:
    shop = Shop(faults={"latency": {"charge": 10}}).register()
    assert [one and one["status"] for one in together(shop, "m-1", "m-1")] == ["paid", None]


def test_a_racy_gateway_charges_two_at_once_twice() -> None:
    carrier = {"once_a_month": False}
    faults = {"racy": True, "carrier": carrier, "latency": {"charge": 10}}
    shop = Shop(faults=faults).register()
    assert [one["status"] for one in together(shop, "m-1", "m-1")] == ["paid", "paid"]
    rules = {one["rule"] for one in shop.control("GET", "verdict")["problems"]}
    assert rules == {"double", "at_once"}


def test_latency_is_waited_through_the_injected_sleep() -> None:
    shop = Shop(faults={"latency": {"charge": [10, 20]}}).register()
    shop.payment()
    (nap,) = shop.naps
    assert 0.01 <= nap <= 0.02
