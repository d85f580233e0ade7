"""The ledger file: SQLite, one table per kind of row, written in groups, before any answer.

A request is answered only after what it changed is on the disk, so a sandbox that is killed has
forgotten nothing that anybody was told. Requests that come while the disk works share one commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from billing.sandbox.model import BillingKey, Payment, Prepared, Schedule, Seen

Row = Payment | BillingKey | Schedule | Prepared | Seen
R = TypeVar("R", Payment, BillingKey, Schedule, Prepared, Seen)

# Raised whenever a table changes: an older file is refused, not misread.
_VERSION = 2

_TABLES: dict[type[Row], tuple[str, str]] = {
    Payment: ("payments", "number"),
    BillingKey: ("billing_keys", "customer_uid"),
    Schedule: ("schedules", "merchant_uid"),
    Prepared: ("prepared", "merchant_uid"),
    Seen: ("requests", "number"),
}
_COLUMN_TYPES = {int: "INTEGER", bool: "INTEGER", float: "REAL"}


class LedgerFileError(Exception):
    """The ledger file cannot be used: in use, damaged, or not one of ours. Names the remedy."""


class Journal:
    """Writes rows to `path`, or nowhere when it is None. Raises `LedgerFileError`."""

    def __init__(self, path: Path | None) -> None:
        self._pending: list[Row] = []
        self._notes: dict[str, str] = {}
        self._committed: asyncio.Future[None] | None = None
        self._connection = None if path is None else _opened(path)

    def write(self, row: Row) -> None:
        """Have `row` written with the next commit; a row with the same key is replaced."""
        if self._connection is not None:
            self._pending.append(row)

    def note(self, name: str, text: str) -> None:
        """Keep a single value, such as the clock's offset."""
        if self._connection is not None:
            self._notes[name] = text

    def noted(self, name: str) -> str | None:
        """A value kept by `note`, None when there is none."""
        if self._connection is None:
            return None
        found = self._connection.execute("SELECT text FROM notes WHERE name = ?", (name,))
        row = found.fetchone()
        return None if row is None else str(row[0])

    def rows(self, kind: type[R]) -> Iterator[R]:
        """All rows of a kind as they were written, oldest first."""
        if self._connection is None:
            return
        table, key = _TABLES[kind]
        order = "rowid" if kind is not Seen and kind is not Payment else key
        read = _reader(kind)
        for values in self._connection.execute(
            f"SELECT {', '.join(_names(kind))} FROM {table} ORDER BY {order}"  # noqa: S608 (no text from outside)
        ):
            yield read(values)

    async def committed(self) -> None:
        """Return once everything written so far is on the disk. Raises `sqlite3.Error`: nothing
        was lost then, the next commit takes it along."""
        if not self._pending and not self._notes:
            return
        if self._committed is None:
            loop = asyncio.get_running_loop()
            self._committed = loop.create_future()
            # At the end of this turn of the loop: whoever is served in the same turn joins.
            loop.call_soon(self._commit_for_all, self._committed)
        await asyncio.shield(self._committed)

    def commit(self) -> None:
        """Write what is pending now. Raises `sqlite3.Error`, with everything still pending."""
        if self._connection is None or not (self._pending or self._notes):
            return
        with self._connection:
            for kind, statement in _INSERTS.items():
                of_kind = [_VALUES[kind](row) for row in self._pending if type(row) is kind]
                if of_kind:
                    self._connection.executemany(statement, of_kind)
            self._connection.executemany(
                "INSERT OR REPLACE INTO notes VALUES (?, ?)", list(self._notes.items())
            )
        self._pending.clear()
        self._notes.clear()

    def clear(self) -> None:
        """Forget everything. Raises `sqlite3.Error`."""
        self._pending.clear()
        self._notes.clear()
        if self._connection is not None:
            with self._connection:
                for table in [name for name, _ in _TABLES.values()] + ["notes"]:
                    self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 (our own names)

    def close(self) -> None:
        """Write what is pending and let go of the file."""
        self.commit()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _commit_for_all(self, waiting: asyncio.Future[None]) -> None:
        self._committed = None
        try:
            self.commit()
        except sqlite3.Error as error:
            waiting.set_exception(error)
        else:
            waiting.set_result(None)


def _opened(path: Path) -> sqlite3.Connection:
    try:
        with contextlib.ExitStack() as unless_ready:
            connection = sqlite3.connect(path, timeout=0.5)
            unless_ready.callback(connection.close)
            # One process at a time: two would give the same numbers to different payments.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _create(connection)
            unless_ready.pop_all()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            remedy = "Is another sandbox using this file?"
        else:
            remedy = "Give a file that can be written, in a folder that is there"
        raise LedgerFileError(f"{path}: {error}. {remedy}") from None
    except sqlite3.DatabaseError as error:
        raise LedgerFileError(f"{path}: {error}. Give the name of a new file") from None
    return connection


def _create(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and version != _VERSION:
        raise sqlite3.DatabaseError(f"not a ledger of this version ({version}, not {_VERSION})")
    with connection:
        for kind, (table, key) in _TABLES.items():
            columns = ", ".join(f"{name} {_column_type(kind, name)}" for name in _names(kind))
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {table} ({columns}, PRIMARY KEY ({key}))"
            )
        connection.execute("CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, text TEXT)")
        connection.execute(f"PRAGMA user_version = {_VERSION}")


def _names(kind: type[Row]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _column_type(kind: type[Row], name: str) -> str:
    return _COLUMN_TYPES.get(get_type_hints(kind)[name], "TEXT") + " NOT NULL"


def _reader(kind: type[R]) -> Callable[[tuple[Any, ...]], R]:
    """Puts enums and booleans back, which SQLite keeps as text and numbers."""
    hints = get_type_hints(kind)
    turned = [
        (place, hints[name])
        for place, name in enumerate(_names(kind))
        if hints[name] is bool or issubclass(hints[name], StrEnum)
    ]

    def read(values: tuple[Any, ...]) -> R:
        whole = list(values)
        for place, turn in turned:
            whole[place] = turn(whole[place])
        return kind(*whole)

    return read


_VALUES = {kind: attrgetter(*_names(kind)) for kind in _TABLES}
_INSERTS = {
    kind: f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(_names(kind)))})"  # noqa: S608
    for kind, (table, _) in _TABLES.items()
}
