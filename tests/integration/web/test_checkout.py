"""The checkout page: an order can only end as the gateway says, and only as itself."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from starlette.testclient import TestClient

from billing.domain.calendar import SEOUL
from billing.domain.errors import AnswerUnusable, InvalidSetting
from billing.portone.client import PortOneClient
from billing.sandbox import mood
from billing.sandbox.window.order import read_order
from billing.sandbox.window.payment import Later, approve, refuse
from billing.services.pick_up_order import pick_up_order
from billing.settings import Settings
from billing.store import views
from tests.integration.web.conftest import Edge

SELLING: Mapping[str, Any] = {
    "portone_imp_code": "imp00000000",
    "portone_sdk_url": "http://127.0.0.1:8888/sdk/iamport.js",
    "checkout_amount": 9_900,
    "checkout_order_name": "월간 구독",
}
BUYER = {
    "buyer_name": "김매월",
    "buyer_email": "kim@example.com",
    "buyer_tel": "010-1234-5678",
}


@pytest.fixture
def shop(make_edge: Callable[..., Edge]) -> Edge:
    return make_edge(**SELLING)


def ordered(client: TestClient, **changes: str) -> dict[str, Any]:
    answer = client.post("/checkout/order", json={**BUYER, **changes})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def paid(edge: Edge, begun: dict[str, Any], **changes: Any) -> str:
    """Pay in the window; the payment's id."""
    order = read_order(edge.sandbox, {**begun["request"], **changes}, phone=False)
    return approve(edge.sandbox, order, Later.PAID).imp_uid


def completed(client: TestClient, order: str, imp_uid: str | None) -> httpx2.Response:
    return client.post("/checkout/complete", json={"order": order, "imp_uid": imp_uid})


def subscriptions(edge: Edge) -> list[dict[str, Any]]:
    return edge.book.run(lambda tx: views.subscriptions(tx.session, SEOUL))


def test_from_the_form_to_the_book(shop: Edge) -> None:
    with shop.browse() as client:
        begun = ordered(client)
        asked = begun["request"]
        assert (asked["amount"], asked["pay_method"], asked["pg"]) == (9_900, "phone", "mobilians")
        assert shop.sandbox.ledger.prepared == {asked["merchant_uid"]: 9_900}
        ended = completed(client, begun["order"], paid(shop, begun)).json()
        thanks = client.get(ended["to"])

    assert ended["state"] == "subscribed"
    assert "20 December 2026" in thanks.text
    (one,) = subscriptions(shop)
    assert one["customer_uid"] == asked["customer_uid"]
    assert (one["amount"], one["order_name"]) == (9_900, "월간 구독")


def test_in_korean(shop: Edge) -> None:
    with shop.browse(**{"accept-language": "ko-KR,ko;q=0.9"}) as client:
        assert "월 9,900원 구독하기" in client.get("/checkout").text
        begun = ordered(client)
        ended = completed(client, begun["order"], paid(shop, begun)).json()
        assert "2026년 12월 20일" in client.get(ended["to"]).text


def test_a_phone_comes_back_and_a_reload_changes_nothing(shop: Edge) -> None:
    with shop.browse() as client:
        begun = ordered(client)
        back = {"order": begun["order"], "imp_uid": paid(shop, begun), "imp_success": "true"}
        for _ in range(2):
            answer = client.get("/checkout/return", params=back)
            assert answer.status_code == 303
            assert client.get(answer.headers["location"]).status_code == 200
    assert len(subscriptions(shop)) == 1


def test_the_browser_never_heard_of_the_payment(shop: Edge) -> None:
    with shop.browse() as client:
        begun = ordered(client)
        paid(shop, begun)
        assert completed(client, begun["order"], None).json()["state"] == "subscribed"
        # Straight to the thank-you, as by the browser's history.
        other = ordered(client)
        paid(shop, other)
        answer = client.get("/checkout/done", params={"order": other["order"]})
        assert answer.status_code == 303
        assert client.get(answer.headers["location"]).status_code == 303
    assert len(subscriptions(shop)) == 2


def picked_up(edge: Edge, imp_uid: str) -> bool:
    """What the tick does with an announced payment that belongs to nobody."""
    settings = Settings.load(**SELLING)

    async def look() -> bool:
        async with edge.app.state.edge.connect() as gateway:
            payment = await gateway.payment(imp_uid)
            assert payment is not None
            policy = edge.app.state.edge.policy
            key = edge.app.state.edge.house.installation_key
            return await pick_up_order(edge.book, policy, key, gateway, settings.offer, payment)

    return asyncio.run(look())


