"""Create and migrate the schema, while old and new processes work on it (docs/rolling.md).

Alembic takes time to load, and a book that is up to date, as it nearly always is, can do without.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg.errors
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

import migrations
from billing.store import grants

if TYPE_CHECKING:
    from alembic.config import Config

# Two `db upgrade` at once wait for each other.
_LOCK = 727_801_206
# A migration that waits for a table makes everybody behind it wait as well, charging included. So
# it gives up soon, lets them pass, and tries again.
_LOCK_TIMEOUT = "2s"
_TRIES = 30
_PAUSE_SECONDS = 2.0
_OLDEST_CODE = re.compile(r'^works_with = "(\d{4})"$', re.MULTILINE)


def upgrade(
    engine: Engine, *, run_role: str | None = None, pause: Callable[[float], None] = time.sleep
) -> str:
    """Create or migrate the schema; safe to run again, and while charging goes on. Returns the
    revision it is at now. `run_role` then may do what daemons do. Raises `DBAPIError` (lock not
    available) where a table stayed busy, `InvalidSetting` for a role that it cannot be."""
    with engine.connect() as connection:
        # An index on a large table takes as long as it takes.
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text(f"SET lock_timeout = '{_LOCK_TIMEOUT}'"))
        _take_turn(connection, pause)
        try:
            _migrate(connection, pause)
            if run_role is not None:
                grants.give(connection, run_role)
                connection.commit()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            # Back in the pool it is a connection like the others.
            connection.commit()
            connection.invalidate()
    return wanted()


def _take_turn(connection: Connection, pause: Callable[[float], None]) -> None:
    """Wait until no other migration runs. Asked again and again: whoever waits inside a statement
    has a snapshot, which an index that is made CONCURRENTLY would wait for in turn."""
    taken = text("SELECT pg_try_advisory_lock(:key)")
    while not connection.execute(taken, {"key": _LOCK}).scalar_one():
        connection.commit()
        pause(_PAUSE_SECONDS)
    connection.commit()


def _migrate(connection: Connection, pause: Callable[[float], None]) -> None:
    """Each migration is a transaction of its own: one that found a table busy is tried again."""
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    for tried in range(1, _TRIES + 1):
        try:
            _note_oldest_code(connection)
            command.upgrade(config, "head")
        except DBAPIError as error:
            connection.rollback()
            if tried == _TRIES or not isinstance(error.orig, psycopg.errors.LockNotAvailable):
                raise
            pause(_PAUSE_SECONDS)
        else:
            _note_oldest_code(connection)
            return


def _note_oldest_code(connection: Connection) -> None:
    """Before the first change, so that no process starts that the change would break; and after
    the last, for a book that had no place to note it in."""
    there = connection.execute(text("SELECT to_regclass('schema_rules')")).scalar_one()
    if there is not None:
        connection.execute(
            text("UPDATE schema_rules SET oldest_code = :code WHERE oldest_code < :code"),
            {"code": _oldest_code()},
        )
    connection.commit()


def fits(engine: Engine) -> bool:
    """Whether this code can work with the schema: its own, or a newer one whose migrations say that
    they serve this code, too, so that old processes go on while new ones start."""
    there = current(engine)
    if there is None or there < wanted():
        return False
    return there == wanted() or wanted() >= _oldest_served(engine)


def current(engine: Engine) -> str | None:
    """The revision the database is at, or None for an empty one."""
    with engine.connect() as connection:
        there = connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one()
        if there is None:
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version"))
        revision: str | None = found.scalar_one_or_none()
        return revision


def _oldest_served(engine: Engine) -> str:
    with engine.connect() as connection:
        found = connection.execute(text("SELECT oldest_code FROM schema_rules"))
        return str(found.scalar_one())


def wanted() -> str:
    """The revision this code was written for: that of the newest file, `v0001_the_book.py`."""
    return _versions()[-1].name[1:].partition("_")[0]


def _oldest_code() -> str:
    """The oldest code that the newest schema serves: what the newest file says by `works_with`."""
    found = _OLDEST_CODE.search(_versions()[-1].read_text(encoding="utf-8"))
    if found is None:
        raise AssertionError("the newest migration does not say which code it works with")
    return found[1]


def _versions() -> list[Path]:
    files = sorted(Path(migrations.__file__).parent.glob("versions/v[0-9]*.py"))
    if not files:
        raise AssertionError("no migration was shipped")
    return files


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
