"""A charging process is killed at its n-th network system call, for every n until it gets through.

Whatever it had done by then, the ordinary use cases lead to exactly one payment of each customer.
strace does the killing (Debian: `apt-get install strace`).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from billing import clock as clocks
from billing.bootstrap import billing_policy
from billing.domain.policy import BillingPolicy
from billing.services.charge import charge
from billing.services.dispatch import dispatch
from billing.services.import_subscriptions import import_subscriptions
from billing.services.inquire import find_unknown, inquire
from billing.services.open_cycles import open_cycles
from billing.settings import Settings
from billing.store.session import Book, create_book_engine
from tests.builders import KEY, a_file, execute, query
from tests.chaos.cast import NotToday, members
from tests.chaos.victim import a_client

STRACE = shutil.which("strace")
# More than a charge makes; beyond it something is wrong.
MOST_CALLS = 400
RECOVERY_ROUNDS = 40
HEADER = "customer_uid,amount,order_name,initial_paid_at,buyer_name,buyer_email,buyer_tel"


@dataclass
class Lane:
    """Where messages wait until the test hands them to a worker."""

    charges: list[int] = field(default_factory=list)
    questions: list[int] = field(default_factory=list)

    def charge(self, attempt_ids: Sequence[int]) -> None:
        self.charges += attempt_ids

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        self.questions += attempt_ids

    def charges_waiting(self) -> int:
        return len(self.charges)

    def dispatch_soon(self) -> None:
        """The test dispatches in every round."""


@dataclass
class Rig:
    """A book, a sandbox, and a process that forks victims."""

    book: Book
    policy: BillingPolicy
    url: str
    zygote: subprocess.Popen[str]
    moved: timedelta = timedelta(0)
    born: int = 0

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def move(self, seconds: float) -> None:
        """Billing time and the gateway's clock, together."""
        self.moved += timedelta(seconds=seconds)
        self.ask("/sandbox/clock", {"advance_seconds": seconds})
        execute(self.book, "UPDATE installation SET clock_offset = :by", by=self.moved)

    def newcomers(self, count: int) -> list[str]:
        """So many subscribers with a cycle open and an attempt due, nobody else's work beside."""
        now = datetime.now(UTC) + self.moved
        try:
            plain = [one for one in members(100, self.born, now) if not one.says][:count]
        except NotToday as reason:
            pytest.skip(str(reason))
        uids = [f"victim-{self.born + number}" for number in range(count)]
        self.born += count
        customers = [
            {**one.as_customer(), "customer_uid": uid} for one, uid in zip(plain, uids, strict=True)
        ]
        self.ask("/sandbox/customers", customers)
        rows = [
            f"{one['customer_uid']},{one['amount']},{one['name']},{one['paid_at']},"
            f"{one['buyer_name']},{one['buyer_email']},{one['buyer_tel']}"
            for one in customers
        ]
        import_subscriptions(self.book, self.policy, lambda: KEY, a_file(*rows, header=HEADER))
        assert open_cycles(self.book, self.policy) == count
        return uids

    def attempts(self, uids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """The attempt of each, and its status."""
        rows = query(
            self.book,
            "SELECT s.customer_uid, a.id, a.status FROM attempts a"
            " JOIN cycles c ON c.id = a.cycle_id JOIN subscriptions s ON s.id = c.subscription_id"
            " WHERE s.customer_uid = ANY(:uids)",
            uids=list(uids),
        )
        assert len(rows) == len(uids)
        return {uid: (attempt_id, status) for uid, attempt_id, status in rows}

    def paid(self, uids: Sequence[str]) -> Counter[str]:
        """How often each was charged by us, by the gateway's ledger."""
        rows = [row for uid in uids for row in self._payments(uid)]
        return Counter(
            row["customer_uid"] for row in rows if row["paid_at"] and row["origin"] == "again"
        )

    def _payments(self, uid: str) -> list[Any]:
        found: list[Any] = self.ask(f"/sandbox/ledger?customer_uid={uid}")["payments"]
        return found

    def charge_killed_at(self, call: int, uids: Sequence[str]) -> bool:
        """Run the charge in a victim that dies at its `call`-th network call; whether it did."""
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        ids = " ".join(str(one) for one, _ in self.attempts(uids).values())
        self.zygote.stdin.write(f"{self.moved.total_seconds()} {ids}\n")
        self.zygote.stdin.flush()
        pid = int(self.zygote.stdout.readline())
        with _stabbed(pid, call):
            self.zygote.stdin.write("go\n")
            self.zygote.stdin.flush()
            code = int(self.zygote.stdout.readline())
        assert code in (0, -signal.SIGKILL), f"the victim ended with {code}"
        return code != 0

    def recover(self, uids: Sequence[str]) -> None:
        """What ticks and workers do, with time going on, until nothing is open."""
        for _ in range(RECOVERY_ROUNDS):
            if {status for _, status in self.attempts(uids).values()} == {"approved"}:
                return
            self.move(20)
            asyncio.run(self._round())
        story = query(self.book, "SELECT kind, data FROM events ORDER BY id DESC LIMIT 9")
        pytest.fail(f"not settled: {self.attempts(uids)}; newest first: {story}")

    async def _round(self) -> None:
        lane = Lane()
        find_unknown(self.book, lane, self.policy)
        dispatch(self.book, lane, self.policy)
        gateway = a_client(self.url, self.moved)
        await inquire(self.book, gateway, self.policy, lane.questions)
        await charge(self.book, gateway, self.policy, lane.charges)
        await gateway.aclose()


@contextmanager
def _stabbed(pid: int, call: int) -> Iterator[None]:
    """strace on `pid`, which kills it on entry to its `call`-th network call."""
    inject = f"inject=%network:signal=SIGKILL:when={call}"
    command = [str(STRACE), "-f", "-e", "trace=%network", "-e", inject, "-o", os.devnull]
    tracer = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline()
        if "attached" not in said:
            tracer.wait(10)
            os.kill(pid, signal.SIGKILL)
            pytest.skip(f"strace cannot attach here: {said.strip()}")
        yield
        tracer.wait(10)
    finally:
        tracer.kill()
        tracer.wait()
        tracer.stderr.close()


@pytest.fixture
def rig(database_url: str) -> Iterator[Rig]:
    if STRACE is None:
        pytest.skip("strace is not installed (Debian: apt-get install strace)")
    root = Path(__file__).parents[2]
    env = {**os.environ, **SETTINGS}
    sandbox = subprocess.Popen(
        [sys.executable, "-m", "billing.cli", "sandbox", "--port", "0", "--latency-ms", "3"],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert sandbox.stdout is not None
    url = json.loads(sandbox.stdout.readline())["url"]
    zygote = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.victim", database_url, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=env,
    )
    settings = {name.removeprefix("MAEWOL_").lower(): text for name, text in SETTINGS.items()}
    policy = billing_policy(Settings.load(**settings))
    book = Book(create_book_engine(database_url), clocks.database_time)
    try:
        yield Rig(book, policy, url, zygote)
    finally:
        book.close()
        for process in (zygote, sandbox):
            process.kill()
            process.communicate()


SETTINGS = {
    "MAEWOL_CHARGE_CRON": "* * * * *",
    "MAEWOL_CHARGES_PER_SECOND": "0",
    "MAEWOL_PORTONE_TIMEOUT_SECONDS": "10",
    "MAEWOL_LEASE_SECONDS": "30",
    "MAEWOL_INQUIRY_SETTLE_SECONDS": "15",
    "MAEWOL_GATEWAY_VISIBILITY_SECONDS": "5",
    # As the cast takes it: who is charged has more time than this before the month ends.
    "MAEWOL_CLOSE_MARGIN_MINUTES": "3",
}


def killed_at_every_call(rig: Rig, customers: int, calls: Sequence[int]) -> Counter[str]:
    """Kill at each of these calls, recover, judge; the states that were left behind."""
    left: Counter[str] = Counter()
    for call in calls:
        uids = rig.newcomers(customers)
        died = rig.charge_killed_at(call, uids)
        paid = rig.paid(uids)
        states = rig.attempts(uids).items()
        left.update(f"{status}, {paid[uid]} charged" for uid, (_, status) in states)
        rig.recover(uids)
        assert rig.paid(uids) == Counter(uids), f"killed at call {call}"
        if not died:
            print(f"{customers} customers: got through at call {call}; left {dict(left)}")
            return left
    return left


def test_a_charge_killed_at_some_calls_is_paid_once(rig: Rig) -> None:
    left = killed_at_every_call(rig, 1, [1, 8, 24, 30, 36, 42, 46, MOST_CALLS])

    assert left["approved, 1 charged"] > 0
    assert sum(left.values()) - left["approved, 1 charged"] > 0


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("customers", [1, 3])
def test_a_charge_killed_at_every_call_is_paid_once(rig: Rig, customers: int) -> None:
    left = killed_at_every_call(rig, customers, range(1, MOST_CALLS))

    states = ("due, 0 charged", "sending, 0 charged", "sending, 1 charged", "approved, 1 charged")
    assert all(left[state] for state in states), left
    assert set(left) <= set(states), left