def test_the_webhook_came_first(shop: Edge) -> None:
    with shop.browse() as client:
        begun = ordered(client)
        imp_uid = paid(shop, begun)
        assert picked_up(shop, imp_uid)
        assert len(subscriptions(shop)) == 1, "the buyer need not come back"
        assert completed(client, begun["order"], imp_uid).json()["state"] == "subscribed"
        assert picked_up(shop, imp_uid)
    assert len(subscriptions(shop)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 1_000},
        {"customer_uid": "somebody-else"},
        {"name": "another product"},
        {"merchant_uid": "order-of-another-shop"},
    ],
)
def test_a_webhook_of_something_else_enrols_nothing(shop: Edge, changes: dict[str, Any]) -> None:
    with shop.browse() as client:
        begun = ordered(client)
    shop.sandbox.ledger.prepared.clear()
    assert not picked_up(shop, paid(shop, begun, **changes))
    assert subscriptions(shop) == []


def test_nothing_paid_and_the_gateways_reason(shop: Edge) -> None:
    with shop.browse() as client:
        begun = ordered(client)
        assert completed(client, begun["order"], None).json()["state"] == "nothing_shown"
        order = read_order(shop.sandbox, begun["request"], phone=False)
        failed = refuse(shop.sandbox, order, "0031")
        ended = completed(client, begun["order"], failed.imp_uid).json()
        assert (ended["state"], ended["text"][:6]) == ("not_paid", "[0031]")
        page = client.get(ended["to"])
    assert page.status_code == 200
    assert "[0031]" in page.text
    assert "Try again" in page.text
    assert subscriptions(shop) == []


def test_the_payment_of_another_order_enrols_nothing(shop: Edge) -> None:
    with shop.browse() as client:
        mine, other = ordered(client), ordered(client)
        theirs = paid(shop, other)
        ended = completed(client, mine["order"], theirs)
        page = client.get("/checkout/return", params={"order": mine["order"], "imp_uid": theirs})
    assert (ended.status_code, ended.json()["state"]) == (409, "refused")
    assert page.status_code == 409
    assert subscriptions(shop) == []


@pytest.mark.parametrize("changes", [{"amount": 1_000}, {"customer_uid": "somebody-else"}])
def test_a_payment_that_is_not_as_ordered_enrols_nothing(
    shop: Edge, changes: dict[str, Any]
) -> None:
    with shop.browse() as client:
        begun = ordered(client)
        # A browser can ask the window for anything; without the pin it would be taken.
        shop.sandbox.ledger.prepared.clear()
        imp_uid = paid(shop, begun, **changes)
        assert completed(client, begun["order"], imp_uid).json()["state"] == "refused"
    assert subscriptions(shop) == []


def test_an_order_of_another_making_is_none(shop: Edge) -> None:
    document = {"name": "0" * 24, "amount": 1_000, "order_name": "x"}
    signed = URLSafeTimedSerializer("guess", salt="maewol checkout order").dumps(document)
    with shop.browse() as client:
        mine = ordered(client)["order"]
        for text in (str(signed), mine[:-2] + "xx", "", "x" * 999, json.dumps(document)):
            assert completed(client, text, None).status_code == 400
            for route in ("return", "done"):
                answer = client.get(f"/checkout/{route}", params={"order": text})
                assert answer.status_code == 400
                assert "This order is not known" in answer.text


