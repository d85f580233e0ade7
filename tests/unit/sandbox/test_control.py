"""The control endpoints: a world made, watched and moved from outside."""

from __future__ import annotations

import pytest

from tests.unit.sandbox.kit import ADA, TERMS, Shop, a_customer

WISH = {"customer_uid": ADA, "paid_at": "2026-11-30T11:00:00+09:00", **TERMS}


def refused(shop: Shop, path: str, document: object) -> str:
    answer = shop.call("POST", f"/sandbox/{path}", json=document, headers={})
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"])


def test_health() -> None:
    assert Shop().control("GET", "health") == {"ok": True, "now": "2027-02-20T01:00:00+00:00"}


@pytest.mark.parametrize("document", [WISH, [WISH], {"customers": [WISH]}])
def test_customers_one_or_many(document: object) -> None:
    made = Shop().control("POST", "customers", document)
    assert made == {
        "customers": [
            {"customer_uid": ADA, "imp_uid": "imp_000000000001", "merchant_uid": "initial-1"}
        ]
    }


def test_months_between_are_filled_on_the_anchor() -> None:
    shop = Shop("2027-03-29 12:00")
    wish = {**WISH, "last_paid_at": "2027-03-27T10:00:00+09:00", "merchant_uid": "first"}
    shop.control("POST", "customers", wish)
    rows = shop.control("GET", f"ledger?customer_uid={ADA}")["payments"]
    assert [(row["merchant_uid"], row["origin"]) for row in rows] == [
        ("first", "window"),
        ("month-2", "hand"),
        ("month-3", "hand"),
        ("month-4", "hand"),
        ("month-5", "hand"),
    ]
    found = shop.found(f"/subscribe/customers/{ADA}/payments", sorting="started")["list"]
    assert [row["paid_at"] for row in found] == [
        1_796_004_000,  # 30 November 11:00 in Korea
        1_798_596_000,  # 30 December
        1_801_274_400,  # 30 January
        1_803_780_000,  # 28 February
        1_806_109_200,  # 27 March 10:00
    ]
    assert shop.at("2027-04-27 10:00").said() == "paid"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"paid_at": "2027-02-20T10:00:01+09:00"}, "paid in the future"),
        ({"last_paid_at": "2027-02-20T10:00:01+09:00"}, "paid in the future"),
        ({"last_paid_at": "2026-11-29T10:00:00+09:00"}, "last_paid_at is before paid_at"),
        ({"paid_at": "2026-11-30T11:00:00"}, "0.paid_at"),
        ({"amount": -1}, "0.amount"),
        ({"condition": "0000"}, "0.condition"),
        ({"script": ["oh"]}, "0.script.0"),
        ({"nmae": "x"}, "0.nmae: Extra inputs"),
    ],
)
def test_customers_that_are_wrong(change: dict[str, object], told: str) -> None:
    shop = Shop()
    good = {**WISH, "customer_uid": "bob"}
    assert told.removeprefix("0.") in refused(shop, "customers", [good, {**WISH, **change}])
    assert not shop.sandbox.ledger.keys


def test_a_line_that_is_not_there() -> None:
    assert "no such billing key" in refused(Shop(), "customers/eve", {"monthly_limit": 1})


def test_payment_by_hand() -> None:
    shop = Shop().register()
    paid = shop.control("POST", "pay", {"customer_uid": ADA})
    assert (paid["merchant_uid"], paid["amount"], paid["origin"]) == ("hand-2", 9_900, "hand")
    assert shop.said().startswith("[0039]")
    forced = {"customer_uid": ADA, "amount": 1, "at": "2027-02-01T10:00:00+09:00"}
    assert shop.control("POST", "pay", forced)["status"] == "paid"
    asked = shop.control("POST", "pay", {**forced, "carrier": True})
    assert (asked["status"], asked["fail_code"]) == ("failed", "0096")
    assert "no such billing key" in refused(shop, "pay", {"customer_uid": "eve"})
    assert "future" in refused(shop, "pay", {**forced, "at": "2028-01-01T00:00:00Z"})


