"""`maewol reconcile`, `refund`, `proof verify` as a merchant types them, and ticks beside them; the
sandbox a process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from billing import clock as clocks
from billing.domain.calendar import SEOUL
from billing.domain.policy import BillingPolicy
from billing.embedded import Servers
from billing.portone.client import PortOneClient
from billing.portone.token import MemoryTokenStore
from billing.services.charge import charge
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.builders import a_month_before, chargeable_now, enrolled, execute, query
from tests.called import Call, Done
from tests.conftest import MovedClock

# The ticks are processes that load Celery and SQLAlchemy: seconds each on a busy machine.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def gateway() -> Iterator[str]:
    """The address of a sandbox."""
    process = subprocess.Popen(
        [sys.executable, "-m", "billing.cli", "sandbox", "--port", "0"],
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


class Scheduler:
    """Ticks as the scheduler's worker runs them: in a process of its own, by its settings."""

    def __init__(self, database_url: str, servers: Servers, settings: dict[str, str]) -> None:
        self.env = {
            "PATH": "/usr/bin:/bin",
            "MAEWOL_DATABASE_URL": database_url,
            "MAEWOL_BROKER_URL": str(servers.broker_url),
            **{f"MAEWOL_{name}": value for name, value in settings.items()},
        }

    def tick(self, *names: str) -> Any:
        """One after the other in one process."""
        calls = ", ".join(f"ticks.{name}()" for name in names)
        code = f"import json; from scheduler import ticks; print(json.dumps([{calls}]))"
        return self.python(code)

    def python(self, code: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=self.env,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def settings(gateway: str) -> dict[str, str]:
    return {
        "PORTONE_API_URL": gateway,
        "PORTONE_IMP_KEY": "key",
        "PORTONE_IMP_SECRET": "secret",
        "GATEWAY_VISIBILITY_SECONDS": "0",
    }


def charged(book: Book, policy: BillingPolicy, gateway: str, now: datetime, count: int) -> None:
    """So many subscribers whose month is paid, at a gateway that runs on real time."""
    paid_at = a_month_before(now).isoformat()
    people = [
        {"customer_uid": f"c{n}", "amount": 9900 + n, "name": "plan", "paid_at": paid_at}
        for n in range(count)
    ]
    ask(f"{gateway}/sandbox/customers", people)
    enrolled(book, policy, *(f"{p['customer_uid']},{p['amount']},plan,{paid_at},," for p in people))
    assert open_cycles(book, policy) == count
    ids = [row[0] for row in query(book, "SELECT id FROM attempts")]

    async def run() -> Any:
        client = PortOneClient(
            gateway,
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

    assert asyncio.run(run()) == {"approved": count}


def test_compare_give_back_and_prove(
    book: Book,
    make_policy: Callable[..., BillingPolicy],
    clock: MovedClock,
    gateway: str,
    database_url: str,
    servers: Servers,
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given_settings = settings(gateway)

    def maewol(*words: str, code: int = 0) -> Done:
        done = call(*words, **given_settings)
        assert done.code == code, done.err
        return done

    def document(*words: str, code: int = 0) -> Any:
        return maewol(*words, "--json", code=code).document()

    scheduler = Scheduler(database_url, servers, given_settings)
    clock.move_to(chargeable_now())
    charged(book, make_policy(charge_cron="* * * * *", charges_per_second=0), gateway, clock.now, 3)
    capfd.readouterr()
    names = dict(query(book, "SELECT customer_uid, paid_merchant_uid FROM cycles c"
        " JOIN subscriptions s ON s.id = c.subscription_id"))  # fmt: skip
    today = clock.now.astimezone(SEOUL).date()
    span = ("--from", str(today - timedelta(days=3)), "--to", str(today + timedelta(days=1)))

    clean = document("reconcile", *span, "--proof", "proofs")
    assert (clean["differences"], clean["applied"], clean["ledger"]["paid"]) == ([], [], 3)
    # Of the days that are over; midnight may have passed since.
    assert len(clean["proofs_written"]) in (3, 4)
    assert document("proof", "verify", "proofs") == []

    # Nobody sits at a terminal: what follows is said, and the call counts.
    told = maewol("refund", names["c0"], "--reason", "asked for", "--json")
    for said in ("Next month's payment will be refused", "다음 달 결제는", "Seoul"):
        assert said in told.err
    given = told.document()
    assert (given["status"], given["already"], given["amount"]) == ("done", False, 9900)
    assert given["subscription_reason"] == "chain_at_risk"
    again = document("refund", names["c0"])
    assert (again["status"], again["already"]) == ("done", True)

    ended = document("subscription", "cancel", "c1", "--refund")
    assert (ended["status"], ended["subscription"]) == ("done", "cancelled")

    ask(f"{gateway}/sandbox/pay", {"customer_uid": "c2", "merchant_uid": "by-hand"})
    found = document("reconcile", *span, "--apply", code=1)
    (double,) = found["differences"]
    assert (double["difference"], double["merchant_uid"]) == ("double", "by-hand")
    assert "maewol refund by-hand" in double["remedy"]
    assert "환불" in double["remedy_ko"]
    made = {"differences": 1, "applied": 0, "unanswered": 0}
    # The day has its own by then.
    assert scheduler.tick("reconcile_", "refund_", "reconcile_") == [made, {"worked_on": 0}, {}]
    execute(book, "DELETE FROM heartbeats WHERE name = 'maewol.tick.reconcile'")
    execute(book, "INSERT INTO heartbeats (name, at) VALUES ('maewol.reconciling', now())")
    assert scheduler.tick("reconcile_") == [{}], "another process is at it"
    execute(book, "UPDATE heartbeats SET at = at - interval '1 hour' WHERE name LIKE '%ing'")
    assert scheduler.tick("reconcile_", "reconcile_") == [made, {}], "due until it was made"
    assert query(book, "SELECT count(*) FROM events WHERE kind = 'reconcile.difference'") == [(1,)]
    assert document("status")["differences"] == 1

    file = tmp_path / "proofs" / f"maewol-proof-{today - timedelta(days=2)}.txt"
    file.write_text(file.read_text().replace("0 won", "1 won", 1))
    (problem,) = document("proof", "verify", "proofs", code=1)[:1]
    assert problem["file"] == file.name

    wrong = maewol("reconcile", "--from", str(date(2099, 1, 1)), "--to", "2099-01-02", code=2)
    assert "future" in wrong.err

    # In the month of the registration the payment of the month is the initial one.
    person = {"customer_uid": "new", "amount": 9900, "name": "plan"}
    person["paid_at"] = clock.now.isoformat()
    (new,) = ask(f"{gateway}/sandbox/customers", [person])["customers"]
    document("subscription", "add", "--imp-uid", new["imp_uid"])
    execute(book, "ALTER TABLE subscriptions DISABLE TRIGGER USER")
    execute(book, "UPDATE subscriptions SET initial_merchant_uid = NULL WHERE customer_uid = 'new'")
    gone = document("subscription", "cancel", "new", "--refund")
    assert (gone["status"], gone["subscription"]) == ("done", "cancelled")
    assert gone["imp_uid"] == new["imp_uid"]


def test_the_ticks_end_nothing_by_a_clock_that_leapt(
    book: Book,
    make_policy: Callable[..., BillingPolicy],
    clock: MovedClock,
    gateway: str,
    database_url: str,
    servers: Servers,
    tmp_path: Path,
) -> None:
    """As the scheduler's worker runs them; the database is 40 days ahead for a while."""
    clock.move_to(datetime.now(UTC))
    paid_at = (clock.now - timedelta(days=31)).isoformat()
    enrolled(book, make_policy(), *(f"c{n},9900,plan,{paid_at},," for n in range(3)))
    scheduler = Scheduler(database_url, servers, settings(gateway))
    ticks = ("close_", "open_", "close_", "reconcile_")
    execute(book, "UPDATE installation SET clock_offset = interval '40 days'")
    assert scheduler.tick(*ticks) == [{"closed": 0}, {"opened": 0}, {"closed": 0}, {}]
    assert query(book, "SELECT kind FROM events WHERE alarm") == [("clock.skewed",)]
    assert query(book, "SELECT count(*) FROM cycles") == [(0,)]
    execute(book, "UPDATE installation SET clock_offset = interval '0'")
    (found,) = scheduler.tick("reconcile_")
    assert found["unanswered"] == 0


def test_a_missing_reconciliation_is_asked_for_every_hour(
    database_url: str, servers: Servers, tmp_path: Path
) -> None:
    scheduler = Scheduler(database_url, servers, settings("http://127.0.0.1:9"))
    sent = scheduler.python(
        "import json; from scheduler.app import app;"
        "print(json.dumps([str(one['schedule']) for one in app.conf.beat_schedule.values()"
        " if one['task'] == 'maewol.tick.reconcile']))"
    )
    assert sent == ["<cron: 30 5 * * *>", "<cron: 50 * * * *>"]
