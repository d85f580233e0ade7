"""Look-ups: the whole truth or a `GatewayError`. Absence is believed from the gateway only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from billing.domain.errors import GatewayError, GatewayRefused, GatewayUnavailable, InvalidInput
from billing.domain.money import Won
from billing.portone.lookups import TRIES

pytestmark = pytest.mark.anyio

ABSENT = {"code": -1, "message": "존재하지 않는 결제정보입니다.", "response": None}


def row(number: int = 1, **changes: object) -> dict[str, object]:
    return {
        "imp_uid": f"imp_{number}",
        "merchant_uid": "mw-1",
        "customer_uid": "customer",
        "status": "paid",
        "amount": 9900,
        "paid_at": 1_732_400_000 + number,
        "started_at": 1_732_399_990 + number,
        "failed_at": 0,
        "currency": "KRW",
        "sandbox": False,
        **changes,
    }


def answering(status: int, body: object) -> Any:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.answer(status, body)

    return scene


def paging(rows: Sequence[object], size: int = 2, **changes: object) -> Any:
    """The gateway's paging: {total, previous, next, list}, a page past the end being 400."""

    async def scene(wire: Any, arrival: Any) -> None:
        page = int(parse_qs(urlsplit(arrival.path).query)["page"][0])
        part = rows[(page - 1) * size : page * size]
        if page > 1 and not part:
            await wire.answer(400, ABSENT)
            return
        following = page + 1 if page * size < len(rows) else 0
        listed = {"total": len(rows), "previous": page - 1, "next": following, "list": part}
        await wire.ok({**listed, **changes})

    return scene


async def ask(kit: Any, what: str, **settings: Any) -> Any:
    client = kit.client(**settings)
    match what:
        case "order":
            return await client.payments_of_order("mw-1")
        case "key":
            return await client.payments_of_key("customer", datetime(2000, 1, 1, tzinfo=UTC))
        case "payment":
            return await client.payment("imp_1")
        case "billing key":
            return await client.billing_key("customer")
        case _:
            moment = datetime(2024, 11, 1, tzinfo=UTC)
            return await client.scheduled_payments("customer", moment, moment)


EVERYTHING = ["order", "key", "payment", "billing key", "schedules"]
LISTS = ["order", "key"]


# --- addresses ----------------------------------------------------------------------------------

ADDRESSES = {
    "order": "/payments/findAll/mw-1",
    "key": "/subscribe/customers/customer/payments",
    "payment": "/payments/imp_1",
    "billing key": "/subscribe/customers/customer",
    "schedules": "/subscribe/customers/customer/schedules",
}


@pytest.mark.parametrize("what", EVERYTHING)
@pytest.mark.parametrize("sandbox", [True, False])
async def test_addresses(kit: Any, what: str, sandbox: bool) -> None:
    kit.gateway.scene = answering(404, ABSENT)
    assert not await ask(kit, what, include_sandbox=sandbox)
    (arrival,) = kit.gateway.arrivals
    parts = urlsplit(arrival.path)
    assert (arrival.method, parts.path) == ("GET", ADDRESSES[what])
    assert arrival.headers["authorization"] == "Bearer token-1"
    assert parse_qs(parts.query)["include_sandbox"] == [str(sandbox).lower()]


async def test_a_customer_uid_stays_one_segment(kit: Any) -> None:
    kit.gateway.scene = answering(404, ABSENT)
    await kit.client().billing_key("../홍?길#동/ %2e&x=1")
    (arrival,) = kit.gateway.arrivals
    path = urlsplit(arrival.path).path
    assert path.isascii()
    assert path == (
        "/subscribe/customers/..%2F%ED%99%8D%3F%EA%B8%B8%23%EB%8F%99%2F%20%252e%26x%3D1"
    )


