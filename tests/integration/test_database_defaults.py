"""A server, a database or a role with defaults of its own: what ours do not depend on, and what
`doctor` tells of."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, make_url, text

from billing.embedded import running
from billing.services.doctor import Check, examine
from billing.store.session import Book, create_book_engine
from tests.builders import plain
from tests.conftest import version_of


@pytest.mark.parametrize(
    ("setting", "value", "ours"),
    [
        ("default_transaction_isolation", "serializable", "read committed"),
        ("client_encoding", "EUC_KR", "UTF8"),
        ("timezone", "Asia/Seoul", "UTC"),
        ("jit", "on", "off"),
        ("statement_timeout", "1ms", "1min"),
        ("lock_timeout", "1ms", "20s"),
    ],
)
def test_what_ours_do_not_depend_on(database_url: str, setting: str, value: str, ours: str) -> None:
    name = make_url(database_url).database
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'".encode())
    with psycopg.connect(plain(database_url)) as connection:
        shown = connection.execute(f"SHOW {setting}".encode()).fetchone()
        assert shown == (value,), "the database has it"
    with _opened(database_url) as engine, engine.begin() as ours_own:
        assert ours_own.execute(text(f"SHOW {setting}")).scalar_one() == ours


def test_a_snapshot_is_one_all_the_same(database_url: str) -> None:
    with _opened(database_url) as engine:
        book = Book(engine, lambda _: datetime.now(UTC))
        isolation = text("SHOW transaction_isolation")
        with book.snapshot() as tx:
            assert tx.session.execute(isolation).scalar_one() == "repeatable read"
        with book.transaction() as tx:
            assert tx.session.execute(isolation).scalar_one() == "read committed"


def test_a_database_that_cannot_write_every_name_down() -> None:
    with tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder) / "data", broker=False, durable=False) as servers:
            url = str(servers.database_url)
            # PostgreSQL 14 has no other, and no word for it.
            libc = "" if version_of(url) < 15 else "LOCALE_PROVIDER libc"
            _administer(
                url,
                f"CREATE DATABASE korean TEMPLATE template0 ENCODING 'EUC_KR' {libc} LOCALE 'C'",
            )
            korean = make_url(url).set(database="korean").render_as_string(hide_password=False)
            with _opened(korean) as engine:
                found = _checks(engine)["database"]
                assert not found.ok
                assert found.detail[0].values["encoding"] == "EUC_KR"


@contextlib.contextmanager
def _opened(url: str) -> Iterator[Engine]:
    engine = create_book_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def _checks(engine: Engine) -> dict[str, Check]:
    found = examine(Book(engine, lambda _: datetime.now(UTC)), engine)
    return {one.name: one for one in found}


def _administer(url: str, statement: str) -> None:
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute(statement.encode())
