"""Throw-away databases for simulations, on a private PostgreSQL that forgets on a power cut.

One for each process that simulates: what one has open, of any database, keeps the dead rows of all.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url

from billing.embedded import running
from billing.store import schema
from billing.store.session import create_book_engine
from billing.store.tables import Base

# One row each: what a run changed in them is put back with the row itself.
_SINGLE_ROWS = ("installation", "gateway_health", "receiver")


@contextlib.contextmanager
def server(announce: Callable[[str], None]) -> Iterator[str]:
    """The address of a PostgreSQL of our own. Raises `EmbeddedServerError`."""
    with tempfile.TemporaryDirectory(prefix="mw-sim-", ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        # Root's private servers run as another user, who must get in.
        path.chmod(0o755)
        with running(path / "data", broker=False, durable=False, announce=announce) as servers:
            if servers.database_url is None:
                raise AssertionError("a database was asked for")
            _keep_to_one_order(servers.database_url)
            yield servers.database_url


def _keep_to_one_order(url: str) -> None:
    """Of equal rows, of which a batch takes only some, those come that lie first in their table,
    and where a row lies depends on when what is dead there was cleared away. PostgreSQL does that
    by what is read and written, which a seed decides, once nobody else does anything."""
    for setting in ("autovacuum = off", "max_parallel_workers_per_gather = 0"):
        _admin(url, f"ALTER SYSTEM SET {setting}")
    _admin(url, "SELECT pg_reload_conf()")


@contextlib.contextmanager
def database(server_url: str, name: str = "") -> Iterator[Engine]:
    """An empty migrated book on a server, gone after the block."""
    name = name or f"maewol_simulation_{os.getpid()}"
    _admin(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    _admin(server_url, f'CREATE DATABASE "{name}"')
    url = make_url(server_url).set(database=name).render_as_string(hide_password=False)
    engine = create_book_engine(url, pool_size=1, pre_ping=False)
    event.listen(engine, "connect", _plan_once)
    try:
        schema.upgrade(engine)
        with engine.begin() as connection:
            for table in Base.metadata.tables:
                # What the background vacuum does at its own time would change the order of rows
                # that no query asks for, and with it a run.
                connection.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = false)"))
        yield engine
    finally:
        engine.dispose()
        _admin(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _plan_once(connection: psycopg.Connection[Any], _: object) -> None:
    """A simulated year is thousands of small statements, of which planning is the larger part.

    A rollback makes the driver forget what it has prepared: so whoever only reads commits, too."""
    connection.execute("SET plan_cache_mode = force_generic_plan")
    connection.commit()


def empty(engine: Engine) -> None:
    """Make the book as new: no rows, and numbers start at 1 again."""
    tables = ", ".join(name for name in Base.metadata.tables if name not in _SINGLE_ROWS)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
        for name in _SINGLE_ROWS:
            connection.execute(text(f"DELETE FROM {name}"))  # noqa: S608 - our own names
            connection.execute(text(f"INSERT INTO {name} (id) VALUES (1)"))  # noqa: S608


def _admin(url: str, statement: str) -> None:
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
