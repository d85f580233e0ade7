"""The ladder of `cancel`, rung by rung, with real sockets."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from billing.domain.money import Won
from billing.domain.outcome import NotSent, Unknown
from billing.domain.refund import Cancelled, CancelRequest

pytestmark = pytest.mark.anyio

AT = 1_795_000_000
REQUEST = CancelRequest("imp_123", "mw-abc-202611-01", Won(9900), "손님 요청")


def payment(**changes: object) -> dict[str, object]:
    return {
        "imp_uid": "imp_123",
        "merchant_uid": "mw-abc-202611-01",
        "status": "cancelled",
        "amount": 9900,
        "cancel_amount": 9900,
        "cancelled_at": AT,
        "paid_at": AT - 60,
        "currency": "KRW",
        "a_field_of_next_year": {"nested": [1]},
        **changes,
    }


def answering(status: int, body: object, **headers: str) -> Any:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.answer(status, body, **headers)

    return scene


def wrapped(response: object, code: int = 0, message: str | None = None) -> dict[str, object]:
    return {"code": code, "message": message, "response": response}


async def outcome(kit: Any, scene: Any, request: CancelRequest = REQUEST, **settings: Any) -> Any:
    kit.gateway.scene = scene
    return await kit.client(**settings).cancel(request)


async def test_cancelled(kit: Any) -> None:
    found = await outcome(kit, answering(200, wrapped(payment())))
    assert found == Cancelled("imp_123", datetime.fromtimestamp(AT, UTC))
    (arrival,) = kit.gateway.arrivals
    assert (arrival.method, arrival.path) == ("POST", "/payments/cancel")
    assert json.loads(arrival.body) == {
        "imp_uid": "imp_123",
        "checksum": 9900,
        "reason": "손님 요청",
    }


@pytest.mark.parametrize(
    ("changes", "contradiction"),
    [
        ({"imp_uid": "imp_9"}, True),
        ({"cancel_amount": 900}, True),
        ({"status": "paid", "cancel_amount": 900}, True),
        ({"status": "paid", "cancel_amount": 0, "cancelled_at": 0}, False),
        ({"status": "ready", "cancel_amount": 0}, False),
        ({"status": "a new word", "cancel_amount": 0}, False),
        ({"cancelled_at": 0}, False),
        ({"cancel_amount": 0}, True),
    ],
)
async def test_a_payment_that_is_not_what_was_asked_for(
    kit: Any, changes: dict[str, object], contradiction: bool
) -> None:
    found = await outcome(kit, answering(200, wrapped(payment(**changes))))
    assert isinstance(found, Unknown)
    assert found.contradiction is contradiction
    assert found.refusal is None


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"code":0,"resp', b"[]", wrapped(None), wrapped([]), wrapped("x"),
     wrapped(payment(amount=True)), wrapped(payment(imp_uid=None)),
     {"code": "0", "response": payment()}, {"response": payment()}],
)  # fmt: skip
async def test_200_with_nonsense_is_unknown(kit: Any, body: object) -> None:
    found = await outcome(kit, answering(200, body))
    assert isinstance(found, Unknown)
    assert found.refusal is None


async def test_a_refusal_is_a_text_not_proof(kit: Any) -> None:
    refused = wrapped(None, 1, "취소할 결제건이 존재하지 않습니다.")
    found = await outcome(kit, answering(200, refused))
    assert found == Unknown("code 1", refusal="취소할 결제건이 존재하지 않습니다.")
    with_payment = await outcome(kit, answering(200, wrapped(payment(), 1, "no")))
    assert isinstance(with_payment, Unknown)
    assert with_payment.refusal is None


@pytest.mark.parametrize("status", [201, 204, 301, 302, 400, 403, 404, 409, 500, 502, 503])
async def test_other_answers_are_unknown(kit: Any, status: int) -> None:
    found = await outcome(kit, answering(status, wrapped(payment())))
    assert isinstance(found, Unknown)
    assert len(kit.gateway.arrivals) == 1


async def test_429_slows_down(kit: Any) -> None:
    found = await outcome(kit, answering(429, b"", Retry_After="7"))
    assert (found.slow_down, found.retry_after_seconds) == (True, 7.0)


async def test_401_goes_once_more_with_a_new_token(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        known = arrival.headers["authorization"] == "Bearer token-2"
        await wire.answer(200 if known else 401, wrapped(payment() if known else None))

    assert isinstance(await outcome(kit, scene), Cancelled)
    assert len(kit.gateway.arrivals) == 2


async def test_401_for_good_is_not_sent(kit: Any) -> None:
    found = await outcome(kit, answering(401, wrapped(None, -1)))
    assert isinstance(found, NotSent)
    assert found.credentials
    assert len(kit.gateway.arrivals) == 2


async def test_silence_is_unknown_and_in_time(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await asyncio.sleep(60)

    found = await outcome(kit, scene, charge_timeout=0.4)
    assert found == Unknown("no answer: TimeoutError")


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_break_after_the_request_is_unknown_and_never_repeated(kit: Any, how: str) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        getattr(wire, how)()

    assert isinstance(await outcome(kit, scene), Unknown)
    assert len(kit.gateway.arrivals) == 1


async def test_never_connected_is_not_sent(kit: Any) -> None:
    await kit.client().moment()
    found = await kit.client(url="http://127.0.0.1:9").cancel(REQUEST)
    assert isinstance(found, NotSent)
    assert not found.our_fault


async def test_no_token_is_not_sent(kit: Any) -> None:
    async def refused(wire: Any, arrival: Any) -> None:
        await wire.answer(401, wrapped(None, -1, "no"))

    kit.gateway.token_scene = refused
    found = await outcome(kit, answering(200, wrapped(payment())))
    assert isinstance(found, NotSent)
    assert found.credentials
    assert kit.gateway.arrivals == []


@pytest.mark.parametrize(
    "request_",
    [
        CancelRequest("../imp", "m", Won(9900), ""),
        CancelRequest("", "m", Won(9900), ""),
        CancelRequest("imp_1", "m", Won(9900), "\ud800"),
    ],
)
async def test_what_cannot_be_sent_never_leaves(kit: Any, request_: CancelRequest) -> None:
    found = await outcome(kit, answering(200, wrapped(payment())), request_)
    assert isinstance(found, NotSent)
    assert found.our_fault
    assert kit.gateway.arrivals == []


async def test_cancelled_from_outside_is_an_outcome_too(kit: Any) -> None:
    arrived = asyncio.Event()

    async def scene(wire: Any, arrival: Any) -> None:
        arrived.set()
        await asyncio.sleep(60)

    kit.gateway.scene = scene
    task = asyncio.create_task(kit.client().cancel(REQUEST))
    await arrived.wait()
    task.cancel()
    assert isinstance(await task, Unknown)
