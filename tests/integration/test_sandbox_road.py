"""The road of one charge against the sandbox as a process of its own, judged by its ledger."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from billing import clock as clocks
from billing.domain.policy import BillingPolicy
from billing.portone.client import PortOneClient
from billing.portone.token import MemoryTokenStore
from billing.services.answer import Result
from billing.services.charge import charge
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.builders import a_month_before, chargeable_now, enrolled, query
from tests.conftest import MovedClock
from tests.world import World


@pytest.fixture
def sandbox() -> Iterator[str]:
    """The address of a sandbox that keeps its ledger in memory."""
    process = subprocess.Popen(
        [sys.executable, "-m", "billing.cli", "sandbox", "--port", "0", "--seed", "1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_charges_are_approved_declined_and_judged_clean(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock, sandbox: str
) -> None:
    clock.move_to(chargeable_now())
    policy = make_policy(charge_cron="* * * * *", charges_per_second=0)
    paid_at = a_month_before(clock.now)
    customers = [
        {
            "customer_uid": f"customer-{number}",
            "amount": 1000 + number,
            "name": f"plan {number}",
            "paid_at": paid_at.isoformat(),
            "buyer_name": "홍길동",
            "buyer_tel": f"010-1234-{number:04d}",
            "script": ["declined:0031"] if number == 3 else [],
        }
        for number in range(5)
    ]
    ask(f"{sandbox}/sandbox/customers", customers)
    rows = [
        f"{one['customer_uid']},{one['amount']},{one['name']},{one['paid_at']},홍길동,"
        f"{one['buyer_tel']}"
        for one in customers
    ]
    enrolled(book, policy, *rows)
    assert open_cycles(book, policy) == 5
    ids = [row[0] for row in query(book, "SELECT id FROM attempts")]

    async def run() -> Any:
        client = PortOneClient(
            sandbox,
            "key",
            "secret",
            tokens=MemoryTokenStore(),
            now=clocks.host_time,
            monotonic=clocks.monotonic,
            charge_timeout=10,
            include_sandbox=False,
        )
        try:
            return await charge(book, client, policy, ids)
        finally:
            await client.aclose()

    assert asyncio.run(run()) == {Result.APPROVED: 4, Result.DECLINED: 1}
    assert query(book, "SELECT decline_class FROM attempts WHERE status = 'declined'") == [
        ("not_this_month",)
    ]
    verdict = ask(f"{sandbox}/sandbox/verdict")
    assert verdict["ok"], verdict["problems"]


def test_a_name_of_any_printable_text_is_asked_about_and_charged(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    world = World(book, make_policy(charge_cron="* * * * *", charges_per_second=0), clock)
    names = ["one/two", "a%2Fb", "</script>", "물음표?", "hash#;&", "...", "sp ace"]
    world.enrol(*names)
    world.run(times=3)
    assert world.statuses("cycles") == {"paid": len(names)}
    assert world.requests() == len(names)
    assert world.alarms() == []
