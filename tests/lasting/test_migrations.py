"""Migrations run while charging goes on, and say which code they serve."""

from __future__ import annotations

import importlib.util
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

import migrations
from billing.domain.brake import why_brake
from billing.embedded import Servers
from billing.store import schema
from billing.store.session import create_book_engine
from tests.builders import plain
from tests.conftest import a_database
from tests.lasting.online_rules import problems

# Before the first release nobody had a book, so that the first migrations had no rules.
RULES_FROM = "0006"
VERSIONS = sorted(Path(migrations.__file__).parent.glob("versions/v*.py"))
NEWEST = VERSIONS[-1].name[1:5]
AFTER_IT = f"{int(NEWEST) + 1:04d}"
_STAMP = re.compile(r"(?:UPDATE|INSERT INTO) alembic_version .*?'(\d{4})'", re.S)


@pytest.fixture
def empty(servers: Servers) -> Iterator[Engine]:
    with a_database(servers, "template1") as url:
        engine = create_book_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_book_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """The migration after the newest, with these steps, and the code that it still serves."""
    copy = tmp_path / "migrations"
    shutil.copytree(Path(migrations.__file__).parent, copy)

    def make(steps: str, works_with: str) -> None:
        (copy / "versions" / f"v{AFTER_IT}_planted.py").write_text(
            f'from alembic import op\nrevision = "{AFTER_IT}"\ndown_revision = "{NEWEST}"\n'
            f'works_with = "{works_with}"\n\n\ndef upgrade():\n{steps}\n'
        )
        monkeypatch.setattr(migrations, "__file__", str(copy / "__init__.py"))

    return make


def _module(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_migration_follows_the_rules(empty: Engine) -> None:
    """By what it really sends to the database."""
    sent: dict[str, list[str]] = {}
    waiting: list[str] = []

    @event.listens_for(empty, "before_cursor_execute")
    def note(_c: object, _u: object, statement: str, parameters: object, *_: object) -> None:
        waiting.append(statement)
        if "alembic_version" in statement and (stamp := _STAMP.search(f"{statement} {parameters}")):
            sent[stamp[1]] = waiting[:-1]
            waiting.clear()

    schema.upgrade(empty)
    assert list(sent) == [path.name[1:5] for path in VERSIONS]
    for path in VERSIONS:
        revision = path.name[1:5]
        if revision >= RULES_FROM:
            contracts = bool(getattr(_module(path), "contracts", ""))
            assert list(problems(sent[revision], contracts=contracts)) == [], path.name


def test_every_migration_says_which_code_it_serves() -> None:
    known = [path.name[1:5] for path in VERSIONS]
    oldest = "0000"
    for path in VERSIONS:
        if (revision := path.name[1:5]) >= RULES_FROM:
            works_with = getattr(_module(path), "works_with", None)
            assert works_with in known, path.name
            assert oldest <= works_with <= revision, "what was left behind stays left behind"
            oldest = works_with


PLANTED = [
    ("CREATE INDEX ix_x ON events (at)", "CONCURRENTLY"),
    ("CREATE UNIQUE INDEX ix_x ON cycles (id)", "CONCURRENTLY"),
    ("DROP INDEX ix_events_alarms", "CONCURRENTLY"),
    ("ALTER TABLE cycles ADD COLUMN a text NOT NULL", "older code does not fill"),
    ("ALTER TABLE cycles ALTER COLUMN reason TYPE varchar(64)", "writes the table anew"),
    ("ALTER TABLE cycles ALTER COLUMN reason SET NOT NULL", "reads the whole table"),
    ("ALTER TABLE cycles ADD CONSTRAINT ck_x CHECK (id > 0)", "NOT VALID"),
    ("ALTER TABLE cycles ADD CONSTRAINT fk_x FOREIGN KEY (id) REFERENCES a (id)", "NOT VALID"),
    ("ALTER TABLE cycles DROP COLUMN reason", "later release"),
    ("ALTER TABLE cycles RENAME COLUMN reason TO why", "later release"),
    ("DROP TABLE webhooks", "later release"),
    ("UPDATE attempts SET fence = 0", "by a tick"),
    ("DELETE FROM notices", "by a tick"),
    ("LOCK TABLE events", "locked by hand"),
]


@pytest.mark.parametrize(("statement", "why"), PLANTED)
def test_a_migration_against_the_rules_is_found(statement: str, why: str) -> None:
    (found,) = problems([statement])
    assert why in found


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE INDEX CONCURRENTLY ix_x ON events (at)"],
        ["CREATE TABLE a (id bigint)", "CREATE INDEX ix_a ON a (id)"],
        ["ALTER TABLE cycles ADD COLUMN a text"],
        ["ALTER TABLE cycles ADD COLUMN a bigint DEFAULT 0 NOT NULL"],
        ["ALTER TABLE cycles ADD CONSTRAINT ck_x CHECK (id > 0) NOT VALID"],
        ["ALTER TABLE cycles VALIDATE CONSTRAINT ck_x"],
        ["UPDATE installation SET key = key"],
    ],
)
def test_what_the_rules_allow_is_let_through(statements: list[str]) -> None:
    assert list(problems(statements)) == []


