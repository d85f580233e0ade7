"""Calls of many processes add up in the broker, and wait while it is away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from billing.bootstrap import quick_redis
from billing.broker import RedisTokenStore
from billing.embedded import Servers
from billing.meter import SECONDS, CallCounter, Calls, Shared, sharing
from billing.ports import AccessToken
from billing.redis_address import RedisAddress

AWAY = "redis://127.0.0.1:9/0"
NOW = datetime(2026, 11, 27, 6, 0, tzinfo=UTC)


@pytest.fixture
def url(servers: Servers) -> Iterator[str]:
    """A database of the broker that is empty."""
    made = f"{(servers.broker_url or '').rpartition('/')[0]}/8"
    with Redis.from_url(made) as redis:
        redis.flushdb()
        yield made
        redis.flushdb()


def of(url: str) -> dict[tuple[str, str], Calls]:
    with quick_redis(RedisAddress(url)) as redis:
        return Shared(redis).calls()


def test_what_processes_count_adds_up(url: str) -> None:
    for _ in range(2):
        counter = CallCounter()
        with sharing(counter, quick_redis(RedisAddress(url)), every=60):
            counter.note("charge", "2xx", 0.3)
            counter.note("charge", "2xx", 999)
            counter.note("lookup", "not_connected", 0.0)
    found = of(url)
    charges = found["charge", "2xx"]
    assert charges.classes == [2 * (end in (0.5, None)) for end in (*SECONDS, None)]
    assert charges.seconds == pytest.approx(2 * 999.3)
    assert found["lookup", "not_connected"].classes[0] == 2
    assert set(found) == {("charge", "2xx"), ("lookup", "not_connected")}


def test_it_is_shared_while_work_goes_on(url: str) -> None:
    counter = CallCounter()
    with sharing(counter, quick_redis(RedisAddress(url)), every=0.01):
        counter.note("token", "2xx", 0.1)
        for _ in range(3000):
            if of(url):
                break
        assert ("token", "2xx") in of(url)


def test_what_cannot_be_passed_on_is_kept(url: str) -> None:
    counter = CallCounter()
    with sharing(counter, quick_redis(RedisAddress(AWAY)), every=60):
        counter.note("charge", "5xx", 1.0)
    with sharing(counter, quick_redis(RedisAddress(url)), every=60):
        counter.note("charge", "5xx", 1.0)
    assert of(url)["charge", "5xx"].classes[SECONDS.index(1.0)] == 2


def test_what_we_did_not_write_is_no_figure(url: str) -> None:
    names = ("x", "charge:2xx", "charge:2xx:99", "charge:2xx:²", "evil:2xx:1", "charge:홍길동:1")
    with Redis.from_url(url) as redis:
        for name in names:
            redis.hset("maewol:gateway-calls", name, "7")
        redis.hset("maewol:gateway-calls", b"\xff:2xx:1", "7")
        redis.hset("maewol:gateway-calls", "charge:2xx:1", "-7")
        redis.hset("maewol:gateway-calls", "charge:2xx:2", "many")
    assert of(url) == {}


async def _share_a_token(url: str) -> None:
    store = RedisTokenStore(RedisAddress(url), lambda: NOW)
    await store.put(AccessToken("a-token", NOW + timedelta(minutes=30)))
    assert await store.get() == AccessToken("a-token", NOW + timedelta(minutes=30))
    await store.aclose()


@pytest.mark.anyio
async def test_the_token_tells_when_it_was_fetched_and_queues_how_long_they_are(url: str) -> None:
    redis = quick_redis(RedisAddress(url))
    shared = Shared(redis)
    assert shared.token_fetched_at() is None
    await _share_a_token(url)
    assert shared.token_fetched_at() == NOW
    assert shared.waiting() == {"charges": 0, "ticks": 0}
    redis.set("maewol:portone:token", "garbage")
    redis.lpush("charges", "one", "two")
    assert shared.token_fetched_at() is None
    assert shared.waiting()["charges"] == 2
    redis.close()
