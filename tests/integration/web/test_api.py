"""The API as a merchant's server uses it, on a real book, with the sandbox as the gateway."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from billing.bootstrap import billing_policy
from billing.sandbox import NewCustomer, mood, register
from billing.sandbox.model import Payment
from billing.services.open_cycles import open_cycles
from tests.builders import enrolled, query
from tests.integration.web.conftest import Edge

TOKEN = "the-token-of-the-merchant"
SUBSCRIPTIONS = "/v1/subscriptions"


@pytest.fixture
def edge(make_edge: Callable[..., Edge]) -> Edge:
    return make_edge(api_token=TOKEN)


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def paid(edge: Edge, name: str = "customer-1", **more: Any) -> Payment:
    """A customer who has just paid in the payment window."""
    wish = {
        "amount": 9900,
        "name": "월정액",
        "buyer_name": "홍길동",
        "paid_at": edge.clock.now - timedelta(minutes=1),
        **more,
    }
    return register(edge.sandbox, [NewCustomer(customer_uid=name, **wish)])[0]


def test_enrolment_from_the_merchants_server(edge: Edge) -> None:
    payment = paid(edge)
    ordered = {
        "imp_uid": payment.imp_uid,
        "customer_uid": "customer-1",
        "merchant_uid": payment.merchant_uid,
        "amount": 9900,
    }
    with edge.browse(peer="203.0.113.9", host="pay.example.com", **bearer()) as client:
        first = client.post(SUBSCRIPTIONS, json=ordered)
        again = client.post(SUBSCRIPTIONS, json=ordered)
        other = client.post(SUBSCRIPTIONS, json={**ordered, "amount": 19900})
        unknown = client.post(SUBSCRIPTIONS, json={"imp_uid": "imp_0"})
        shown = client.get(f"{SUBSCRIPTIONS}/customer-1")
        edge.sandbox.mood = mood({"chances": {"lookup": {"http:503": 1}}})
        in_an_outage = client.post(SUBSCRIPTIONS, json={"imp_uid": payment.imp_uid})
    assert (in_an_outage.status_code, in_an_outage.json()) == (200, first.json())
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == shown.json()
    assert first.json()["anchor_on"] == "2026-11-20"
    assert "홍길동" not in first.text
    assert (other.status_code, unknown.status_code) == (409, 404)
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["detail"] == (
        f"{payment.imp_uid} is of 9,900 KRW, which is not the amount of the order"
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"imp_uid": "imp_1"', "body"),
        (b"[]", "body"),
        (b"{}", "imp_uid"),
        (b'{"imp_uid": "../users/getToken"}', "imp_uid"),
        (b'{"imp_uid": "imp_1\\n"}', "imp_uid"),
        (b'{"imp_uid": "imp_1", "amount": "9900"}', "amount"),
        (b'{"imp_uid": "imp_1", "amount": true}', "amount"),
        (b'{"imp_uid": "imp_1", "amount": 1e30}', "amount"),
        (b'{"imp_uid": "imp_1", "previous": "a\\u0000b"}', "previous"),
        (b'{"imp_uid": "imp_1", "colour": "red"}', "colour"),
        (b"\xff\xfe{", "body"),
    ],
)
def test_a_body_that_does_not_fit(book_free_edge: Edge, body: bytes, field: str) -> None:
    """Refused before anything is asked or read: there is no database behind this one."""
    headers = {**bearer(), "content-type": "application/json"}
    with book_free_edge.browse() as client:
        refused = client.post(SUBSCRIPTIONS, content=body, headers=headers)
    assert refused.status_code in (400, 422)
    assert refused.headers["content-type"] == "application/problem+json"
    if refused.status_code == 422:
        assert field in [one["field"].split(".")[0] for one in refused.json()["errors"]]


def test_a_gateway_that_cannot_be_asked(edge: Edge) -> None:
    payment = paid(edge)
    edge.sandbox.mood = mood({"chances": {"lookup": {"http:503": 1}}})
    with edge.browse(**bearer()) as client:
        away = client.post(SUBSCRIPTIONS, json={"imp_uid": payment.imp_uid})
    assert away.status_code == 502
    assert query(edge.book, "SELECT count(*) FROM subscriptions") == [(0,)]


def test_pages_and_filters(edge: Edge) -> None:
    policy = billing_policy(edge.app.state.edge.settings)
    names = [f"customer-{number}" for number in range(1, 8)]
    rows = [f"{name},9900,plan,2026-10-20T14:30:00+09:00,," for name in names]
    assert enrolled(edge.book, policy, *rows).added == 7
    assert open_cycles(edge.book, policy) == 7
    with edge.browse(**bearer()) as client:
        for path, key in ((SUBSCRIPTIONS, "customer_uid"), ("/v1/cycles", "customer_uid")):
            found, cursor = [], None
            for _ in range(3):
                asked = {"limit": 3, **({"cursor": cursor} if cursor else {})}
                page = client.get(path, params=asked).json()
                found += [row[key] for row in page["items"]]
                cursor = page["next"]
            assert found == names[::-1]
            assert cursor is None
        client.post(f"{SUBSCRIPTIONS}/customer-3/pause")
        paused = client.get(SUBSCRIPTIONS, params={"status": "paused"}).json()
        of_one = client.get("/v1/cycles", params={"customer_uid": "customer-5"}).json()
        none = client.get("/v1/cycles", params={"status": "missed"}).json()
        cursor = client.get(SUBSCRIPTIONS, params={"limit": 1}).json()["next"]
        wrong = [
            client.get(SUBSCRIPTIONS, params=asked).status_code
            for asked in (
                {"status": "happy"},
                {"limit": 0},
                {"limit": 201},
                {"cursor": "nonsense"},
                {"cursor": "ÿ"},
                {"cursor": "c3Vic2NyaXB0aW9uOi0x"},
            )
        ]
        elsewhere = client.get("/v1/cycles", params={"cursor": cursor})
    assert [row["customer_uid"] for row in paused["items"]] == ["customer-3"]
    (cycle,) = of_one["items"]
    assert (cycle["status"], cycle["cycle"], len(cycle["attempts"])) == ("open", 1, 1)
    assert cycle["attempts"][0]["status"] == "due"
    assert none == {"items": [], "next": None}
    assert wrong == [422] * 6
    assert elsewhere.status_code == 422


def test_pause_resume_cancel(edge: Edge) -> None:
    policy = billing_policy(edge.app.state.edge.settings)
    enrolled(edge.book, policy, "customer-1,9900,plan,2026-10-20T14:30:00+09:00,,")
    one = f"{SUBSCRIPTIONS}/customer-1"
    with edge.browse(**bearer()) as client:
        for action, status in (("pause", "paused"), ("resume", "active"), ("cancel", "cancelled")):
            for _ in range(2):
                done = client.post(f"{one}/{action}")
                assert (done.status_code, done.json()["status"]) == (200, status)
                shown = client.get(one).json()
                assert done.json() == {**shown, "warning": done.json()["warning"]}
            if action != "resume":
                assert set(done.json()["warning"]) == {"en", "ko"}
        refused = client.post(f"{one}/resume")
        nobody = client.post(f"{SUBSCRIPTIONS}/nobody/pause")
    assert (refused.status_code, nobody.status_code) == (409, 404)
    rows = query(edge.book, "SELECT count(*) FROM events WHERE kind = 'subscription.paused'")
    assert rows == [(1,)]


def test_names_that_look_like_paths(edge: Edge) -> None:
    """One encoded segment is one customer: nobody else is paused by a slash."""
    policy = billing_policy(edge.app.state.edge.settings)
    names = ["a", "a/pause", "a/b c", "고객?1#x", "100%", "a%2Fb", "..%2f", "~-_.!*'()"]
    enrolled(edge.book, policy, *[f'"{one}",9900,p,2026-10-20T14:30:00+09:00,,' for one in names])
    with edge.browse(**bearer()) as client:
        for name in names:
            found = client.get(f"{SUBSCRIPTIONS}/{quote(name, safe='')}")
            assert (found.status_code, found.json()["customer_uid"]) == (200, name)
        for name in ("", "%00", "%0a", "%ff", "x" * 81, "%ed%a0%80", "a/pause"):
            assert client.get(f"{SUBSCRIPTIONS}/{name}").status_code in (404, 405)
        paused = client.post(f"{SUBSCRIPTIONS}/a%2Fpause/pause").json()
        assert paused["customer_uid"] == "a/pause"
    rows = query(edge.book, "SELECT customer_uid FROM subscriptions WHERE status = 'paused'")
    assert rows == [("a/pause",)]


def test_the_page_of_the_description(book_free_edge: Edge) -> None:
    with book_free_edge.browse(**bearer()) as client:
        page, document, style = (
            client.get(path) for path in ("/docs", "/openapi.json", "/docs/style.css")
        )
    assert page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text
    assert "style=" not in page.text
    assert "unsafe" not in page.headers["content-security-policy"]
    assert style.headers["content-type"].startswith("text/css")
    described = document.json()
    for path in described["paths"]:
        assert path in page.text
    assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for methods in described["paths"].values():
        for operation in methods.values():
            for status, told in operation["responses"].items():
                if status >= "400" and "v1" in operation["operationId"]:
                    assert list(told["content"]) == ["application/problem+json"]


@pytest.fixture
def book_free_edge(make_free_edge: Callable[..., Edge]) -> Edge:
    return make_free_edge(api_token=TOKEN)
