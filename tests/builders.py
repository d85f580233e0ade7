"""What tests are told in: a CSV of subscribers, a foreign gateway, a world to charge in."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from billing.domain.calendar import SEOUL, day_of
from billing.domain.policy import BillingPolicy
from billing.portone.client import PortOneClient
from billing.portone.token import MemoryTokenStore
from billing.services.import_subscriptions import ImportReport, import_subscriptions
from billing.services.seal_events import seal_events
from billing.store.session import Book, Transaction

if TYPE_CHECKING:
    from tests.conftest import MovedClock

# As which all tests of a book work (`conftest.Shared`): what the daemons' role lacks, a test finds.
RUN_ROLE = "maewol_run"
KEY = b"a key of this test only, 32 byte"
# The usual margin before the end of a month, and what the slowest test needs before it.
_NEAR_THE_END = timedelta(minutes=35)
HEADER = "customer_uid,amount,order_name,initial_paid_at,buyer_name,buyer_tel"


def a_row(number: int, paid_at: str = "2026-10-20T14:30:00+09:00") -> str:
    """One subscriber; amount, name and number tell them apart."""
    return f"customer-{number},{1000 + number},plan {number},{paid_at},홍길동,010-1234-{number:04d}"


def a_file(*rows: str, header: str = HEADER) -> io.BytesIO:
    return io.BytesIO("\n".join([header, *rows, ""]).encode())


def chargeable_now() -> datetime:
    """The moment by the real clock, for tests in which somebody is charged by it.

    Nobody is in the last half hour of a month (`CLOSE_MARGIN_MINUTES`), nor should a test reach
    into it: it is skipped."""
    now = datetime.now(UTC)
    if day_of(now + _NEAR_THE_END).month != day_of(now).month:
        pytest.skip("the month ends soon in Seoul, and nobody is charged any more")
    return now


def a_month_before(now: datetime) -> datetime:
    """Noon in Seoul of the same day of the month before, of the 28th at the latest, which every
    month has: who paid for the first time then is due now."""
    today = now.astimezone(SEOUL)
    last_month = today.replace(day=1) - timedelta(days=1)
    day = min(today.day, 28)
    return last_month.replace(day=day, hour=12, minute=0, second=0, microsecond=0)


def enrolled(book: Book, policy: BillingPolicy, *rows: str, **options: Any) -> ImportReport:
    """Import rows into a book."""
    return import_subscriptions(book, policy, lambda: KEY, a_file(*rows), **options)


def subscribed(book: Book, policy: BillingPolicy, count: int = 1) -> None:
    """So many, who are due on the same day."""
    assert enrolled(book, policy, *(a_row(number) for number in range(1, count + 1))).added == count


def query(book: Book, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Look at the book, and at what goes on in its database, as its owner."""
    with book.transaction() as tx, as_owner(tx):
        return [tuple(row) for row in tx.session.execute(text(statement), parameters)]


def execute(book: Book, statement: str, **parameters: Any) -> None:
    """Change the book behind its back, as its owner can and no daemon may."""
    with book.transaction() as tx, as_owner(tx):
        tx.session.execute(text(statement), parameters)


@contextmanager
def as_owner(tx: Transaction) -> Iterator[None]:
    """What is done in here is not done by the daemons' role."""
    tx.session.execute(text("SET LOCAL ROLE NONE"))
    yield
    tx.session.execute(text("RESET ROLE"))


def waits(book: Book, work: Callable[[Transaction], object]) -> bool:
    """Whether some work would wait for another transaction to end."""
    try:
        with book.transaction() as tx:
            tx.session.execute(text("SET LOCAL lock_timeout = '100ms'"))
            work(tx)
    except OperationalError:
        return True
    return False


@contextmanager
def once_before(
    book: Book, statement: str, work: Callable[[], object], *, nth: int = 1
) -> Iterator[None]:
    """Let `work` happen when the nth statement that contains this is about to run: what another
    process does between two statements of one transaction."""
    engine, seen = book._engine, 0

    def look(*arguments: Any) -> None:
        nonlocal seen
        if statement in arguments[2]:
            seen += 1
            if seen == nth:
                work()

    event.listen(engine, "before_cursor_execute", look)
    try:
        yield
        assert seen >= nth, "that statement never ran"
    finally:
        event.remove(engine, "before_cursor_execute", look)


def rows_read(tx: Transaction) -> Counter[str]:
    """Rows read so far by table, as PostgreSQL counts them in a transaction. Not from nought:
    earlier ones count along until it writes its statistics down, once a second."""
    read = "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"
    return Counter(dict(tx.session.execute(text(read)).all()))


def sealed(book: Book) -> int:
    """How many events are sealed by the first tick that seals any; 0 after 20 s. It waits for every
    transaction that is under way in the cluster, and other tests beside this one have some."""
    for _ in range(400):
        if count := seal_events(book):
            return count
        time.sleep(0.05)
    return 0


def plain(database_url: str) -> str:
    """The same address without SQLAlchemy's driver in it, as psycopg wants it."""
    return make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)


def a_refund(book: Book, imp_uid: str, cancelled_at: datetime | None = None) -> None:
    """Of a payment by the first subscriber that no month counts: done then, or else asked for."""
    execute(
        book,
        "INSERT INTO refunds (subscription_id, imp_uid, merchant_uid, amount, breaks_chain,"
        " refund_by, reason, status, requested_at, cancelled_at, settled_at) VALUES"
        " (1, :imp_uid, 'by-hand', 1001, false, now(), 'asked for', :status, now(), :at, :at)",
        imp_uid=imp_uid,
        status="requested" if cancelled_at is None else "done",
        at=cancelled_at,
    )


@dataclass(frozen=True)
class ForeignGateway:
    url: str

    def ledger(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/ledger", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def paid(self) -> dict[str, int]:
        """Every payment it really made, by merchant_uid."""
        rows = [row for row in self.ledger()["rows"] if row["status"] == "paid"]
        paid = {row["merchant_uid"]: row["amount"] for row in rows}
        assert len(paid) == len(rows), "two payments under one merchant_uid"
        return paid


@contextmanager
def a_foreign_gateway(seed: int = 1, fault_share: float = 0.0) -> Iterator[ForeignGateway]:
    """A gateway process of its own, written apart from ours."""
    script = Path(__file__).with_name("foreign_gateway.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(seed), str(fault_share)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield ForeignGateway(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def a_client(
    clock: MovedClock, transport: httpx.AsyncBaseTransport, **settings: Any
) -> PortOneClient:
    """A client of the gateway on a moved clock, for one event loop."""
    return PortOneClient(
        "http://127.0.0.1",
        "key",
        "secret",
        tokens=MemoryTokenStore(),
        now=lambda: clock.now,
        monotonic=lambda: clock.now.timestamp(),
        transport=transport,
        **{"charge_timeout": 5, "include_sandbox": False, **settings},
    )
