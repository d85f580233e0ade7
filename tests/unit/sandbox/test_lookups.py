"""Look-ups at the wire: what is found, hidden, paged and refused."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from billing.sandbox import SandboxNetworkFault
from billing.sandbox.texts import cancel_texts
from tests.unit.sandbox.kit import ADA, Shop, a_customer, seoul

MISSING = {"code": -1, "message": "존재하지 않는 결제정보입니다.", "response": None}


def orders(listed: dict[str, Any]) -> list[str]:
    return [row["merchant_uid"] for row in listed["list"]]


@pytest.fixture
def shop() -> Shop:
    """Ada's order m-1 failed once and was paid a minute later; m-2 failed."""
    shop = Shop().register(a_customer(script=["declined:0098"]))
    shop.payment("m-1")
    shop.at("2027-02-20 10:01").payment("m-1")
    shop.at("2027-02-20 10:02").payment("m-2")
    return shop.at("2027-02-20 10:03")


@pytest.mark.parametrize("ending", ["", "/", "/all", "/paid", "/failed", "/ready", "/cancelled"])
def test_find_all(shop: Shop, ending: str) -> None:
    answer = shop.ask(f"/payments/findAll/m-1{ending}")
    expected = {"/paid": ["paid"], "/failed": ["failed"], "/ready": [], "/cancelled": []}.get(
        ending, ["paid", "failed"]
    )
    if expected:
        assert [row["status"] for row in answer.json()["response"]["list"]] == expected
    else:
        assert (answer.status_code, answer.json()) == (404, MISSING)


def test_find_all_of_nothing(shop: Shop) -> None:
    answer = shop.ask("/payments/findAll/m-9")
    assert (answer.status_code, answer.json()) == (404, MISSING)


def test_pages(shop: Shop) -> None:
    first = shop.found("/payments/findAll/m-1", limit=1)
    assert (first["total"], first["previous"], first["next"]) == (2, 0, 2)
    second = shop.found("/payments/findAll/m-1", limit=1, page=2)
    assert (second["total"], second["previous"], second["next"]) == (2, 1, 0)
    assert first["list"] != second["list"]
    assert shop.ask("/payments/findAll/m-1", limit=1, page=3).status_code == 400


@pytest.mark.parametrize(
    "query", [{"page": 0}, {"limit": 0}, {"limit": 1001}, {"page": "x"}, {"sorting": "amount"}]
)
def test_bad_queries(shop: Shop, query: dict[str, object]) -> None:
    answer = shop.ask("/payments/findAll/m-1", **query)
    assert answer.status_code == 400
    assert answer.json()["code"] == -1


def test_bad_state(shop: Shop) -> None:
    assert shop.ask("/payments/findAll/m-1/unpaid").status_code == 400


def test_sorting(shop: Shop) -> None:
    oldest = shop.found("/payments/findAll/m-1", sorting="started")["list"][0]
    assert oldest["status"] == "failed"
    newest = shop.found("/payments/findAll/m-1", sorting="-updated")["list"][0]
    assert newest["status"] == "paid"


def test_find_shows_one_row_and_hides_the_others() -> None:
    shop = Shop().register(a_customer(script=["ok", "declined:0098"]))
    carrier = {"carrier": {"once_a_month": False}}
    shop.control("POST", "faults", carrier)
    shop.payment("m-1")
    shop.control("POST", "pay", {"customer_uid": ADA, "merchant_uid": "m-1"})
    newest = shop.found("/payments/find/m-1")
    assert newest["imp_uid"] == "imp_000000000003"
    assert shop.found("/payments/find/m-1/paid", sorting="started")["imp_uid"].endswith("2")
    assert shop.ask("/payments/find/m-1/failed").json() == MISSING


def test_one_payment_and_its_balance(shop: Shop) -> None:
    assert shop.found("/payments/imp_000000000003")["status"] == "paid"
    balance = shop.found("/payments/imp_000000000003/balance")
    assert balance["amount"] == 9_900
    assert balance["primary"] == {"tax_free": 0, "supply": 9_000, "vat": 900, "service": 0}
    assert shop.found("/payments/imp_000000000002/balance")["amount"] == 0
    for path in ("/payments/imp_9", "/payments/imp_9/balance"):
        assert (shop.ask(path).status_code, shop.ask(path).json()) == (404, MISSING)


