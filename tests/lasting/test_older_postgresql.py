"""A month on each PostgreSQL that this machine has beside the one that the tests bring along, and
on the one that POSTGRES_BIN names."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import TextClause, text

from billing.domain.policy import BillingPolicy
from billing.domain.refund import RefundStatus
from billing.embedded import programs, running
from billing.portone.client import PortOneClient
from billing.services import refund
from billing.services.forecast import due
from billing.services.inquire import inquire
from billing.services.invariants import broken
from billing.services.report import report
from billing.store import schema
from billing.store.session import Book, Transaction, by_index, create_book_engine
from tests.builders import plain, query, sealed
from tests.conftest import MovedClock
from tests.town import Town

# PostgreSQL may be built without a compiler, and from 18 on a forbidden way has no price.
_COULD_BE = text(
    "SELECT pg_jit_available() AND current_setting('server_version_num')::int < 180000"
)
OTHERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
OTHERS += [Path(named) / "postgres" for named in (os.environ.get("POSTGRES_BIN"),) if named]


@pytest.mark.skipif(not OTHERS, reason="this machine has no PostgreSQL of its own")
@pytest.mark.parametrize("program", OTHERS, ids=str)
def test_a_month_goes_its_way(
    program: Path,
    make_policy: Callable[..., BillingPolicy],
    monkeypatch: pytest.MonkeyPatch,
    clock: MovedClock,
) -> None:
    monkeypatch.setattr(programs, "_postgres_folders", lambda: iter([program.parent]))
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    policy = make_policy(charge_cron="* * * * *", charges_per_second=0)
    with tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder) / "data", broker=False, durable=False) as servers:
            assert servers.database_url is not None
            with psycopg.connect(plain(servers.database_url)) as connection:
                assert f" {connection.info.server_version // 10000}." in told
            engine = create_book_engine(servers.database_url)
            schema.upgrade(engine)
            book = Book(engine, clock.read)
            _nothing_is_compiled(book)
            _a_month(Town(book, policy, clock))
            engine.dispose()


def _nothing_is_compiled(book: Book) -> None:
    """Up to PostgreSQL 17 a way that is forbidden is priced so high that a look at a single row is
    worth compiling: three of four charges a second were lost to it."""
    read = text("EXPLAIN (ANALYZE) SELECT hold_reason FROM installation")
    with book.transaction() as tx:
        by_index(tx.session)
        assert not _compiled(tx, read)
        tx.session.execute(text("SET LOCAL jit = on"))
        assert _compiled(tx, read) is tx.session.execute(_COULD_BE).scalar_one()


def _compiled(tx: Transaction, explain: TextClause) -> bool:
    return any("JIT" in line for line in tx.session.execute(explain).scalars())


def _a_month(town: Town) -> None:
    """Charged, lost and found, given back, reconciled, sealed, foreseen and told."""
    town.subscribe(20)
    town.wire.faults["/payments/again"] = "unanswered"
    assert set(town.charge()) == {"unknown"}
    town.wire.faults.clear()
    town.move(minutes=5)
    unknown = query(town.book, "SELECT id FROM attempts WHERE status = 'unknown'")
    town.run(lambda client: inquire(town.book, client, town.policy, [row[0] for row in unknown]))
    town.charge()
    assert query(town.book, "SELECT status, count(*) FROM cycles GROUP BY 1") == [("paid", 20)]
    town.run(lambda client: _given_back(town, client))
    town.pay_by_hand(2)
    assert town.kinds(apply=True) == ["double"]
    assert sealed(town.book) > 60
    assert broken(town.book, town.policy) == []
    assert len(list(due(town.book, town.policy, None, 40))) >= 20
    told = report(town.book, town.policy, date(2026, 11, 1))
    assert (told.figures.collected.count, told.figures.refunded.count) == (20, 1)


async def _given_back(town: Town, client: PortOneClient) -> None:
    imp_uid = town.paid_imp_uid(1)
    ((name,),) = query(
        town.book, "SELECT paid_merchant_uid FROM cycles WHERE paid_imp_uid = :it", it=imp_uid
    )
    proposal = await refund.propose(town.book, client, town.policy, name, imp_uid)
    refund_id = refund.request(town.book, proposal, "was asked for")
    done = await refund.work_on(town.book, client, town.policy, refund_id)
    assert done.status is RefundStatus.DONE
