"""Two web processes over one book, as behind one proxy: neither keeps anything for itself that a
visitor, the gateway or Prometheus would miss at the other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from billing.domain.policy import BillingPolicy
from billing.embedded import Servers
from billing.services.look_at_webhooks import look_at_webhooks
from billing.store.session import Book
from tests.builders import query
from tests.conftest import MovedClock
from tests.containers import quiet_ports
from tests.integration.web.console_kit import PASSWORD, Page
from tests.world import World

TOKEN = "of-one-installation"
PATIENCE_SECONDS = 60


@pytest.fixture
def world(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> World:
    return World(book, make_policy(charge_cron="* * * * *", charges_per_second=0), clock)


@pytest.fixture
def edges(servers: Servers, database_url: str, tmp_path: Path) -> Iterator[list[httpx.Client]]:
    """A client of each; no cookie goes from the one to the other unless a test carries it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAEWOL_")}
    env |= {
        "MAEWOL_DATABASE_URL": database_url,
        "MAEWOL_BROKER_URL": str(servers.broker_url),
        "MAEWOL_PORTONE_IMP_KEY": "key",
        "MAEWOL_PORTONE_IMP_SECRET": "secret",
        "MAEWOL_API_TOKEN": TOKEN,
        "MAEWOL_CONSOLE_PASSWORD": PASSWORD,
    }
    ports = list(quiet_ports(("A", "B")).values())
    with (tmp_path / "log").open("wb") as log:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "billing.web", "--port", str(port)],
                env=env,
                cwd=tmp_path,
                stdout=log,
                stderr=log,
            )
            for port in ports
        ]
    try:
        clients = [httpx.Client(base_url=f"http://127.0.0.1:{port}") for port in ports]
        for client in clients:
            _until_ready(client, tmp_path / "log")
        yield clients
        for client in clients:
            client.close()
    finally:
        for process in started:
            process.terminate()
        codes = [process.wait(30) for process in started]
    # uvicorn shuts down in order, and then lets the signal end it.
    assert codes == [-signal.SIGTERM] * 2, (tmp_path / "log").read_text()


def _until_ready(client: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def test_who_signed_in_at_one_is_in_at_the_other_with_the_forms_of_either(
    edges: list[httpx.Client],
) -> None:
    one, other = edges
    assert other.get("/").status_code == 303, "not signed in yet"
    form = Page(one.get("/sign-in")).forms["/sign-in"]
    assert one.post("/sign-in", data={**form, "password": PASSWORD}).status_code == 303
    _carry(one, other)
    assert [client.get("/").status_code for client in edges] == [200, 200]
    # A form that the one showed is sent to the other, which holds by it; the first shows that.
    hold = Page(one.get("/system/stop")).forms["/system/stop"]
    sent = other.post("/system/stop", data={**hold, "reason": "two of us", "typed": "stop"})
    assert sent.status_code == 303, sent.text
    assert "two of us" in one.get("/system").text


def _carry(one: httpx.Client, other: httpx.Client) -> None:
    """A browser knows both as one site."""
    for cookie in one.cookies.jar:
        other.cookies.set(cookie.name, cookie.value or "")


def test_a_webhook_that_was_sent_to_both_is_looked_at_once(
    edges: list[httpx.Client], world: World
) -> None:
    world.enrol("somebody", script=["timeout_after_charge"])
    world.tick()
    assert world.statuses("attempts") == {"unknown": 1}
    payment = list(world.sandbox.ledger.payments)[-1]
    told = {"imp_uid": payment.imp_uid, "merchant_uid": payment.merchant_uid, "status": "paid"}
    answers = [client.post("/webhooks/portone", json=told) for client in edges]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert query(world.book, "SELECT imp_uid, times FROM webhooks") == [(payment.imp_uid, 2)]
    # They came by the real clock; the world's stands where the test put it.
    world.clock.now = max(world.clock.now, datetime.now(UTC) + timedelta(seconds=1))
    assert _look(world) == {"inquired": 1}
    assert world.statuses("attempts") == {"approved": 1}
    assert _look(world) == Counter()


def _look(world: World) -> Any:
    return world.ask(lambda gateway: look_at_webhooks(world.book, gateway, world.policy))


def test_both_tell_the_same_figures_of_the_book(edges: list[httpx.Client], world: World) -> None:
    for name in ("paid", "declined", "unknown"):
        script = {"declined": ["declined:0098"], "unknown": ["timeout_after_charge"]}.get(name, [])
        world.enrol(name, script=script)
    world.tick()
    shown = [_of_the_book(client) for client in edges]
    assert shown[0] == shown[1]
    assert shown[0]["maewol_attempts_unknown"] == "1.0"
    assert len(shown[0]) > 15


def _of_the_book(client: httpx.Client) -> dict[str, str]:
    """Every gauge but those that tell of a moment: how long ago, and how long something took."""
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    gauges = set(re.findall(r"^# TYPE (maewol_\w+) gauge$", answer.text, re.M))
    found = dict(re.findall(r"^(maewol_\w+(?:\{.*\})?) (\S+)$", answer.text, re.M))
    return {
        name: value
        for name, value in found.items()
        if name.partition("{")[0] in gauges and "seconds" not in name
    }
