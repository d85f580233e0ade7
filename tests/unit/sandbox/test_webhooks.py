"""Webhooks: when they are sent, to whom, what they say, and how they go wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from billing.sandbox.webhooks import Address
from tests.unit.sandbox.kit import ADA, TERMS, Shop, a_customer
from tests.unit.sandbox.test_window import Customer


class Receiver:
    """A merchant's server that keeps what it is told."""

    def __init__(self) -> None:
        told: list[tuple[str, str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                told.append((self.path, self.headers["Content-Type"], body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.raw = told
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.raw]

    @property
    def statuses(self) -> list[tuple[str, str]]:
        return [(one["merchant_uid"], one["status"]) for one in self.told]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


class ToldShop(Shop):
    """A shop whose every request is followed by its webhooks."""

    def __init__(self, receiver: Receiver, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.sandbox.webhooks.address = Address(receiver.url)

    async def send(self, method: str, path: str, **more: Any) -> Any:
        answer = await super().send(method, path, **more)
        await self.sandbox.webhooks.drained()
        return answer

    def sent(self) -> list[str]:
        """What became of each, by the request log."""
        found = self.control("GET", "requests?kind=webhook")
        return [one["outcome"] for one in found["requests"]]


def test_paid_in_the_window_and_by_key(receiver: Receiver) -> None:
    shop = ToldShop(receiver, "2027-01-20 11:00")
    Customer(shop).pay()
    shop.at("2027-02-20 10:00").charge()
    assert receiver.told == [
        {"imp_uid": "imp_000000000001", "merchant_uid": "order-1", "status": "paid"},
        {"imp_uid": "imp_000000000002", "merchant_uid": "m-1", "status": "paid"},
    ]
    assert shop.sent() == ["paid:200", "paid:200"]


def test_an_ordinary_refusal_is_told_to_nobody(receiver: Receiver) -> None:
    shop = ToldShop(receiver).register(a_customer(condition="0016"))
    shop.charge()
    Customer(shop, merchant_uid="order-2").pay(now="0031")
    assert receiver.told == []


def test_the_gateways_own_schedule_tells_of_both(receiver: Receiver) -> None:
    shop = ToldShop(receiver, "2027-02-19 10:00").register()
    at = int(shop.sandbox.clock.unix()) + 3600
    planned = [
        {"merchant_uid": f"s-{number}", "schedule_at": at + number, **TERMS} for number in (1, 2)
    ]
    body = {"customer_uid": ADA, "schedules": planned}
    assert shop.call("POST", "/subscribe/payments/schedule", json=body).json()["code"] == 0
    shop.control("POST", "clock", {"advance_seconds": 7200})
    assert sorted(receiver.statuses) == [("s-1", "paid"), ("s-2", "failed")]


def test_a_cancellation_in_the_console_is_told_one_by_the_api_on_demand(
    receiver: Receiver,
) -> None:
    shop = ToldShop(receiver)
    for number in (1, 2, 3):
        Customer(shop, merchant_uid=f"o-{number}", customer_uid=f"c-{number}").pay()
    receiver.raw.clear()
    shop.control("POST", "cancel", {"imp_uid": "imp_000000000001"})
    shop.call("POST", "/payments/cancel", json={"merchant_uid": "o-2"})
    shop.call("POST", "/payments/cancel", json={"merchant_uid": "o-3", "enable_webhook": True})
    assert receiver.statuses == [("o-1", "cancelled"), ("o-3", "cancelled")]
    assert receiver.told[0]["cancellation_id"] == "cancel_000000000001"


def test_an_address_of_the_request_comes_first(receiver: Receiver) -> None:
    shop = ToldShop(receiver)
    Customer(shop, notice_url=receiver.url + "/own").pay()
    assert [path for path, _, _ in receiver.raw] == ["/hook/own"]


def test_as_a_form(receiver: Receiver) -> None:
    shop = ToldShop(receiver)
    document = {"url": receiver.url, "format": "form"}
    assert shop.control("POST", "webhooks", document) == document
    assert shop.control("GET", "webhooks") == document
    Customer(shop).pay()
    ((_, kind, body),) = receiver.raw
    assert kind == "application/x-www-form-urlencoded"
    assert body == "imp_uid=imp_000000000001&merchant_uid=order-1&status=paid"


@pytest.mark.parametrize(
    ("fault", "count", "outcomes"),
    [
        ("lost", 0, ["paid:lost"]),
        ("doubled", 2, ["paid:200", "paid:200"]),
        ("late:30", 1, ["paid:200"]),
    ],
)
def test_how_they_go_wrong(receiver: Receiver, fault: str, count: int, outcomes: list[str]) -> None:
    shop = ToldShop(receiver, faults={"chances": {"webhook": {fault: 1}}})
    Customer(shop).pay()
    assert len(receiver.raw) == count
    assert shop.sent() == outcomes
    if fault == "late:30":
        assert shop.naps == [30]


def test_a_server_that_is_away_loses_it_once(receiver: Receiver) -> None:
    shop = ToldShop(receiver)
    shop.sandbox.webhooks.address = Address("http://127.0.0.1:9/hook")
    Customer(shop).pay()
    assert shop.sent() == ["paid:not delivered: ConnectError"]


@pytest.mark.parametrize("url", ["shop.example/hook", "ftp://shop.example", "http://", "http://[x"])
def test_an_address_that_is_none(url: str) -> None:
    answer = Shop().call("POST", "/sandbox/webhooks", json={"url": url}, headers={})
    assert answer.status_code == 400
    assert "no address" in answer.json()["error"]
