"""Transactions on the book: how they are opened, made again, and what their errors tell."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import psycopg
import psycopg.errors
import pytest
from sqlalchemy import Engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InternalError, TimeoutError

from billing.domain.calendar import LAST_MOMENT
from billing.store import events, session
from billing.store.session import (
    TRIES,
    Book,
    Transaction,
    allowed_connections,
    by_index,
    by_index_impatiently,
    by_index_in_order,
    create_book_engine,
    is_away,
    single,
)
from billing.store.tables import GatewayHealth
from tests.builders import query
from tests.conftest import MovedClock

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
HOW = (
    "plan_cache_mode",
    *(f"enable_{way}" for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "material")),
    "enable_sort",
    "lock_timeout",
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = create_book_engine(database_url)
    yield opened
    opened.dispose()


# -- how it reads ---------------------------------------------------------------------------------


def _how(tx: Transaction) -> tuple[str, ...]:
    return tuple(tx.session.execute(text(f"SHOW {name}")).scalar_one() for name in HOW)


def test_by_index_until_the_transaction_ends(book: Book) -> None:
    only_indexes = ("force_custom_plan", *["off"] * 5)
    usual = ("auto", *["on"] * 6, "20s")
    for choose, as_well in (
        (by_index, ("on", "20s")),
        (by_index_impatiently, ("on", "1s")),
        (by_index_in_order, ("off", "20s")),
    ):
        with book.transaction() as tx:
            assert _how(tx) == usual
            choose(tx.session)
            assert _how(tx) == (*only_indexes, *as_well)
    with book.transaction() as tx:
        assert _how(tx) == usual


def test_a_row_of_which_there_is_one_is_read_once(engine: Engine) -> None:
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
    with Book(engine, lambda _: NOW).transaction() as tx:
        # Nobody holds it between the two.
        assert single(tx.session, GatewayHealth).failures == 0
        assert single(tx.session, GatewayHealth).failures == 0
    assert len([one for one in seen if "gateway_health" in one]) == 1


def test_a_row_can_be_read_when_its_transaction_is_over(book: Book) -> None:
    with book.transaction() as tx:
        written = single(tx.session, GatewayHealth)
    with book.snapshot() as tx:
        read = single(tx.session, GatewayHealth)
    assert (written.failures, read.failures) == (0, 0)


def test_a_moment_beyond_all_calendars_is_read_as_its_end(engine: Engine) -> None:
    with Book(engine, lambda _: NOW).transaction() as tx:
        far = tx.session.execute(text("SELECT CAST('infinity' AS timestamptz)")).scalar_one()
    assert far == LAST_MOMENT


def test_a_snapshot_stays_as_it_was_and_writes_nothing(book: Book) -> None:
    def count(tx: Transaction) -> int:
        return int(tx.session.execute(text("SELECT count(*) FROM events")).scalar_one())

    with book.snapshot() as early:
        assert count(early) == 0
        with book.transaction() as tx:
            events.add(tx.session, at=tx.now, kind="clock.skewed")
        assert count(early) == 0
    with book.snapshot(staging=True) as tx:
        assert count(tx) == 1
        tx.session.execute(text("CREATE TEMPORARY TABLE beside (id int)"))
    with pytest.raises(InternalError, match="read-only"), book.snapshot() as tx:
        tx.session.execute(text("CREATE TEMPORARY TABLE beside (id int)"))


def test_a_transaction_has_one_moment_and_keeps_nothing_of_one_that_broke(
    book: Book, clock: MovedClock
) -> None:
    def breaks(tx: Transaction) -> None:
        assert tx.now == clock.now
        events.add(tx.session, at=tx.now, kind="clock.skewed")
        events.write(tx.session)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        book.run(breaks)
    with book.snapshot() as tx:
        assert tx.now == clock.now
    assert query(book, "SELECT count(*) FROM events") == [(0,)]


# -- made again -----------------------------------------------------------------------------------


def _lost(error: Exception) -> DBAPIError:
    return DBAPIError("SELECT 1", None, error)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.SerializationFailure,
        psycopg.errors.DeadlockDetected,
        psycopg.errors.LockNotAvailable,
    ],
)
def test_what_lost_is_made_again_a_few_times(
    engine: Engine, error: type[psycopg.Error], monkeypatch: pytest.MonkeyPatch
) -> None:
    spread: list[tuple[float, float]] = []

    def widest(low: float, high: float) -> float:
        spread.append((low, high))
        return high

    monkeypatch.setattr(random, "uniform", widest)
    paused: list[float] = []
    book = Book(engine, lambda _: NOW, pause=paused.append)
    tried: list[int] = []

    def step(tx: Transaction) -> int:
        tried.append(1)
        if len(tried) < wins_at:
            raise _lost(error())
        return 7

    wins_at = TRIES
    assert book.run(step) == 7
    assert paused == [0.04, 0.08, 0.16, 0.32]
    assert spread == [(0, wait) for wait in paused], "those that lost together come back apart"
    tried.clear()
    paused.clear()
    wins_at = TRIES + 1
    with pytest.raises(DBAPIError):
        book.run(step)
    assert (len(tried), len(paused)) == (TRIES, TRIES - 1)
    tried.clear()
    with pytest.raises(DBAPIError):
        book.run(step, tries=1)
    assert len(tried) == 1


def test_what_broke_otherwise_is_not_made_again(engine: Engine) -> None:
    def step(tx: Transaction) -> None:
        tried.append(1)
        raise _lost(psycopg.errors.UniqueViolation())

    tried: list[int] = []
    with pytest.raises(DBAPIError):
        Book(engine, lambda _: NOW, pause=lambda _: None).run(step)
    assert len(tried) == 1


# -- what an error tells --------------------------------------------------------------------------


class _Said(psycopg.Error):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (ValueError("no error of a database"), False),
        (TimeoutError("every connection is in use"), True),
        (_lost(psycopg.OperationalError("connection refused")), True),
        (_lost(psycopg.InterfaceError("the connection is closed")), True),
        (_lost(psycopg.DataError("a value of ours")), False),
        *((_lost(_Said(state)), True) for state in ("08006", "57P01", "25006", "53300", "58030")),
        *((_lost(_Said(state)), False) for state in ("57014", "23505", "40001", "55P03")),
        # Whatever the driver calls it, the server has answered.
        (_lost(psycopg.errors.QueryCanceled()), False),
    ],
)
def test_whether_the_database_is_away(error: BaseException, *, away: bool) -> None:
    assert is_away(error) is away


def test_an_error_does_not_tell_the_row(engine: Engine) -> None:
    book = Book(engine, lambda _: NOW)
    line = "INSERT INTO buyers (subscription_id, name) VALUES (7, '홍길동')"
    with pytest.raises(IntegrityError) as caught, book.transaction() as tx:
        tx.session.execute(text(line.replace("'홍길동'", ":name")), {"name": "홍길동"})
    told = f"{caught.value!s} {caught.value.orig!s} {caught.value.args} {caught.value.orig!r}"
    assert "buyers" in told
    assert "홍길동" not in told
    assert "DETAIL" not in told
    assert "(7)" not in told


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ((), ()),
        ((7, "a\nb"), (7, "a\nb")),
        (("a\nb", "c", "d"), ("a", "c", "d")),
    ],
)
def test_of_what_an_error_holds_the_first_line_stays(
    given: tuple[object, ...], left: tuple[object, ...]
) -> None:
    error = Exception(*given)
    for told in (error, None):
        context: Any = SimpleNamespace(original_exception=error, sqlalchemy_exception=told)
        session._without_rows(context)
        assert error.args == left


# -- connections ----------------------------------------------------------------------------------


def test_how_a_connection_is_made(engine: Engine) -> None:
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        given = raw.info.get_parameters()
        for name, value in (("statement_timeout", "1min"), ("jit", "off"), ("timezone", "UTC")):
            assert connection.execute(text(f"SHOW {name}")).scalar_one() == value
    wanted = {
        "connect_timeout": "10",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "30000",
        "application_name": "maewol",
        "client_encoding": "utf8",
    }
    assert {name: given.get(name) for name in wanted} == wanted
    assert engine.hide_parameters


def test_a_book_that_is_closed_holds_no_connection(engine: Engine) -> None:
    book = Book(engine, lambda _: NOW)
    with book.transaction() as tx:
        tx.session.execute(text("SELECT 1"))
    pool: Any = engine.pool
    assert pool.checkedin() == 1
    book.close()
    pool = engine.pool
    assert pool.checkedin() == 0


def test_so_many_connections_and_as_many_more(database_url: str, engine: Engine) -> None:
    pool: Any = engine.pool
    assert (pool.size(), pool._max_overflow, pool._pre_ping) == (5, 5, True)
    assert session.MOST_CONNECTIONS == 10
    other = create_book_engine(database_url, pool_size=2, pre_ping=False)
    pool = other.pool
    assert (pool.size(), pool._max_overflow, pool._pre_ping) == (2, 2, False)
    other.dispose()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_whatever_the_address_calls_it_the_driver_is_ours(scheme: str, database_url: str) -> None:
    address = make_url(database_url).set(drivername=scheme)
    engine = create_book_engine(address.render_as_string(hide_password=False))
    assert engine.url.drivername == "postgresql+psycopg"
    assert engine.url.database == address.database
    engine.dispose()


def test_how_many_connections_others_may_have(engine: Engine) -> None:
    with engine.connect() as connection:
        most, kept = (
            int(connection.execute(text(f"SHOW {name}")).scalar_one())
            for name in ("max_connections", "superuser_reserved_connections")
        )
    assert allowed_connections(engine) == most - kept