def test_an_order_is_good_for_a_day(shop: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    with shop.browse() as client:
        yesterday = int(time.time()) - 24 * 3600 - 60
        with monkeypatch.context() as patched:
            patched.setattr(TimestampSigner, "get_timestamp", lambda _: yesterday)
            old = ordered(client)
        assert completed(client, old["order"], paid(shop, old)).status_code == 400


@pytest.mark.parametrize("imp_uid", ["../users", "imp 1", "x" * 65, "\u0000"])
def test_what_is_no_payment_id_asks_the_gateway_nothing_else(shop: Edge, imp_uid: str) -> None:
    with shop.browse() as client:
        begun = ordered(client)
        assert completed(client, begun["order"], imp_uid).status_code in (409, 422)
    assert {one.kind for one in shop.sandbox.ledger.requests} <= {"token", "prepare", "findAll"}


def test_a_payment_that_is_not_visible_yet_is_waited_for(shop: Edge) -> None:
    shop.sandbox.mood = mood({"lookup_lag_seconds": 60})
    with shop.browse() as client:
        begun = ordered(client)
        imp_uid = paid(shop, begun)
        ended = completed(client, begun["order"], imp_uid)
        assert (ended.status_code, ended.json()["state"]) == (202, "not_shown")
        page = client.get(ended.json()["to"])
        assert "do not pay again" in page.text
        shop.clock.move(minutes=2)
        assert completed(client, begun["order"], imp_uid).json()["state"] == "subscribed"


def test_a_payment_that_nobody_names_and_nobody_sees_yet_is_not_called_unpaid(shop: Edge) -> None:
    """The line broke as it was paid: told that nothing was, its customer would pay once more."""
    shop.sandbox.mood = mood({"lookup_lag_seconds": 20})
    with shop.browse() as client:
        begun = ordered(client)
        paid(shop, begun)
        ended = completed(client, begun["order"], None)
        page = client.get("/checkout/return", params={"order": begun["order"]})
        korean = client.get(ended.json()["to"], headers={"accept-language": "ko"})
        shop.clock.move(seconds=30)
        found = completed(client, begun["order"], None).json()["state"]
    assert (ended.status_code, ended.json()["state"]) == (200, "nothing_shown")
    for text in (ended.json()["text"], page.text):
        assert "do not pay again" in text
        assert "Nothing was charged" not in text
    assert "No payment was made" not in page.text
    assert page.text.index("Look again") < page.text.index("begin anew")
    assert "다시 결제하지 마시고" in korean.text
    assert found == "subscribed"
    assert len(subscriptions(shop)) == 1


def test_a_look_up_that_is_behind_another_refuses_nobody(
    shop: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the order's list, the payment's own row and its key one is there, another not yet."""

    async def not_there(*_: object) -> None:
        return None

    async def none_yet(*_: object) -> list[object]:
        return []

    with shop.browse() as client:
        begun = ordered(client)
        imp_uid = paid(shop, begun)
        with monkeypatch.context() as behind:
            behind.setattr(PortOneClient, "payments_of_order", none_yet)
            assert completed(client, begun["order"], imp_uid).json()["state"] == "not_shown"
        for look_up, state in (("payment", "not_shown"), ("billing_key", "away")):
            with monkeypatch.context() as behind:
                behind.setattr(PortOneClient, look_up, not_there)
                ended = completed(client, begun["order"], imp_uid)
                assert ended.json()["state"] == state
                if look_up == "billing_key":
                    # Its webhook is looked at again, and not called a stranger's for good.
                    with pytest.raises(AnswerUnusable):
                        picked_up(shop, imp_uid)
        assert completed(client, begun["order"], imp_uid).json()["state"] == "subscribed"


def test_a_gateway_that_is_away_is_said_and_nothing_is_lost(shop: Edge) -> None:
    with shop.browse() as client:
        begun = ordered(client)
        imp_uid = paid(shop, begun)
        shop.sandbox.mood = mood({"chances": {"lookup": {"http:503": 1}}})
        ended = completed(client, begun["order"], imp_uid)
        assert (ended.status_code, ended.json()["state"]) == (503, "away")
        assert client.get(ended.json()["to"]).status_code == 503
        shop.sandbox.mood = mood({})
        assert completed(client, begun["order"], imp_uid).json()["state"] == "subscribed"


def test_no_window_where_the_amount_cannot_be_pinned(shop: Edge) -> None:
    spell = {"from": "2026-11-20T00:00:00Z", "until": "2026-11-21T00:00:00Z", "does": "http:503"}
    shop.sandbox.mood = mood({"spells": [spell]})
    with shop.browse() as client:
        answer = client.post("/checkout/order", json=BUYER)
    assert answer.status_code == 502


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"buyer_name": ""}, "buyer_name"),
        ({"buyer_name": "x" * 17}, "buyer_name"),
        ({"buyer_name": "a\u0000b"}, "buyer_name"),
        ({"buyer_email": "kim"}, "buyer_email"),
        ({"buyer_tel": "call me"}, "buyer_tel"),
    ],
)
def test_a_form_that_is_wrong(shop: Edge, changes: dict[str, str], named: str) -> None:
    with shop.browse() as client:
        answer = client.post("/checkout/order", json={**BUYER, **changes})
    assert answer.status_code == 422
    assert list(answer.json()["problems"]) == [named]
    assert shop.sandbox.ledger.prepared == {}


def test_the_page_may_load_the_sdk_and_nothing_else(make_edge: Callable[..., Edge]) -> None:
    with make_edge(**SELLING).browse() as client:
        policy = client.get("/checkout").headers["content-security-policy"]
        other = client.get("/checkout/done").headers["content-security-policy"]
    assert "script-src 'self' http://127.0.0.1:8888;" in policy
    assert "frame-src http://127.0.0.1:8888;" in policy
    assert "unsafe" not in policy
    assert "iamport" not in policy
    assert "8888" not in other
    real = {**SELLING, "portone_sdk_url": "https://cdn.iamport.kr/v1/iamport.js"}
    with make_edge(**real).browse() as client:
        policy = client.get("/checkout").headers["content-security-policy"]
    assert "script-src 'self' https://cdn.iamport.kr https://*.iamport.kr;" in policy


def test_it_is_off_without_the_stores_code(edge: Edge) -> None:
    with edge.browse() as client:
        answer = client.get("/checkout")
        assert client.post("/checkout/order", json=BUYER).status_code == 404
    assert answer.status_code == 404
    assert "MAEWOL_PORTONE_IMP_CODE" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["checkout_amount", "checkout_order_name"])
def test_it_needs_something_to_sell(name: str) -> None:
    with pytest.raises(InvalidSetting, match=name.upper()):
        Settings.load(**{**SELLING, name: None})


@pytest.mark.parametrize(
    "wrong",
    [
        {"checkout_amount": 300},
        {"checkout_order_name": "x" * 41},
        {"checkout_pg": "danal"},
        {"portone_sdk_url": "http://cdn.example/sdk.js"},
        {"portone_imp_code": "imp; script"},
    ],
)
def test_settings_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting):
        Settings.load(**{**SELLING, **wrong})


def test_nobody_orders_without_end(shop: Edge) -> None:
    with shop.browse() as client:
        codes = [client.post("/checkout/order", json=BUYER).status_code for _ in range(14)]
        assert codes == [200] * 12 + [429] * 2
        assert client.get("/checkout").status_code == 200
    with shop.browse(peer="192.0.2.7", host="shop.example") as client:
        assert client.post("/checkout/order", json=BUYER).status_code == 200


def test_each_customer_behind_our_own_proxy_is_counted(make_edge: Callable[..., Edge]) -> None:
    shop = make_edge(**SELLING, trusted_proxies="10.0.0.0/24, 10.0.1.1")

    def orders(client: Any, count: int, customer: str) -> list[int]:
        said = {"X-Forwarded-For": f"203.0.113.99, {customer}, 10.0.0.9"}
        return [
            client.post("/checkout/order", json=BUYER, headers=said).status_code
            for _ in range(count)
        ]

    with shop.browse(peer="10.0.1.1", host="shop.example") as client:
        # Only the last that is no proxy of ours counts: the rest is what the customer may invent.
        assert orders(client, 13, "192.0.2.7") == [200] * 12 + [429]
        assert orders(client, 1, "192.0.2.8") == [200]
    with shop.browse(peer="198.51.100.1", host="shop.example") as client:
        codes = orders(client, 7, "192.0.2.9") + orders(client, 7, "192.0.2.10")
        assert codes == [200] * 12 + [429] * 2, "a stranger's word counts for nothing"


def test_a_proxy_of_ours_makes_nobody_local(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge(trusted_proxies="127.0.0.1")
    said = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http"}
    with edge.browse() as client:
        assert client.get("/v1/cycles").status_code == 200
        assert client.get("/v1/cycles", headers=said).status_code == 403


@pytest.mark.parametrize("value", ["proxy.internal", "10.0.0.1/24", "*", "0.0.0.0/0", "::/0"])
def test_proxies_are_named_by_address(value: str) -> None:
    with pytest.raises(InvalidSetting, match="TRUSTED_PROXIES"):
        Settings.load(trusted_proxies=value)


def test_nobody_asks_without_end(shop: Edge) -> None:
    with shop.browse() as client:
        codes = [completed(client, "x", None).status_code for _ in range(42)]
        refused = client.get("/checkout/return", params={"order": "x"})
    assert codes == [400] * 40 + [429] * 2
    assert refused.status_code == 429
    assert "do not pay again" in refused.text


def test_nothing_personal_in_an_address_or_a_log(
    shop: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), shop.browse() as client:
        begun = ordered(client)
        ended = completed(client, begun["order"], paid(shop, begun)).json()
        query = parse_qs(urlsplit(ended["to"]).query)
    read = URLSafeTimedSerializer("secret", salt="maewol checkout order").loads(query["order"][0])
    assert set(read) == {"name", "amount", "order_name"}
    for value in BUYER.values():
        assert value not in caplog.text
        assert value not in ended["to"]
    assert begun["request"]["customer_uid"] not in caplog.text


def test_its_files_and_nothing_else(shop: Edge) -> None:
    with shop.browse() as client:
        for name in ("checkout.js", "checkout.css"):
            assert client.get(f"/checkout/static/{name}").status_code == 200
        for name in ("texts.toml", "..%2Froutes.py", "checkout.html"):
            assert client.get(f"/checkout/static/{name}").status_code == 404