def test_ledger_in_pages() -> None:
    shop = Shop().register(*(a_customer(uid=f"c-{number}") for number in range(5)))
    first = shop.control("GET", "ledger?limit=3")
    assert (first["total"], first["next"], len(first["payments"])) == (5, 3, 3)
    rest = shop.control("GET", f"ledger?limit=3&after={first['next']}")
    assert (rest["next"], [row["number"] for row in rest["payments"]]) == (None, [4, 5])


def test_every_request_is_seen() -> None:
    shop = Shop().register(a_customer(script=["declined:0016"]))
    shop.charge("m-1", amount=1)
    shop.ask("/payments/findAll/m-1")
    shop.ask("/payments/findAll/m-2")
    shop.call("POST", "/subscribe/payments/again", json={"merchant_uid": "m-3"}, headers={})
    rows = shop.control("GET", "requests")["requests"]
    assert [(one["kind"], one["merchant_uid"], one["outcome"]) for one in rows] == [
        ("again", "m-1", "declined:0016"),
        ("findAll", "m-1", "200"),
        ("findAll", "m-2", "404:refused"),
        ("again", "m-3", "turned_away"),
    ]
    assert rows[0] == {
        "number": 1,
        "at": "2027-02-20T01:00:00+00:00",
        "kind": "again",
        "customer_uid": ADA,
        "merchant_uid": "m-1",
        "amount": 1,
        "nth": 1,
        "differs": "amount",
        "overlaps": "",
        "fault": "declined:0016",
        "outcome": "declined:0016",
        "imp_uid": "imp_000000000002",
    }
    found = shop.control("GET", f"requests?kind=again&customer_uid={ADA}")
    assert found["total"] == 1


def test_clock() -> None:
    shop = Shop()
    moved = shop.control("POST", "clock", {"advance_seconds": 90})
    assert moved == {
        "now": "2027-02-20T01:01:30+00:00",
        "offset_seconds": 90.0,
        "travelling_until": None,
    }
    shop.control("POST", "clock", {"set": "2027-03-01T00:00:00+09:00"})
    assert shop.control("GET", "clock")["now"] == "2027-02-28T15:00:00+00:00"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"advance_seconds": 1, "set": "2027-03-01T00:00:00Z"},
        {"set": "2027-03-01T00:00:00"},
        {"advance_seconds": "soon"},
        {"advance_seconds": 1e300},
        {"forward": 1},
    ],
)
def test_clock_moves_that_are_wrong(document: object) -> None:
    shop = Shop()
    assert refused(shop, "clock", document)
    assert shop.control("GET", "clock")["offset_seconds"] == 0.0


def test_faults_at_run_time() -> None:
    shop = Shop().register()
    document = {"chances": {"charge": {"unauthorized": 1}}, "failed_merchant_uid": "strict"}
    told = shop.control("POST", "faults", document)
    assert told == shop.control("GET", "faults")
    assert told["failed_merchant_uid"] == "strict"
    assert shop.charge().status_code == 401
    assert "chances.charge.oh" in refused(shop, "faults", {"chances": {"charge": {"oh": 1}}})
    assert shop.charge().status_code == 401
    assert shop.control("POST", "faults", told) == told
    shop.control("POST", "faults", {})
    assert shop.said() == "paid"


def test_reset() -> None:
    shop = Shop().register()
    shop.payment()
    shop.at("2027-02-21 10:00").control("POST", "reset")
    assert shop.control("GET", "ledger")["total"] == 0
    assert shop.control("GET", "requests")["total"] == 0
    assert shop.control("GET", "clock")["now"] == "2027-02-21T01:00:00+00:00"
    assert shop.register().said() == "paid"


def test_page_for_people() -> None:
    shop = Shop().register(a_customer(merchant_uid="<script>alert(1)</script>"))
    shop.payment()
    answer = shop.call("GET", "/", headers={})
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "2027-02-20 10:00:00" in answer.text
    assert "imp_000000000002" in answer.text
    assert "<script" not in answer.text
    assert ADA not in answer.text


@pytest.mark.parametrize("query", ["limit=x", "after=-1", "declines_per_day=x"])
def test_bad_queries(query: str) -> None:
    path = "verdict" if "declines" in query else "ledger"
    answer = Shop().call("GET", f"/sandbox/{path}?{query}", headers={})
    assert answer.status_code == 400
