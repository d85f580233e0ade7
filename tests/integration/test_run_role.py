"""The daemons' role of docs/security.md: what it is granted is enough, and no more.

That it is enough all tests of a book show, which work as such a role (`conftest.Shared`).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from billing.domain.errors import InvalidSetting
from billing.domain.policy import BillingPolicy
from billing.embedded import Servers
from billing.embedded.home import Home
from billing.embedded.programs import postgres_programs
from billing.services.dispatch import dispatch
from billing.services.doctor import examine
from billing.services.open_cycles import open_cycles
from billing.store import grants, schema
from billing.store.session import Book, create_book_engine
from billing.store.tables import Base
from tests.builders import RUN_ROLE, a_row, enrolled, execute, plain, query
from tests.called import Call
from tests.conftest import MovedClock, version_of
from tests.integration.test_engine import Queue

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"
NAME = "maewol_of_the_page"


@dataclass(frozen=True)
class Two:
    """A migrated database, by its owner, who is no superuser, and by the daemons' role."""

    owner: Engine
    run: Engine


@pytest.fixture
def two(servers: Servers) -> Iterator[Two]:
    """With the page's own statements, in a server that has a `maewol` already."""
    page = PAGE.read_text(encoding="utf-8")
    (statements,) = re.findall(r"```sql\n(.*?)```", page, re.S)
    run = f"{NAME}_run"
    made = statements.replace("maewol", NAME).replace("'…'", "'a password'")
    address = make_url(str(servers.database_url))
    engines = [
        create_book_engine(
            address.set(database=NAME, username=who).render_as_string(hide_password=False)
        )
        for who in (NAME, run)
    ]
    with psycopg.connect(plain(str(servers.database_url)), autocommit=True) as superuser:
        for statement in made.split(";"):
            superuser.execute(statement.encode())
        if version_of(str(servers.database_url)) < 15:
            # Whoever may connect could make tables and functions, as the page says.
            (more,) = re.findall(r"On PostgreSQL 14,[^`]+`public`[^`]+`([^`]+)`", page)
            with psycopg.connect(plain(str(address.set(database=NAME)))) as inside:
                inside.execute(more.replace("TO maewol", f"TO {NAME}").encode())
        schema.upgrade(engines[0], run_role=run)
        yield Two(*engines)
        for engine in engines:
            engine.dispose()
        superuser.execute(f"DROP DATABASE {NAME} WITH (FORCE)".encode())
        for role in (run, NAME):
            superuser.execute(f"DROP ROLE {role}".encode())


@pytest.fixture
def run_book(two: Two, clock: MovedClock) -> Iterator[Book]:
    with closing(Book(two.run, clock.read)) as book:
        yield book


def test_the_page_makes_a_role_that_imports_opens_and_hands_out(
    run_book: Book, make_policy: Callable[..., BillingPolicy]
) -> None:
    policy = make_policy(charge_cron="* * * * *")
    rows = [a_row(number, "2026-01-20T12:00:00+09:00") for number in range(3)]
    assert enrolled(run_book, policy, *rows).added == 3
    assert open_cycles(run_book, policy) == 3
    assert dispatch(run_book, Queue(), policy) == 3


FORBIDDEN = (
    "ALTER TABLE cycles ADD COLUMN x int",
    "ALTER TABLE events DISABLE TRIGGER events_are_fixed",
    "DROP TRIGGER events_are_fixed ON events",
    "SET session_replication_role = replica",
    "CREATE TABLE x (id int)",
    "CREATE FUNCTION public.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "TRUNCATE events",
    "UPDATE events SET kind = 'nothing happened'",
    "DELETE FROM events",
    "UPDATE event_seals SET events = 0",
    "DELETE FROM event_archives",
    "DELETE FROM subscriptions",
    "DELETE FROM attempts",
    "UPDATE buyers SET name = 'x'",
    "UPDATE subscriptions SET amount = amount + 1",
    "UPDATE schema_rules SET oldest_code = '9999'",
    "UPDATE alembic_version SET version_num = '0001'",
    "INSERT INTO installation (id) VALUES (1)",
)


def test_what_it_may_not(run_book: Book, policy: BillingPolicy) -> None:
    enrolled(run_book, policy, a_row(1))
    refusal = r"must be owner|permission denied|only ever added|facts .* are never changed"
    for statement in FORBIDDEN:
        with pytest.raises(DBAPIError, match=refusal):
            _tried(run_book, statement)


def _tried(book: Book, statement: str) -> None:
    with book.transaction() as tx:
        tx.session.execute(text(statement))
    raise AssertionError(f"it may: {statement}")


def test_every_table_is_thought_of() -> None:
    assert grants.GRANTS.keys() == {*Base.metadata.tables, "alembic_version"}


def _has(engine: Engine, role: str) -> set[str]:
    """What a role was given on tables and their columns, as PostgreSQL keeps it."""
    held = text(
        "SELECT privilege_type || ' ON ' || table_name FROM information_schema.table_privileges"
        " WHERE grantee = :role UNION SELECT privilege_type || ' (' || column_name || ') ON ' ||"
        " table_name FROM information_schema.column_privileges c WHERE grantee = :role"
        " AND NOT EXISTS (SELECT FROM information_schema.table_privileges t WHERE"
        " t.grantee = c.grantee AND t.table_name = c.table_name"
        " AND t.privilege_type = c.privilege_type)"
    )
    with engine.connect() as connection:
        return set(connection.execute(held, {"role": role}).scalars())