@pytest.mark.parametrize("text", ["", ".", "..", "\ud800", "x" * 101])
async def test_what_cannot_be_an_id_is_never_asked(kit: Any, text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        await kit.client().payment(text)
    assert not text or text not in str(raised.value).replace("cannot be part of an address.", "")
    assert kit.gateway.connections == 0


# --- test payments and live ones ---------------------------------------------------------------


@pytest.mark.parametrize("what", ["order", "key", "payment"])
@pytest.mark.parametrize("ours", [True, False])
async def test_a_row_that_does_not_tell_its_kind_is_of_ours(
    kit: Any, what: str, ours: bool
) -> None:
    untold = row()
    del untold["sandbox"]
    kit.gateway.scene = answering(
        200, {"code": 0, "message": None, "response": untold if what == "payment" else [untold]}
    )
    found = await ask(kit, what, include_sandbox=ours)
    assert [one.sandbox for one in ([found] if what == "payment" else found)] == [ours]


# --- whole lists --------------------------------------------------------------------------------


@pytest.mark.parametrize("what", LISTS)
@pytest.mark.parametrize("count", [0, 1, 2, 5])
async def test_all_pages_are_followed(kit: Any, what: str, count: int) -> None:
    kit.gateway.scene = paging([row(number) for number in range(count)])
    found = await ask(kit, what)
    assert [payment.imp_uid for payment in found] == [f"imp_{number}" for number in range(count)]
    assert len(kit.gateway.arrivals) == max(1, -(-count // 2))


@pytest.mark.parametrize("what", LISTS)
async def test_a_list_that_never_ends_is_an_error(kit: Any, what: str) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.ok({"total": 1, "previous": 0, "next": 2, "list": [row()]})

    kit.gateway.scene = scene
    with pytest.raises(GatewayUnavailable, match="does not end"):
        await ask(kit, what)


@pytest.mark.parametrize(
    "changes",
    [{"total": 9}, {"list": None}, {"list": {}}, {"next": "2"}, {"total": True},
     {"list": [row(amount=True)]}, {"list": [row(imp_uid=None)]}, {"list": ["row"]},
     {"list": [row(paid_at=10**18)]}, {"list": [row(sandbox="no")]}],
)  # fmt: skip
@pytest.mark.parametrize("what", LISTS)
async def test_a_part_or_a_riddle_is_an_error(kit: Any, what: str, changes: dict[str, Any]) -> None:
    kit.gateway.scene = paging([row()], **changes)
    with pytest.raises(GatewayUnavailable):
        await ask(kit, what)


async def test_an_end_in_the_middle_is_an_error(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        if len(kit.gateway.arrivals) == 1:
            await wire.ok({"total": 1, "previous": 0, "next": 2, "list": [row()]})
        else:
            await wire.answer(404, ABSENT)

    kit.gateway.scene = scene
    with pytest.raises(GatewayUnavailable, match="middle"):
        await ask(kit, "order")


async def test_rows_of_somebody_else_are_an_error(kit: Any) -> None:
    kit.gateway.scene = paging([row(merchant_uid="mw-2", customer_uid="other")])
    for what in LISTS:
        with pytest.raises(GatewayUnavailable, match="another"):
            await ask(kit, what)
    another = row(2, customer_uid="other")
    kit.gateway.scene = answering(200, {"code": 0, "message": None, "response": another})
    for what in ("payment", "billing key"):
        with pytest.raises(GatewayUnavailable, match="another"):
            await ask(kit, what)


async def test_only_what_happened_since(kit: Any) -> None:
    since = datetime.fromtimestamp(2000, UTC)
    never = {"paid_at": 0, "started_at": 0}
    kit.gateway.scene = paging(
        [
            row(1, paid_at=1999, started_at=1990),
            row(2, paid_at=2000, started_at=1990),
            row(3, **never, failed_at=2001, status="failed"),
            row(4, **never, failed_at=1999, status="failed"),
            row(5, **never, status="ready"),
        ]
    )
    found = await kit.client().payments_of_key("customer", since)
    assert [payment.imp_uid for payment in found] == ["imp_2", "imp_3", "imp_5"]


# --- absence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", EVERYTHING)
@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<html>404</html>"), (404, b""), (404, b"{}"), (404, {"code": 0, "response": None}),
     (404, {**ABSENT, "response": row()}), (200, ABSENT), (400, ABSENT), (410, ABSENT),
     (500, ABSENT), (502, b"<html>"), (429, b""), (301, b""), (200, b"<html>"),
     (200, {"code": 0, "message": None, "response": None}),
     (207, {"code": 0, "response": [row()]})],
)  # fmt: skip
async def test_nothing_else_is_absence(kit: Any, what: str, status: int, body: object) -> None:
    kit.gateway.scene = answering(status, body)
    with pytest.raises(GatewayUnavailable):
        await ask(kit, what)


async def test_the_other_spelling_is_tried_where_the_router_knows_none(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        if urlsplit(arrival.path).path.endswith("/"):
            await paging([row()])(wire, arrival)
        else:
            await wire.answer(404, b"no route")

    kit.gateway.scene = scene
    assert len(await ask(kit, "order")) == 1


# --- refusals and breaks ------------------------------------------------------------------------


@pytest.mark.parametrize("what", EVERYTHING)
async def test_a_401_is_answered_with_one_new_token(kit: Any, what: str) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        known = arrival.headers["authorization"] == "Bearer token-2"
        await wire.answer(404 if known else 401, ABSENT)

    kit.gateway.scene = scene
    assert not await ask(kit, what)
    assert kit.gateway.token_fetches == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_for_good(kit: Any, status: int) -> None:
    kit.gateway.scene = answering(status, ABSENT)
    with pytest.raises(GatewayRefused):
        await ask(kit, "order")


async def broken(wire: Any, how: str) -> None:
    match how:
        case "reset":
            wire.reset()
        case "cut":
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
            wire.close()
        case "html":
            await wire.answer(200, "<html>sorry</html>")
        case status:
            await wire.answer(int(status), ABSENT)


@pytest.mark.parametrize("what", EVERYTHING)
@pytest.mark.parametrize("how", ["reset", "cut", "html", "500", "503"])
async def test_an_answer_that_breaks_is_asked_for_again(kit: Any, what: str, how: str) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        if len(kit.gateway.arrivals) < TRIES:
            await broken(wire, how)
        else:
            await wire.answer(404, ABSENT)

    kit.gateway.scene = scene
    assert not await ask(kit, what)
    assert len(kit.gateway.arrivals) == TRIES


@pytest.mark.parametrize("how", ["reset", "cut", "html", "503"])
async def test_so_often_and_no_more(kit: Any, how: str) -> None:
    kit.gateway.scene = lambda wire, arrival: broken(wire, how)
    with pytest.raises(GatewayUnavailable):
        await ask(kit, "order")
    # aiohttp asks once more by itself where a connection was closed: a look-up may go twice.
    by_itself = 2 if how == "reset" else 1
    assert TRIES <= len(kit.gateway.arrivals) <= TRIES * by_itself


@pytest.mark.parametrize("status", [400, 403, 404, 409, 429])
async def test_what_is_no_break_is_asked_once(kit: Any, status: int) -> None:
    """Above all "too many": to ask again at once is the one wrong thing."""
    kit.gateway.scene = answering(status, {"code": 0, "message": None, "response": None})
    with pytest.raises(GatewayError):
        await ask(kit, "order")
    assert len(kit.gateway.arrivals) == 1


async def test_every_page_has_its_own_tries(kit: Any) -> None:
    whole, seen = paging([row(number) for number in range(6)]), set[str]()

    async def scene(wire: Any, arrival: Any) -> None:
        if arrival.path in seen:
            await whole(wire, arrival)
        else:
            seen.add(arrival.path)
            await broken(wire, "503")

    kit.gateway.scene = scene
    assert len(await ask(kit, "order")) == 6
    assert len(kit.gateway.arrivals) == 6


async def test_all_tries_together_are_given_up_in_time(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await asyncio.sleep(0.4)
        await broken(wire, "503")

    kit.gateway.scene = scene
    with pytest.raises(GatewayUnavailable, match="TimeoutError"):
        await ask(kit, "order", lookup_timeout=0.6)
    assert len(kit.gateway.arrivals) == 2


async def test_a_gateway_that_only_breaks_is_unavailable(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        wire.reset()

    kit.gateway.scene = scene
    with pytest.raises(GatewayUnavailable) as raised:
        await ask(kit, "key")
    assert "customer" not in str(raised.value)


async def test_a_silent_gateway_is_given_up_in_time(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await asyncio.sleep(60)

    kit.gateway.scene = scene
    with pytest.raises(GatewayError, match="TimeoutError"):
        await ask(kit, "order", lookup_timeout=0.3)


# --- what a row says ----------------------------------------------------------------------------


async def test_a_payment_row(kit: Any) -> None:
    kit.gateway.scene = answering(
        200,
        {
            "code": 0,
            "message": None,
            "response": row(
                cancel_amount=100, cancelled_at=1_732_500_000, name="월간 구독", buyer_tel="010",
                buyer_name="", pay_method="phone", pg_provider="mobilians", fail_reason="",
                customer_uid_usage="payment", sandbox=None, tomorrow={"x": 1},
            ),
        },
    )  # fmt: skip
    found = await ask(kit, "payment")
    assert found.amount == Won(9900)
    assert found.paid_at == datetime.fromtimestamp(1_732_400_001, UTC)
    assert found.failed_at is None
    assert found.cancelled_at == datetime.fromtimestamp(1_732_500_000, UTC)
    assert found.cancelled_amount == Won(100)
    assert found.order_name == "월간 구독"
    assert (found.buyer.name, found.buyer.tel) == (None, "010")
    assert found.sandbox is False
    assert (found.pay_method, found.pg_provider) == ("phone", "mobilians")
    assert "010" not in repr(found)
    assert "customer'" not in repr(found)


async def test_a_billing_key(kit: Any) -> None:
    key = {"customer_uid": "customer", "pg_provider": "mobilians", "inserted": 1_732_400_000}
    kit.gateway.scene = answering(200, {"code": 0, "message": None, "response": key})
    found = await ask(kit, "billing key")
    assert found.customer_uid == "customer"
    assert found.pg_provider == "mobilians"
    assert found.inserted_at == datetime.fromtimestamp(1_732_400_000, UTC)
    assert found.sandbox is False


async def test_scheduled_payments(kit: Any) -> None:
    entry = {
        "merchant_uid": "theirs-1",
        "schedule_at": 1_732_400_000,
        "amount": 9900,
        "schedule_status": "scheduled",
    }
    kit.gateway.scene = paging([entry])
    since, until = datetime(2024, 11, 1, tzinfo=UTC), datetime(2024, 12, 1, tzinfo=UTC)
    (found,) = await kit.client().scheduled_payments("customer", since, until)
    assert (found.merchant_uid, found.amount, found.status) == ("theirs-1", Won(9900), "scheduled")
    query = parse_qs(urlsplit(kit.gateway.arrivals[0].path).query)
    assert query["from"] == [str(int(since.timestamp()))]
    assert query["to"] == [str(int(until.timestamp()))]
