"""Pinning the amount of an order: done, done before, or not to be relied on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from billing.domain.errors import GatewayError, GatewayRefused, GatewayUnavailable
from billing.domain.money import Won

pytestmark = pytest.mark.anyio

ORDER = "order-0123456789"
PINNED = {"merchant_uid": ORDER, "amount": 9900}


def wrapped(response: object, code: int = 0) -> dict[str, object]:
    return {"code": code, "message": "이미 등록된 merchant_uid입니다." if code else None} | {
        "response": response
    }


def answering(posted: Any, looked_up: Any = (500, b"")) -> Any:
    async def scene(wire: Any, arrival: Any) -> None:
        status, body = posted if arrival.method == "POST" else looked_up
        await wire.answer(status, body)

    return scene


async def test_pinned(kit: Any) -> None:
    kit.gateway.scene = answering((200, wrapped(PINNED)))
    await kit.client().prepare(ORDER, Won(9900))
    (arrival,) = kit.gateway.arrivals
    assert (arrival.method, arrival.path) == ("POST", "/payments/prepare")
    assert json.loads(arrival.body) == PINNED


@pytest.mark.parametrize("amount", [9900, 9900.0, "9900"])
async def test_pinned_before_with_the_same_amount(kit: Any, amount: object) -> None:
    kit.gateway.scene = answering(
        (200, wrapped(None, 1)), (200, wrapped({**PINNED, "amount": amount}))
    )
    await kit.client().prepare(ORDER, Won(9900))
    assert kit.gateway.arrivals[1].path.startswith(f"/payments/prepare/{ORDER}?")


@pytest.mark.parametrize(
    ("posted", "looked_up"),
    [
        ((200, wrapped(None, 1)), (200, wrapped({**PINNED, "amount": 100}))),
        ((200, wrapped(None, 1)), (200, wrapped([]))),
        ((200, wrapped(None, 1)), (404, wrapped(None, -1))),
        ((200, wrapped({**PINNED, "amount": 100})), (500, b"")),
        ((200, wrapped({**PINNED, "amount": None})), (500, b"")),
        ((403, wrapped(None, -1)), (500, b"")),
    ],
)
async def test_another_amount_or_none_is_refused(kit: Any, posted: Any, looked_up: Any) -> None:
    kit.gateway.scene = answering(posted, looked_up)
    with pytest.raises(GatewayRefused):
        await kit.client().prepare(ORDER, Won(9900))


@pytest.mark.parametrize(
    "posted",
    [
        (500, b""),
        (200, b"<html>"),
        (200, wrapped({"merchant_uid": "another", "amount": 9900})),
        (200, wrapped(None)),
    ],
)
async def test_no_usable_answer(kit: Any, posted: Any) -> None:
    kit.gateway.scene = answering(posted)
    with pytest.raises(GatewayUnavailable):
        await kit.client().prepare(ORDER, Won(9900))


async def test_a_line_that_breaks_or_says_nothing(kit: Any) -> None:
    async def reset(wire: Any, arrival: Any) -> None:
        wire.reset()

    async def silence(wire: Any, arrival: Any) -> None:
        await asyncio.sleep(5)

    for scene in (reset, silence):
        kit.gateway.scene = scene
        with pytest.raises(GatewayError):
            await kit.client(lookup_timeout=0.3).prepare(ORDER, Won(9900))
