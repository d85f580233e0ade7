"""Hosts that are not as one would wish: no log can be written, or they live by another time than
Seoul's. Real processes charge on them, and the gateway's own list says what came of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, time
from pathlib import Path

import pytest

from billing.clock import database_time
from billing.domain.calendar import SEOUL
from billing.embedded import Servers
from billing.store.session import Book, create_book_engine
from tests.builders import ForeignGateway, a_foreign_gateway, query
from tests.conftest import a_database
from tests.watched import Installation

CUSTOMERS = 3
DAEMONS = {
    "ticks": ("celery", "-A", "scheduler", "worker", "-Q", "ticks", "-n", "ticks@%h"),
    "charges": ("celery", "-A", "worker", "worker", "-Q", "charges", "-n", "charges@%h"),
    "beat": ("celery", "-A", "scheduler", "beat"),
}


@pytest.fixture
def gateway() -> Iterator[ForeignGateway]:
    with a_foreign_gateway() as running:
        yield running


@pytest.fixture
def installation(
    servers: Servers, _template: str, gateway: ForeignGateway
) -> Iterator[Installation]:
    """A book, a broker and a gateway; no process yet."""
    # A database of the broker's own: what other tests left in its queues is not ours.
    broker_url = f"{(servers.broker_url or '').rpartition('/')[0]}/10"
    with (
        tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as folder,
        a_database(servers, _template) as database_url,
    ):
        env = {name: value for name, value in os.environ.items() if name[:7] != "MAEWOL_"}
        env |= {
            "MAEWOL_DATABASE_URL": database_url,
            "MAEWOL_BROKER_URL": broker_url,
            "MAEWOL_PORTONE_API_URL": gateway.url,
            "MAEWOL_PORTONE_IMP_KEY": "key",
            "MAEWOL_PORTONE_IMP_SECRET": "secret",
            "MAEWOL_CHARGE_CRON": "* * * * *",
            "MAEWOL_SCAN_CRON": "* * * * * */2",
        }
        book = Book(create_book_engine(database_url), database_time)
        made = Installation(Path(folder), env, book, 0, 0)
        try:
            yield made
        finally:
            book.close()
            for process in made.processes.values():
                process.kill()
                process.wait()


@contextmanager
def _full(installation: Installation, log_format: str) -> Iterator[None]:
    """Everything started with both outputs on a disk that is full."""
    env = {**installation.env, "MAEWOL_LOG_FORMAT": log_format}
    with Path("/dev/full").open("wb") as full:
        for name, words in DAEMONS.items():
            installation.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=installation.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=full,
                stderr=full,
            )
        yield


def _everybody_is_charged_once(installation: Installation, gateway: ForeignGateway) -> None:
    installation.enrol(*range(CUSTOMERS))
    installation.wait(lambda: installation.paid() == CUSTOMERS, "not all were charged")
    told = query(installation.book, "SELECT kind FROM events WHERE kind LIKE 'attempt.%'")
    assert told.count(("attempt.approved",)) == CUSTOMERS, "and it is written down"
    assert len(gateway.paid()) == CUSTOMERS


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_who_cannot_write_a_log_charges_and_records(
    installation: Installation, gateway: ForeignGateway, log_format: str
) -> None:
    with _full(installation, log_format):
        _everybody_is_charged_once(installation, gateway)
        # In order, and by itself: parting words that cannot be written keep nobody.
        codes = {name: installation.stop(name) for name in list(installation.processes)}
    # 120 is the interpreter's own, for lines that it could not write at its end.
    assert set(codes.values()) <= {0, 120}, codes


def test_a_host_in_another_time_zone_charges_by_seouls_days(
    installation: Installation, gateway: ForeignGateway
) -> None:
    for name, words in DAEMONS.items():
        installation.start(name, *words, TZ="America/Los_Angeles")
    before = datetime.now(SEOUL)
    _everybody_is_charged_once(installation, gateway)
    months = query(installation.book, "SELECT DISTINCT month, paid_at FROM cycles")
    assert {month for month, _ in months} == {before.date().replace(day=1)}
    assert all(before <= paid_at.astimezone(SEOUL) for _, paid_at in months if paid_at)
    # The window ends as a day of Seoul's does, and of no other place's.
    ends = query(installation.book, "SELECT closes_at FROM cycles")
    assert {at.astimezone(SEOUL).time() for (at,) in ends} == {time(0)}