def test_an_upgrade_gives_what_is_needed_and_takes_the_rest(two: Two) -> None:
    role = f"{NAME}_run"
    wanted = {f"{one} ON {table}" for table, several in grants.GRANTS.items() for one in several}
    assert _has(two.owner, role) == wanted
    with two.owner.begin() as connection:
        # As the page said it before.
        connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"))
        connection.execute(text(f"REVOKE INSERT ON events FROM {role}"))
    assert _has(two.owner, role) != wanted
    schema.upgrade(two.owner, run_role=role)
    assert _has(two.owner, role) == wanted


def test_an_upgrade_without_a_role_gives_nothing(two: Two) -> None:
    role = f"{NAME}_run"
    with two.owner.begin() as connection:
        connection.execute(text(f"REVOKE INSERT ON events FROM {role}"))
    schema.upgrade(two.owner)
    assert "INSERT ON events" not in _has(two.owner, role)


@pytest.mark.parametrize(("role", "why"), [("nobody_there", "no role"), (NAME, "the owner")])
def test_a_role_that_cannot_be_it(two: Two, role: str, why: str) -> None:
    before = _has(two.owner, NAME)
    with pytest.raises(InvalidSetting, match=f"RUN_ROLE.*{why}"):
        schema.upgrade(two.owner, run_role=role)
    assert _has(two.owner, NAME) == before


def test_the_daemons_role_cannot_migrate(two: Two, call: Call) -> None:
    with two.owner.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0008'"))
    done = call("db", "upgrade", DATABASE_URL=two.run.url.render_as_string(hide_password=False))
    assert done.code == 1
    assert "its role may not" in done.err


def test_the_command_takes_the_role_from_its_setting(book: Book, call: Call) -> None:
    execute(book, f"REVOKE INSERT ON events FROM {RUN_ROLE}")
    assert call("db", "upgrade", RUN_ROLE=RUN_ROLE).code == 0
    assert query(book, f"SELECT has_table_privilege('{RUN_ROLE}', 'events', 'INSERT')") == [(True,)]


def test_doctor_names_what_is_lacking(two: Two, run_book: Book, clock: MovedClock) -> None:
    def role(engine: Engine) -> tuple[bool, str, object]:
        with closing(Book(engine, clock.read)) as book:
            (found,) = [one for one in examine(book, engine) if one.name == "database role"]
        return found.ok, found.detail[0].text, found.detail[0].values.get("lacks", "")

    assert role(two.owner) == (True, "check_detail.role_owner", "")
    assert role(two.run) == (True, "check_detail.role", "")
    with two.owner.begin() as connection:
        connection.execute(text(f"REVOKE INSERT, UPDATE (id) ON events FROM {NAME}_run"))
    lacks = "INSERT ON events, UPDATE (id) ON events"
    assert role(two.run) == (False, "check_detail.role_lacks", lacks)
    # What lies in the book is not looked at by who may not.
    assert examine(run_book, two.run)[-1].name == "database role"


def test_who_owns_another_table_owns_none_of_the_book(two: Two) -> None:
    with two.run.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE beside (id int)"))
        assert not grants.looked_at(connection).is_owner
    with two.owner.connect() as connection:
        assert grants.looked_at(connection).is_owner


def test_a_volume_of_before_gets_the_roles_by_the_same_script(
    database_url: str, servers: Servers, tmp_path: Path, make_policy: Callable[..., BillingPolicy],
    clock: MovedClock,
) -> None:  # fmt: skip
    """There `maewol` is the superuser who made the cluster. Again and again, if need be."""
    for name in ("owner", "run"):
        (tmp_path / f"postgres_{name}_password").write_text(f"{name} secret", encoding="ascii")
    script = tmp_path / "roles.sql"
    text_ = (ROOT / "deploy/postgres/roles.sql").read_text(encoding="utf-8")
    script.write_text(text_.replace("/run/secrets", str(tmp_path)), encoding="utf-8")
    assert _psql(database_url, script) == (0, "")
    assert _psql(database_url, script) == (0, "")
    owner = create_book_engine(database_url)
    schema.upgrade(owner, run_role="maewol_run")
    owner.dispose()
    url = make_url(database_url).set(username="maewol_run").render_as_string(hide_password=False)
    with closing(Book(create_book_engine(url), clock.read)) as book:
        assert enrolled(book, make_policy(), a_row(1)).added == 1
    (tmp_path / "postgres_run_password").write_text("", encoding="ascii")
    code, said = _psql(database_url, script)
    assert code != 0
    assert "a password is missing" in said
    assert "secret" not in said


def _psql(database_url: str, script: Path) -> tuple[int, str]:
    program = postgres_programs(Home(script.parent), None).folder / "psql"
    if not program.exists():
        # Any will do.
        anywhere = shutil.which("psql")
        if anywhere is None:
            pytest.skip(f"no psql, neither {program} nor elsewhere")
        program = Path(anywhere)
    done = subprocess.run(
        [program, "-Xq", "-d", plain(database_url), "-f", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr
