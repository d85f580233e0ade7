"""One token for everybody: fetched once, renewed in time, replaced once when it is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from billing.domain.errors import GatewayRefused, GatewayUnavailable
from billing.domain.outcome import Approved, NotSent, Unknown
from billing.portone.token import MemoryTokenStore

pytestmark = pytest.mark.anyio


async def charge_many(client: Any, kit: Any, count: int) -> list[object]:
    return list(await asyncio.gather(*(client.charge(kit.request(n)) for n in range(count))))


def accepting(*tokens: str) -> Any:
    """The gateway takes these tokens only."""

    async def scene(wire: Any, arrival: Any) -> None:
        if arrival.headers["authorization"].removeprefix("Bearer ") not in tokens:
            await wire.answer(401, {"code": -1, "message": "Unauthorized", "response": None})
            return
        if arrival.method == "GET":
            await wire.answer(404, {"code": -1, "message": "없음", "response": None})
            return
        asked = arrival.json()
        await wire.ok(
            {**asked, "imp_uid": "imp_1", "status": "paid", "currency": "KRW", "paid_at": 1}
        )

    return scene


async def test_fifty_charges_at_once_fetch_one_token(kit: Any) -> None:
    outcomes = await charge_many(kit.client(), kit, 50)
    assert all(isinstance(outcome, Approved) for outcome in outcomes)
    assert kit.gateway.token_fetches == 1


async def test_workers_that_share_a_store_fetch_one_token(kit: Any) -> None:
    store = MemoryTokenStore()
    clients = [kit.client(tokens=store) for _ in range(4)]
    await asyncio.gather(*(charge_many(client, kit, 5) for client in clients))
    assert kit.gateway.token_fetches == 1


async def test_renewed_before_it_ends_and_not_sooner(kit: Any) -> None:
    client = kit.client()
    await client.charge(kit.request())
    kit.clock.moved = 1800 - 40
    await client.charge(kit.request())
    assert kit.gateway.token_fetches == 1
    kit.clock.moved = 1800 - 20
    await client.charge(kit.request())
    assert kit.gateway.token_fetches == 2
    assert kit.gateway.arrivals[-1].headers["authorization"] == "Bearer token-2"


async def test_a_short_lived_token_is_used_for_most_of_its_life(kit: Any) -> None:
    kit.gateway.token_seconds = 20
    client = kit.client()
    await client.charge(kit.request())
    kit.clock.moved = 15
    await client.charge(kit.request())
    assert kit.gateway.token_fetches == 1


async def test_the_renewal_of_another_worker_is_taken_over(kit: Any) -> None:
    store = MemoryTokenStore()
    first, second = kit.client(tokens=store), kit.client(tokens=store)
    await first.charge(kit.request())
    await second.charge(kit.request())
    kit.clock.moved = 1790
    await first.charge(kit.request())
    await second.charge(kit.request())
    assert kit.gateway.token_fetches == 2
    assert kit.gateway.arrivals[-1].headers["authorization"] == "Bearer token-2"


@pytest.mark.parametrize("ahead", [-3000, 3000])
async def test_the_token_lives_by_the_gateways_clock(kit: Any, ahead: int) -> None:
    kit.gateway.clock_ahead = ahead
    client = kit.client()
    await client.charge(kit.request())
    kit.clock.moved = 1000
    await client.charge(kit.request())
    assert kit.gateway.token_fetches == 1
    assert abs(client.clock_offset - timedelta(seconds=ahead)) < timedelta(seconds=2)


async def test_the_gateways_moment_is_asked_afresh(kit: Any) -> None:
    kit.gateway.clock_ahead = 500
    client = kit.client()
    assert client.clock_offset is None
    for _ in range(2):
        difference = await client.moment() - kit.clock.now()
        assert abs(difference - timedelta(seconds=500)) < timedelta(seconds=2)
    assert kit.gateway.token_fetches == 2


# --- 401 ----------------------------------------------------------------------------------------


async def test_a_revoked_token_is_replaced_once_for_all(kit: Any) -> None:
    client = kit.client()
    await client.charge(kit.request())
    kit.gateway.arrivals.clear()
    kit.gateway.scene = accepting("token-2")
    outcomes = await charge_many(client, kit, 30)
    assert all(isinstance(outcome, Approved) for outcome in outcomes)
    assert kit.gateway.token_fetches == 2
    assert len(kit.gateway.arrivals) <= 60


async def test_the_request_goes_again_unchanged(kit: Any) -> None:
    kit.gateway.scene = accepting("token-2")
    assert isinstance(await kit.client().charge(kit.request()), Approved)
    first, second = kit.gateway.arrivals
    assert first.body == second.body


async def test_refused_twice_is_not_sent_and_goes_no_third_time(kit: Any) -> None:
    kit.gateway.scene = accepting()
    outcome = await kit.client().charge(kit.request())
    assert isinstance(outcome, NotSent)
    assert outcome.credentials
    assert len(kit.gateway.arrivals) == 2
    assert kit.gateway.token_fetches == 2


@pytest.mark.parametrize("act", ["charge", "look up"])
async def test_what_another_worker_left_may_be_as_old_as_ours(kit: Any, act: str) -> None:
    """Ours ended, the other's newer one ended too while nothing was to do: both are refused, and
    only then a new one is fetched."""
    store = MemoryTokenStore()
    ours, others = kit.client(tokens=store), kit.client(tokens=store)
    await ours.charge(kit.request(1))
    kit.gateway.scene = accepting("token-2")
    assert isinstance(await others.charge(kit.request(2)), Approved)
    kit.gateway.arrivals.clear()
    kit.gateway.scene = accepting("token-3")
    if act == "charge":
        assert isinstance(await ours.charge(kit.request(3)), Approved)
    else:
        assert list(await ours.payments_of_order("mw-3")) == []
    sent = [one.headers["authorization"] for one in kit.gateway.arrivals]
    assert sent == ["Bearer token-1", "Bearer token-2", "Bearer token-3"]
    assert kit.gateway.token_fetches == 3


async def test_nobody_is_turned_away_while_a_neighbour_fetches(kit: Any) -> None:
    """Many at once meet two ended tokens one after the other, at all paces."""
    store = MemoryTokenStore()
    ours, others = kit.client(tokens=store), kit.client(tokens=store)
    await ours.charge(kit.request(1))
    kit.gateway.scene = accepting("token-2")
    await others.charge(kit.request(2))
    turned_away = accepting("token-3")

    async def at_all_paces(wire: Any, arrival: Any) -> None:
        await asyncio.sleep(len(kit.gateway.arrivals) % 7 * 0.01)
        await turned_away(wire, arrival)

    kit.gateway.scene = at_all_paces
    outcomes = await charge_many(ours, kit, 30)
    assert all(isinstance(outcome, Approved) for outcome in outcomes)
    assert kit.gateway.token_fetches == 3


async def test_what_breaks_after_a_401_is_unknown(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        if len(kit.gateway.arrivals) == 1:
            await wire.answer(401, b"")
        else:
            wire.reset()

    kit.gateway.scene = scene
    assert isinstance(await kit.client().charge(kit.request()), Unknown)


async def test_no_new_token_after_a_401_is_not_sent(kit: Any) -> None:
    kit.gateway.scene = accepting()

    async def once(wire: Any, arrival: Any) -> None:
        if kit.gateway.token_fetches == 1:
            await kit.gateway.issue_token(wire, arrival)
        else:
            await wire.answer(500, b"")

    kit.gateway.token_scene = once
    outcome = await kit.client().charge(kit.request())
    assert outcome == NotSent("no token: getToken: HTTP 500")
    assert len(kit.gateway.arrivals) == 1


async def test_a_process_that_stood_still_after_a_401_sends_nothing_more(kit: Any) -> None:
    """By the time it wakes up another worker may have sent the same charge anew."""
    kit.gateway.scene = accepting("token-2")

    async def slept_meanwhile(wire: Any, arrival: Any) -> None:
        if kit.gateway.token_fetches == 2:
            kit.clock.moved = 480
        await kit.gateway.issue_token(wire, arrival)

    kit.gateway.token_scene = slept_meanwhile
    outcome = await kit.client().charge(kit.request())
    assert isinstance(outcome, NotSent)
    assert len(kit.gateway.arrivals) == 1


# --- no token to be had -------------------------------------------------------------------------

NOW = 1_732_400_000
GOOD = {"access_token": "t", "now": NOW, "expired_at": NOW + 1800}


@pytest.mark.parametrize(
    ("status", "body", "credentials"),
    [
        (401, b"", True),
        (403, b"<html>", True),
        (200, {"code": -1, "message": "no", "response": None}, True),
        (500, b"", False),
        (429, b"", False),
        (302, b"", False),
        (200, b"<html>", False),
        (200, {"code": 0, "message": None, "response": None}, False),
        (200, {"code": 0, "message": None, "response": {**GOOD, "access_token": "a\r\nb"}}, False),
        (200, {"code": 0, "message": None, "response": {**GOOD, "access_token": 7}}, False),
        (200, {"code": 0, "message": None, "response": {**GOOD, "now": None}}, False),
        (200, {"code": 0, "message": None, "response": {**GOOD, "expired_at": "x"}}, False),
    ],
)
async def test_no_token_no_charge(kit: Any, status: int, body: object, credentials: bool) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.answer(status, body, Location=f"{kit.gateway.url}/elsewhere")

    kit.gateway.token_scene = scene
    client = kit.client()
    outcome = await client.charge(kit.request())
    assert isinstance(outcome, NotSent), outcome
    assert (outcome.credentials, outcome.our_fault) == (credentials, False)
    with pytest.raises(GatewayRefused if credentials else GatewayUnavailable):
        await client.payment("imp_1")
    assert kit.gateway.arrivals == []


async def test_a_failed_fetch_is_repeated_once_and_shared(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await asyncio.sleep(0.1)
        await wire.answer(500, b"")

    kit.gateway.token_scene = scene
    client = kit.client()
    outcomes = await charge_many(client, kit, 50)
    assert all(isinstance(outcome, NotSent) for outcome in outcomes)
    assert kit.gateway.token_fetches == 2
    kit.gateway.token_scene = None
    assert isinstance(await client.charge(kit.request()), Approved)


@pytest.mark.parametrize("broken", [b"", b"<html>", b'{"code":0,"message":null,"response":{}}'])
async def test_one_broken_answer_to_get_token_costs_nobody_anything(
    kit: Any, broken: bytes
) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        kit.gateway.token_scene = None
        await wire.answer(200, broken)

    kit.gateway.token_scene = scene
    outcomes = await charge_many(kit.client(), kit, 50)
    assert [outcome for outcome in outcomes if not isinstance(outcome, Approved)] == []
    assert kit.gateway.token_fetches == 2


async def test_refused_credentials_are_not_tried_again(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.answer(401, {"code": -1, "message": "no", "response": None})

    kit.gateway.token_scene = scene
    assert (await kit.client().charge(kit.request())).credentials
    assert kit.gateway.token_fetches == 1


async def test_a_silent_get_token_is_not_sent_within_the_deadline(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await asyncio.sleep(60)

    kit.gateway.token_scene = scene
    client = kit.client(charge_timeout=0.3)
    assert await client.charge(kit.request()) == NotSent("given up before sending: TimeoutError")


async def test_the_waiting_of_one_does_not_end_the_fetch_for_others(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await asyncio.sleep(0.3)
        await kit.gateway.issue_token(wire, arrival)

    kit.gateway.token_scene = scene
    client = kit.client()
    hasty = asyncio.create_task(client.charge(kit.request(1)))
    patient = asyncio.create_task(client.charge(kit.request(2)))
    await asyncio.sleep(0.1)
    hasty.cancel()
    assert isinstance(await hasty, NotSent)
    assert isinstance(await patient, Approved)
    assert kit.gateway.token_fetches == 1


async def test_the_secret_goes_to_get_token_only(kit: Any) -> None:
    asked: list[Any] = []

    async def scene(wire: Any, arrival: Any) -> None:
        asked.append(arrival)
        await kit.gateway.issue_token(wire, arrival)

    kit.gateway.token_scene = scene
    client = kit.client()
    await client.charge(kit.request())
    (arrival,) = asked
    assert arrival.json() == {"imp_key": "the-key", "imp_secret": "the-secret"}
    assert "authorization" not in arrival.headers
    assert all(b"the-secret" not in arrival.body for arrival in kit.gateway.arrivals)
