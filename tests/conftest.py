"""Real servers for every test that wants one: PostgreSQL and Valkey, private to the run."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from billing.bootstrap import billing_policy
from billing.domain.policy import BillingPolicy
from billing.embedded import Servers, programs, running
from billing.presenting import told
from billing.presenting.texts import Texts
from billing.settings import Settings
from billing.store import events, schema
from billing.store.session import Book, create_book_engine
from tests.builders import RUN_ROLE, plain

_names = itertools.count(1)


def _in_memory() -> None:
    """Keep what tests write in memory, where there is room for it: servers and databases of a test
    are thousands of small files that nobody wants a second later. A copy of the template took 0.3 s
    on a busy disk, and takes 0.03 s here."""
    folder = Path("/dev/shm")  # noqa: S108 - of this machine, and never in a setting
    if "TMPDIR" in os.environ or not os.access(folder, os.W_OK | os.X_OK):
        return
    there = os.statvfs(folder)
    if there.f_bavail * there.f_frsize > 4 * 2**30 and not there.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None


_in_memory()


def _other_postgres() -> None:
    """POSTGRES_BIN=folder: the tests' servers are of the PostgreSQL whose `postgres`, `initdb` and
    `pg_ctl` lie there. Programs that a test starts keep to the one that they bring along."""
    if named := os.environ.get("POSTGRES_BIN"):
        programs._postgres_folders = lambda: iter([Path(named)])


_other_postgres()


# What takes minutes begins first: processes side by side then end at about the same time.
_FIRST = ("simulation", "between", "chaos", "browser", "lasting", "integration", "model")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    turns = {name: turn for turn, name in enumerate(_FIRST)}
    items.sort(key=lambda item: turns.get(item.path.relative_to(here).parts[0], len(turns)))


def pytest_collection_finish() -> None:
    """What is loaded by now stays to the end. Each search for garbage went through all of it, which
    was an eighth of all processor time of the tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees only the settings it makes itself."""
    for name in [name for name in os.environ if name.startswith("MAEWOL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.fixture(autouse=True)
def _every_event_is_readable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test makes the code write down, the console has Korean and English for."""
    texts, add = Texts("ko"), events.add
    nameless: set[str] = set()

    def watched(session: Session, *, kind: str, data: Any = None, **line: Any) -> None:
        names = {f"told.{name}" for name in data or () if name not in told.AS_THEY_ARE}
        nameless.update(key for key in {f"event.{kind}", *names} if not texts.has(key))
        add(session, kind=kind, data=data, **line)

    monkeypatch.setattr(events, "add", watched)
    yield
    assert not nameless, "not in texts.toml"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """A PostgreSQL and a Valkey of this run's own; without fsync, for speed."""
    with tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        path.chmod(0o755)
        with running(path / "data", durable=False) as started:
            yield started


@pytest.fixture(scope="session")
def _template(servers: Servers) -> str:
    """A migrated database that the others are copied from: migrating once is enough."""
    name = "maewol_template"
    _admin(servers, f'CREATE DATABASE "{name}"')
    engine = create_book_engine(_address(servers, name))
    # The daemons' role, which nobody logs in with here.
    _admin(servers, f"CREATE ROLE {RUN_ROLE}")
    schema.upgrade(engine, run_role=RUN_ROLE)
    engine.dispose()
    return name


@pytest.fixture
def database_url(servers: Servers, _template: str) -> Iterator[str]:
    """An empty migrated database of this test's own."""
    with a_database(servers, _template) as url:
        yield url


@contextlib.contextmanager
def a_database(servers: Servers, template: str) -> Iterator[str]:
    """A copy of a database, for as long as somebody needs it."""
    name = f"maewol_test_{os.getpid()}_{next(_names)}"
    # By files: half the time of the default, which writes every page to the log as well. PostgreSQL
    # 14 knows no other way, nor the word for it.
    by_files = "" if version_of(str(servers.database_url)) < 15 else "STRATEGY FILE_COPY"
    _admin(servers, f'CREATE DATABASE "{name}" TEMPLATE "{template}" {by_files}')
    yield _address(servers, name)
    _admin(servers, f'DROP DATABASE "{name}" WITH (FORCE)')


@dataclass
class MovedClock:
    """Billing time that stands still until a test moves it."""

    now: datetime = field(default_factory=lambda: datetime(2026, 11, 20, 1, 0, tzinfo=UTC))

    def read(self, _: Session) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)

    def move_to(self, moment: datetime) -> None:
        self.now = moment


@pytest.fixture
def clock() -> MovedClock:
    """10:00 on 20 November 2026 in Seoul, until it is moved."""
    return MovedClock()


@dataclass
class Shared:
    """One engine for the book of every test, which leads to the database of the one that runs: a
    new engine would put together each statement anew, a fifth of what a test takes."""

    engine: Engine
    database: str | None = None

    def __post_init__(self) -> None:
        @event.listens_for(self.engine, "do_connect")
        def lead(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
            parameters["dbname"] = self.database
            # What the daemons' role may not do is refused here, too.
            parameters["options"] += f" -c role={RUN_ROLE}"


@pytest.fixture(scope="session")
def _shared(servers: Servers) -> Shared:
    return Shared(create_book_engine(_address(servers, "postgres")))


@pytest.fixture
def book(database_url: str, clock: MovedClock, _shared: Shared) -> Iterator[Book]:
    """An empty book whose moments come from `clock`."""
    _shared.database = make_url(database_url).database
    opened = Book(_shared.engine, clock.read)
    yield opened
    opened.close()


@pytest.fixture
def make_policy() -> Callable[..., BillingPolicy]:
    """The policy that these settings make."""
    return lambda **settings: billing_policy(Settings.load(**settings))


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    """The policy of the default settings."""
    return make_policy()


def _address(servers: Servers, name: str) -> str:
    assert servers.database_url is not None
    url = make_url(servers.database_url).set(database=name)
    return url.render_as_string(hide_password=False)


@functools.cache
def version_of(url: str) -> int:
    """Which PostgreSQL that is: 18, or what POSTGRES_BIN names."""
    with psycopg.connect(plain(url)) as connection:
        return connection.info.server_version // 10000


def _admin(servers: Servers, statement: str) -> None:
    with psycopg.connect(plain(_address(servers, "postgres")), autocommit=True) as connection:
        connection.execute(statement.encode())