def test_what_takes_away_may_once_the_code_is_gone() -> None:
    assert list(problems(["ALTER TABLE cycles DROP COLUMN reason"], contracts=True)) == []


def test_a_busy_table_is_let_go_and_tried_again(
    engine: Engine, database_url: str, plant: Callable[[str, str], None]
) -> None:
    """A migration that waits for a table would make every charge behind it wait."""
    plant('    op.execute("ALTER TABLE attempts ADD COLUMN planted text")', NEWEST)
    with psycopg.connect(plain(database_url)) as long_running:
        long_running.execute("SELECT count(*) FROM attempts")
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            with psycopg.connect(plain(database_url), options="-c lock_timeout=500") as charging:
                charging.execute("SELECT id FROM attempts LIMIT 1")
            if len(pauses) == 2:
                long_running.rollback()

        assert schema.upgrade(engine, pause=pause) == AFTER_IT
    assert len(pauses) == 2
    assert schema.current(engine) == AFTER_IT


def test_a_table_that_stays_busy_ends_the_migration_and_not_the_charging(
    engine: Engine,
    database_url: str,
    plant: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schema, "_TRIES", 2)
    monkeypatch.setattr(schema, "_LOCK_TIMEOUT", "100ms")
    plant('    op.execute("ALTER TABLE attempts ADD COLUMN planted text")', NEWEST)
    with psycopg.connect(plain(database_url)) as long_running:
        long_running.execute("SELECT count(*) FROM attempts")
        with pytest.raises(DBAPIError, match="lock timeout"):
            schema.upgrade(engine, pause=lambda _: None)
    assert schema.current(engine) == NEWEST
    assert schema.upgrade(engine) == AFTER_IT


def test_an_index_is_made_while_others_write(
    engine: Engine, database_url: str, plant: Callable[[str, str], None]
) -> None:
    """As docs/rolling.md writes it; the advisory lock of the migration does not stand in the way of
    a second one, which waits and finds nothing to do."""
    plant(
        "    with op.get_context().autocommit_block():\n"
        '        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_planted")\n'
        '        op.execute("CREATE INDEX CONCURRENTLY ix_planted ON attempts (sent_at)")',
        NEWEST,
    )
    other = create_book_engine(database_url)
    beside = threading.Thread(target=schema.upgrade, args=(other,))
    beside.start()
    assert schema.upgrade(engine) == AFTER_IT
    beside.join(60)
    assert not beside.is_alive()
    other.dispose()
    with engine.connect() as connection:
        valid = connection.exec_driver_sql(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_planted'::regclass"
        )
        assert valid.scalar_one()


@pytest.mark.parametrize(("works_with", "fits"), [(NEWEST, True), (AFTER_IT, False)])
def test_older_code_goes_on_exactly_where_the_newer_schema_says_so(
    engine: Engine,
    plant: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    works_with: str,
    fits: bool,
) -> None:
    ours = migrations.__file__
    plant("    pass", works_with)
    schema.upgrade(engine)
    assert schema.fits(engine)
    monkeypatch.setattr(migrations, "__file__", ours)
    assert schema.wanted() == NEWEST
    assert schema.fits(engine) is fits


@pytest.mark.parametrize(
    ("why", "by_brake"),
    [
        (why_brake("ooo"), True),
        (why_brake("sssss"), True),
        (why_brake("a" * 30 + "sa" * 10), True),
        ("held by hand", False),
        (None, False),
    ],
)
def test_a_hold_that_stands_while_0011_runs_keeps_who_it_was(
    engine: Engine, why: str | None, by_brake: bool
) -> None:
    migration: Any = _module(next(path for path in VERSIONS if path.name.startswith("v0011")))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE installation DROP COLUMN held_by_brake"))
        connection.execute(text("UPDATE installation SET hold_reason = :why"), {"why": why})
        with Operations.context(MigrationContext.configure(connection)):
            migration.upgrade()
        found = connection.execute(text("SELECT held_by_brake FROM installation")).scalar_one()
    assert found is by_brake