def test_several_payments(shop: Shop) -> None:
    def ask(**ids: list[str]) -> tuple[int, list[str]]:
        answer = shop.ask("/payments", **{f"{name}[]": value for name, value in ids.items()})
        return answer.status_code, [row["imp_uid"][-1] for row in answer.json()["response"] or []]

    assert ask(imp_uid=["imp_000000000002", "imp_000000000003"]) == (200, ["2", "3"])
    assert ask(imp_uid=["imp_000000000002"], merchant_uid=["m-1"]) == (200, ["2", "3"])
    assert ask(imp_uid=["imp_000000000002", "imp_9"]) == (207, ["2"])
    assert ask(merchant_uid=["m-8", "m-9"]) == (404, [])
    assert shop.ask("/payments").status_code == 400
    assert shop.ask("/payments", **{"imp_uid[]": ["x"] * 101}).status_code == 400


def test_a_key_has_pages_of_20_whatever_is_asked_for() -> None:
    shop = Shop().register()
    for number in range(22):
        shop.payment(f"m-{number}")
    path = f"/subscribe/customers/{ADA}/payments"
    first, second = (shop.found(path, limit=100, page=page) for page in (1, 2))
    assert [len(one["list"]) for one in (first, second)] == [20, 3]
    assert (first["total"], first["next"], second["next"]) == (23, 2, 0)


def test_each_state_is_searched_by_its_own_moment() -> None:
    """Paid on the 20th, cancelled on the 21st: found on the 21st, also among all."""
    shop = Shop().register()
    imp_uid = shop.payment()["imp_uid"]
    shop.at("2027-02-21 10:00").call("POST", "/payments/cancel", json={"imp_uid": imp_uid})
    days = [int(seoul(f"2027-02-{day} 00:00").timestamp()) for day in (20, 21, 22)]
    for state in ("all", "cancelled"):
        found = [
            shop.found(f"/payments/status/{state}", **{"from": since, "to": until})["total"]
            for since, until in itertools.pairwise(days)
        ]
        assert found == [0, 1]


def test_by_state(shop: Shop) -> None:
    assert shop.found("/payments/status/all")["total"] == 4
    # The second try of m-2 was one too many for the month.
    assert orders(shop.found("/payments/status/failed")) == ["m-2", "m-1"]
    assert shop.found("/payments/status/cancelled")["total"] == 0
    moment = int(seoul("2027-02-20 10:01").timestamp())
    found = shop.found("/payments/status/paid", **{"from": moment, "to": moment})
    assert orders(found) == ["m-1"]
    assert shop.ask("/payments/status/all", page=2).status_code == 400


def test_span_of_at_most_90_days(shop: Shop) -> None:
    end = int(seoul("2027-02-20 10:03").timestamp())
    wide, wider = end - 90 * 86_400, end - 90 * 86_400 - 1
    assert shop.ask("/payments/status/all", **{"from": wide, "to": end}).status_code == 200
    assert shop.ask("/payments/status/all", **{"from": wider, "to": end}).status_code == 400
    assert shop.ask("/payments/status/all", **{"from": end, "to": wide}).status_code == 400


def test_billing_key(shop: Shop) -> None:
    key = shop.found(f"/subscribe/customers/{ADA}")
    assert key["customer_uid"] == ADA
    assert key["pg_provider"] == "mobilians"
    assert key["inserted"] == int(seoul("2027-01-20 11:00").timestamp())
    assert key["customer_tel"] == "010-0000-0000"
    assert not {"amount", "name"} & key.keys()
    assert shop.ask("/subscribe/customers/bob").status_code == 404


def test_several_billing_keys(shop: Shop) -> None:
    shop.register(a_customer(uid="bob"))
    path = "/subscribe/customers"
    both = shop.ask(path, **{"customer_uid[]": [ADA, "bob"]})
    assert both.status_code == 200
    assert [row["customer_uid"] for row in both.json()["response"]] == [ADA, "bob"]
    assert shop.ask(path, **{"customer_uid[]": [ADA, "eve"]}).status_code == 207
    assert shop.ask(path, **{"customer_uid[]": ["eve"]}).status_code == 404


def test_payments_of_a_key(shop: Shop) -> None:
    shop.register(a_customer(uid="bob"))
    listed = shop.found(f"/subscribe/customers/{ADA}/payments")
    assert orders(listed) == ["m-2", "m-1", "m-1", "initial-1"]
    assert listed["list"][-1]["customer_uid_usage"] == "issue"
    assert shop.ask("/subscribe/customers/eve/payments").status_code == 404


def test_deleted_key(shop: Shop) -> None:
    path = f"/subscribe/customers/{ADA}"
    assert shop.call("DELETE", path, params={"reason": "x"}).json()["code"] == 0
    assert shop.ask(path).status_code == 404
    assert shop.call("DELETE", path).status_code == 404
    assert shop.charge("m-3").json()["message"] == "등록되지 않은 구매자입니다."
    assert shop.found(f"{path}/payments")["total"] == 4


