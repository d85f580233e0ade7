"""Transactions on the book. Services open them; the store never commits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

import psycopg
import psycopg.errors
from sqlalchemy import Engine, TextClause, create_engine, event, select, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, TimeoutError
from sqlalchemy.orm import Session

from billing.store import beyond, events

T = TypeVar("T")

# A transaction that lost against another is simply made again: nothing of it happened.
_MADE_AGAIN = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)
TRIES = 5

# SQLSTATE classes: connection broken; ended by an operator or a crash; not to be written just now;
# no room or connection left; trouble of its machine.
_AWAY = ("08", "57P", "25", "53", "58")

# What is left is: walk an index, and look the rest up by indexes, row for row.
_OTHER_WAYS = ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "material")
_BY_INDEX = {
    "plan_cache_mode": "force_custom_plan",
    **{f"enable_{way}": "off" for way in _OTHER_WAYS},
}


def _setting(values: Mapping[str, str]) -> TextClause:
    """Sets these until the transaction ends, by one statement."""
    parts = (f"set_config('{name}', '{value}', true)" for name, value in values.items())
    return text(f"SELECT {', '.join(parts)}")


_SET_BY_INDEX = _setting(_BY_INDEX)
_SET_IMPATIENT = _setting({**_BY_INDEX, "lock_timeout": "1000"})
_SET_IN_ORDER = _setting({**_BY_INDEX, "enable_sort": "off"})


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction and the moment, by the clock of billing, at which it began."""

    session: Session
    now: datetime


def by_index(session: Session) -> None:
    """Keep this transaction to indexes. What charging reads is always a few rows of many, but the
    planner does not know that of tables that have just been filled: its statistics are older, and
    for a book of 6,000 that was imported a minute ago the due scan took 360 ms instead of 22.
    Planned anew each time: a plan for any parameters cannot use an index of one status."""
    session.execute(_SET_BY_INDEX)


def by_index_impatiently(session: Session) -> None:
    """The same, and wait a second at most for rows that somebody else has locked: many wait with
    this transaction."""
    session.execute(_SET_IMPATIENT)


def by_index_in_order(session: Session) -> None:
    """The same, and to indexes that have the wanted order: where only the first few of many open
    months are wanted, the planner may read all of them and sort."""
    session.execute(_SET_IN_ORDER)


def is_away(error: BaseException) -> bool:
    """Whether the database could not be asked at all, rather than refuse what it was asked."""
    if not isinstance(error, DBAPIError):
        # All connections are in use, by those who wait for a database that is away.
        return isinstance(error, TimeoutError)
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        return isinstance(error.orig, (psycopg.OperationalError, psycopg.InterfaceError))
    return str(state).startswith(_AWAY)


def single(session: Session, table: type[T]) -> T:
    """The row of a table that has just one, read once in a transaction. Held here, since a session
    forgets rows that nobody holds, and would read them again."""
    held: dict[type[object], object] = session.info.setdefault("single", {})
    if table not in held:
        held[table] = session.execute(select(table)).scalar_one()
    return cast(T, held[table])


def copy_rows(session: Session, statement: str, rows: Iterable[Sequence[Any]]) -> None:
    """Stream rows into the table of a `COPY … FROM STDIN`. What PostgreSQL does not take raises the
    driver's own error without the row: SQLAlchemy, and so `_without_rows`, never sees a COPY."""
    connection: psycopg.Connection[Any] = session.connection().connection.driver_connection  # type: ignore[assignment]
    if (failed := _copied(connection, statement, rows)) is not None:
        # Raised out here, so that no context, and no frame's variables, lead to the row.
        raise failed from None


def _copied(
    connection: psycopg.Connection[Any], statement: str, rows: Iterable[Sequence[Any]]
) -> psycopg.Error | None:
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        said = _first_line(str(error))
        if isinstance(error, psycopg.DataError):
            # The first line, too, quotes a value that does not fit its column.
            said = said.partition('"')[0].rstrip(": ")
        return type(error)(said)
    return None


