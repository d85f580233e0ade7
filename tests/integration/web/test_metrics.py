"""What Prometheus is told is what the book says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from billing.domain.policy import BillingPolicy
from tests.builders import execute, query
from tests.conftest import MovedClock
from tests.integration.web.conftest import Edge
from tests.world import World

Samples = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0, canary_charges=0)


@pytest.fixture
def world(edge: Edge, policy: BillingPolicy, clock: MovedClock) -> World:
    return World(edge.book, policy, clock)


@pytest.fixture
def client(edge: Edge) -> Iterator[TestClient]:
    with edge.browse() as opened:
        yield opened


def scrape(client: TestClient) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_counters_count_from_the_start_of_the_process_and_never_twice(
    client: TestClient, world: World
) -> None:
    world.enrol("before")
    world.run(times=1)
    scrape(client)
    world.enrol("paid-1", "paid-2")
    world.enrol("poor", script=["declined:0031"])
    world.run(times=2)
    assert world.statuses("cycles") == {"paid": 3, "open": 1}
    scrape(client)
    for _ in range(2):
        found = scrape(client)
        assert found["maewol_events_total", ("", "cycle.paid")] == 2
        assert found["maewol_collected_won_total", ()] == 2 * 9900
        assert found["maewol_events_total", ("not_this_month", "attempt.declined")] == 1
        assert found["maewol_attempt_seconds_count", ()] == 3
        assert found["maewol_attempt_seconds_bucket", ("+Inf",)] == 3


def test_gauges_say_what_waits(client: TestClient, world: World, edge: Edge) -> None:
    world.enrol("one", "two", "three")
    found = scrape(client)
    assert found["maewol_attempts_due", ()] == 0
    assert ("maewol_clock_skew_seconds", ()) not in found
    assert found["maewol_reconciled_seconds_ago", ()] == 0, "enrolled just now"
    assert found["maewol_gateway_up", ()] == 1

    world.faults = None
    world.tick()
    execute(edge.book, "UPDATE installation SET hold_reason = 'by hand', held_at = now()")
    world.enrol("four", "five")
    world.tick()
    world.clock.move(minutes=10)
    found = scrape(client)
    assert found["maewol_charging_held", ()] == 1
    assert found["maewol_attempts_ready", ()] == 2
    assert found["maewol_oldest_ready_seconds", ()] >= 600
    assert found["maewol_cycles_open", ()] == 2
    assert found["maewol_approved_seconds_ago", ()] >= 600
    assert query(edge.book, "SELECT count(*) FROM attempts WHERE status = 'due'") == [(2,)]


def test_nobody_is_named(client: TestClient, world: World) -> None:
    world.enrol("customer-with-a-name")
    world.run(times=2)
    scrape(client)
    assert "customer-with-a-name" not in client.get("/metrics").text


def test_only_whoever_may_see_them(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge(api_token="a-token-of-ours")
    with edge.browse(peer="203.0.113.9", host="example.org") as stranger:
        assert stranger.get("/metrics").status_code == 401
        headers = {"Authorization": "Bearer a-token-of-ours"}
        assert stranger.get("/metrics", headers=headers).status_code == 200
    with edge.browse() as local:
        assert local.get("/metrics").status_code == 200, "a token keeps nobody on this machine out"
        assert local.get("/metrics", headers={"X-Forwarded-For": "x"}).status_code == 401
        assert local.get("/v1/cycles").status_code == 401