def test_test_payments_are_hidden_unless_asked_for() -> None:
    shop = Shop(faults={"test_mode": True}).register()
    assert shop.payment()["sandbox"] is True
    for path in ("/payments/findAll/m-1", "/payments/imp_000000000002", "/payments/find/m-1"):
        assert shop.ask(path).json() == MISSING
        assert shop.found(path, include_sandbox="true")
    key = f"/subscribe/customers/{ADA}/payments"
    assert shop.found(key)["total"] == 0
    assert shop.found(key, include_sandbox="true")["total"] == 2


def test_look_ups_lag_behind() -> None:
    shop = Shop(faults={"lookup_lag_seconds": 90}).register()
    imp_uid = shop.payment()["imp_uid"]
    hidden = shop.sandbox.ledger.payments[1].visible_at - shop.sandbox.clock.unix()
    assert 0 < hidden <= 90
    paths = ["/payments/findAll/m-1", f"/payments/{imp_uid}", "/payments/find/m-1"]
    assert [shop.ask(path).status_code for path in paths] == [404] * 3
    assert shop.found(f"/subscribe/customers/{ADA}/payments")["total"] == 1
    # The order is paid all the same.
    assert shop.charge().json()["message"] == "이미 결제가 이루어진 거래건입니다."
    shop.at("2027-02-20 10:01:30")
    assert [shop.ask(path).status_code for path in paths] == [200] * 3


def cancelled(shop: Shop, **form: object) -> dict[str, Any]:
    answer = shop.call("POST", "/payments/cancel", json=form)
    assert answer.status_code == 200
    return dict(answer.json())


def test_cancel(shop: Shop) -> None:
    answer = cancelled(shop, merchant_uid="m-1", checksum=9_900, reason="고객 요청")
    row = answer["response"]
    assert (row["status"], row["cancel_amount"]) == ("cancelled", 9_900)
    assert row["cancelled_at"] == int(seoul("2027-02-20 10:03").timestamp())
    assert row["cancel_history"][0]["reason"] == "고객 요청"
    assert shop.found("/payments/imp_000000000003/balance")["amount"] == 0
    assert cancelled(shop, merchant_uid="m-1")["code"] != 0


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"merchant_uid": "m-9"}, "취소할 결제건이 존재하지 않습니다."),
        ({}, "취소할 결제건이 존재하지 않습니다."),
        ({"imp_uid": "imp_9", "merchant_uid": "m-1"}, "취소할 결제건이 존재하지 않습니다."),
        ({"merchant_uid": "m-1", "checksum": 9_899}, "checksum"),
        ({"merchant_uid": "m-1", "amount": 100}, "부분취소"),
        ({"merchant_uid": "m-2"}, "기 취소 거래"),
    ],
)
def test_cancel_refused(shop: Shop, form: dict[str, object], message: str) -> None:
    answer = cancelled(shop, **form)
    assert answer["code"] == 1
    assert message in answer["message"]
    assert shop.found("/payments/imp_000000000003")["status"] == "paid"


@pytest.mark.parametrize(
    ("fault", "cancelled_after"),
    [
        ("timeout_before_cancel", False),
        ("timeout_after_cancel", True),
        ("reset_after_cancel", True),
        ("http_before_cancel:503", False),
        ("http_after_cancel:502", True),
        ("html_after_cancel", True),
        ("cut_json_after_cancel", True),
        ("cut_body_after_cancel", True),
        ("unauthorized", False),
        ("too_many:5", False),
    ],
)
def test_a_cancellation_can_lose_its_answer(fault: str, cancelled_after: bool) -> None:
    shop = Shop(faults={"chances": {"cancel": {fault: 1}}}).register()
    imp_uid = shop.payment()["imp_uid"]
    try:
        answer = shop.call("POST", "/payments/cancel", json={"imp_uid": imp_uid})
    except SandboxNetworkFault:
        assert fault.split("_")[0] in ("timeout", "reset", "cut")
    else:
        if answer.status_code == 200:
            with pytest.raises(json.JSONDecodeError):
                answer.json()
    status = shop.found(f"/payments/{imp_uid}")["status"]
    assert status == ("cancelled" if cancelled_after else "paid")
    shop.control("POST", "faults", {})
    assert cancelled(shop, imp_uid=imp_uid)["code"] == (1 if cancelled_after else 0)