class Book:
    """The way to the database: opens transactions and tells each the moment it began."""

    def __init__(
        self,
        engine: Engine,
        moment: Callable[[Session], datetime],
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine = engine
        self._moment = moment
        self._pause = pause

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commits at the end of the block, rolls back on any exception."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield Transaction(session, self._moment(session))
            events.write(session)

    @contextmanager
    def snapshot(self, *, staging: bool = False) -> Iterator[Transaction]:
        """For reading only: every statement sees the book as it was at the first, so that what two
        of them say of the same rows agrees. `staging` allows temporary tables."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            session.connection(
                execution_options={
                    "isolation_level": "REPEATABLE READ",
                    # PostgreSQL makes no table at all in a transaction that only reads.
                    "postgresql_readonly": not staging,
                }
            )
            yield Transaction(session, self._moment(session))

    def run(self, step: Callable[[Transaction], T], tries: int = TRIES) -> T:
        """Run `step` in a transaction of its own, again when it lost to a concurrent one.

        `step` must do nothing but read and write the book: it may run several times.
        """
        for tried in range(1, tries + 1):
            try:
                with self.transaction() as tx:
                    return step(tx)
            except DBAPIError as error:
                if tried == tries or not isinstance(error.orig, _MADE_AGAIN):
                    raise
                self._pause(random.uniform(0, 0.02 * 2**tried))  # noqa: S311 - spreads retries only
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._engine.dispose()


# Connections of one process that are kept; as many more are opened at need.
_POOL_SIZE = 5
MOST_CONNECTIONS = 2 * _POOL_SIZE
_ALLOWED = text(
    "SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END)"
    " FROM pg_settings WHERE name IN ('max_connections', 'superuser_reserved_connections')"
)


def allowed_connections(engine: Engine) -> int:
    """How many connections the server allows to those who are no superusers, all together."""
    with engine.connect() as connection:
        return int(connection.execute(_ALLOWED).scalar_one())


def create_book_engine(url: str, *, pool_size: int = _POOL_SIZE, pre_ping: bool = True) -> Engine:
    """An engine whose errors never print rows; with `pre_ping` dead connections are noticed."""
    address = make_url(url)
    if address.drivername in {"postgresql", "postgres"}:
        address = address.set(drivername="postgresql+psycopg")
    engine = create_engine(
        address,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=pre_ping,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 10,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            # Keepalives wait while a statement is unacknowledged, and the kernel then tries for a
            # quarter of an hour: a half-open connection must not leave a worker deaf for longer
            # than a minute.
            "tcp_user_timeout": 30_000,
            "application_name": "maewol",
            "client_encoding": "utf8",
            # A statement or an idle transaction that hangs must not hold rows for ever.
            # Up to PostgreSQL 17 a way that `by_index` forbids is priced at ten thousand million:
            # every claim and due scan would be compiled first, in 30 to 400 ms.
            "options": "-c statement_timeout=60000 -c idle_in_transaction_session_timeout=60000"
            " -c lock_timeout=20000 -c timezone=UTC -c jit=off"
            # What was locked is read anew after a wait; a role or server may have another default.
            r" -c default_transaction_isolation=read\ committed",
        },
    )
    event.listen(engine, "connect", beyond.read_it)
    event.listen(engine, "handle_error", _without_rows)
    return engine


def _without_rows(context: ExceptionContext) -> None:
    """After its first line PostgreSQL's message may show the row (DETAIL), which is somebody's; and
    whatever an error says ends up in logs and in Flower."""
    for error in (context.original_exception, context.sqlalchemy_exception):
        if error is not None and error.args and isinstance(error.args[0], str):
            error.args = (_first_line(error.args[0]), *error.args[1:])


def _first_line(message: str) -> str:
    return message.partition("\n")[0]
