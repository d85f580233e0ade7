"""What Prometheus is told is what the book says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from billing.domain.policy import BillingPolicy
from billing.services.hold import hold
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
    edge: Edge, world: World
) -> None:
    world.enrol("before")
    world.run(times=1)
    with edge.browse() as client:
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


def test_the_first_alarm_of_its_kind_is_told_and_for_an_hour(edge: Edge, world: World) -> None:
    """Also one that was written while no web process ran."""
    hold(world.book, "a look first")
    with edge.browse() as client:
        assert scrape(client)["maewol_recent_alarms", ("charging.held",)] == 1
        world.clock.move(minutes=59)
        assert scrape(client)["maewol_recent_alarms", ("charging.held",)] == 1
        world.clock.move(minutes=1)
        assert ("maewol_recent_alarms", ("charging.held",)) not in scrape(client)


def test_a_book_that_is_away_at_the_start_is_counted_from_the_first_scrape(
    edge: Edge, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> int:
        raise OperationalError("connect", None, ConnectionError("away"))

    with contextlib.ExitStack() as exits:
        with monkeypatch.context() as patch:
            patch.setattr("billing.web.metrics.newest_line", away)
            client = exits.enter_context(edge.browse())
        scrape(client)
        world.enrol("paid")
        world.run(times=1)
        scrape(client)
        assert scrape(client)["maewol_events_total", ("", "cycle.paid")] == 1


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


@pytest.mark.parametrize(("url", "wanted"), [(None, 0), ("http://127.0.0.1:9/", 1)])
def test_it_says_whether_notices_are_wanted(
    make_edge: Callable[..., Edge], url: str | None, wanted: int
) -> None:
    secret = "whsec_" + "QUJD" * 8
    with make_edge(notice_url=url, notice_secret=secret).browse() as client:
        assert scrape(client)["maewol_notices_wanted", ()] == wanted


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