@pytest.mark.parametrize("code", sorted(cancel_texts()))
def test_a_cancellation_refused_by_chance(code: str) -> None:
    shop = Shop(faults={"chances": {"cancel": {f"refused:{code}": 1}}}).register()
    imp_uid = shop.payment()["imp_uid"]
    answer = cancelled(shop, imp_uid=imp_uid)
    assert answer["code"] == 1
    assert answer["message"] == f"[{code}] {cancel_texts()[code]}"
    assert shop.found(f"/payments/{imp_uid}")["status"] == "paid"
    shop.control("POST", "faults", {})
    assert cancelled(shop, imp_uid=imp_uid)["code"] == 0


def test_a_test_payment_is_taken_back_by_itself() -> None:
    shop = Shop("2027-02-20 10:00", faults={"test_mode": True}).register()
    imp_uid = shop.payment()["imp_uid"]
    assert "기 취소" in cancelled(shop.at("2027-02-21 00:00"), imp_uid=imp_uid)["message"]
    assert cancelled(shop.at("2027-02-20 23:59"), imp_uid=imp_uid)["code"] == 0


def test_cancel_only_in_the_same_month(shop: Shop) -> None:
    assert "[0042]" in cancelled(shop.at("2027-03-01 00:00"), merchant_uid="m-1")["message"]
    assert cancelled(shop.at("2027-02-28 23:59"), merchant_uid="m-1")["code"] == 0


def planned(shop: Shop, **moments: str) -> None:
    entries = [
        {
            "merchant_uid": uid,
            "schedule_at": int(seoul(when).timestamp()),
            "amount": 9_900,
            "name": "월간 구독",
            "buyer_tel": "010-0000-0000",
        }
        for uid, when in moments.items()
    ]
    form = {"customer_uid": ADA, "schedules": entries}
    made = shop.call("POST", "/subscribe/payments/schedule", json=form).json()
    assert [one["schedule_status"] for one in made["response"]] == ["scheduled"] * len(entries)


def test_the_gateways_own_schedule() -> None:
    shop = Shop().register()
    planned(shop, one="2027-02-21 10:00", two="2027-02-21 11:00", three="2027-02-22 10:00")
    since, until = (int(seoul(f"2027-02-{day} 10:00").timestamp()) for day in (21, 23))
    path = f"/subscribe/customers/{ADA}/schedules"
    span = {"from": since, "to": until}
    assert orders(shop.found(path, **span)) == ["three", "two", "one"]
    assert orders(shop.found(f"/subscribe/payments/schedule/customers/{ADA}", **span)) == [
        "three",
        "two",
        "one",
    ]
    taken = {"customer_uid": ADA, "merchant_uid": ["two"]}
    shop.call("POST", "/subscribe/payments/unschedule", json=taken)
    again = shop.call("POST", "/subscribe/payments/unschedule", json=taken).json()
    assert again["message"] == "취소할 예약결제 기록이 존재하지 않습니다."
    shop.at("2027-02-22 09:59")
    for state, uid in (("scheduled", "three"), ("executed", "one"), ("revoked", "two")):
        assert orders(shop.found(path, **span, **{"schedule-status": state})) == [uid]
    paid = shop.found("/payments/find/one")
    assert (paid["status"], paid["paid_at"]) == ("paid", since)
    assert paid["customer_uid_usage"] == "payment.scheduled"
    # The month is paid: the third one fails, and says why.
    row = shop.at("2027-02-22 10:00").found("/subscribe/payments/schedule/three")
    assert (row["schedule_status"], row["payment_status"]) == ("executed", "failed")
    assert row["fail_reason"].startswith("[0039]")
    assert shop.ask("/subscribe/payments/schedule/nine").status_code == 404


def test_spans_of_schedules() -> None:
    shop = Shop().register()
    planned(shop, one="2027-02-21 10:00")
    path = f"/subscribe/customers/{ADA}/schedules"
    at = int(seoul("2027-02-21 10:00").timestamp())
    assert orders(shop.found(path, **{"from": at, "to": at + 1})) == ["one"]
    assert orders(shop.found(path, **{"from": at - 1, "to": at})) == []
    for wrong in (
        {},
        {"from": at},
        {"to": at},
        {"from": at, "to": at - 1},
        {"from": at, "to": at + 94 * 86_400},
        {"from": at, "to": at + 1, "schedule-status": "paid"},
    ):
        assert shop.ask(path, **wrong).status_code == 400


def test_schedule_for_nobody() -> None:
    answer = Shop().call("POST", "/subscribe/payments/schedule", json={"customer_uid": "eve"})
    assert answer.json()["message"] == "등록된 고객정보가 없습니다."
