"""PostgreSQL clusters of a test's own: a primary, standbys made of it, killed and promoted."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg

from billing.embedded import postgres, running
from billing.embedded.home import Home, find_home, prepare_home
from billing.embedded.processes import runs
from billing.embedded.programs import postgres_programs

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Cluster:
    """One PostgreSQL; `url` is its book's, `sockets` the folder that it listens in."""

    home: Home
    url: str

    @property
    def data(self) -> Path:
        return self.home.folder / "postgres" / "data"

    @property
    def sockets(self) -> str:
        return parse_qs(urlsplit(self.url).query)["host"][0]

    def program(self, name: str) -> Path:
        return postgres_programs(self.home, None).folder / name

    def run(self, name: str, *arguments: str | Path) -> str:
        """Run one of PostgreSQL's programs as the servers' user; what it printed."""
        done = self.home.run((self.program(name), *arguments), cwd=self.home.folder)
        assert done.returncode == 0, (name, done.stdout)
        return done.stdout

    def sql(self, statement: str, database: str = "maewol") -> list[tuple[Any, ...]]:
        with psycopg.connect(
            host=self.sockets, user="maewol", dbname=database, autocommit=True
        ) as session:
            answer = session.execute(statement)  # type: ignore[call-overload]
            return answer.fetchall() if answer.description else []

    def until(self, statement: str, wanted: Any) -> None:
        """Wait until a query of one value answers so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := self.sql(statement)) != [(wanted,)]:
            assert time.monotonic() < deadline, (statement, found)
            time.sleep(0.05)

    def set(self, **settings: str) -> None:
        """Change settings that need no restart."""
        for name, value in settings.items():
            self.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        self.sql("SELECT pg_reload_conf()")

    def kill(self) -> None:
        """The machine is gone: every process of it, at once."""
        pid = runs(self.data / "postmaster.pid", str(self.data))
        assert pid is not None
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)

    def promote(self) -> None:
        assert self.sql("SELECT pg_promote(true, 60)") == [(True,)]


@contextmanager
def a_folder() -> Iterator[Path]:
    """A folder that the servers' user may pass, with a short name: it holds sockets."""
    with tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def a_primary(folder: Path) -> Iterator[Cluster]:
    """A cluster of its own, without a book."""
    folder.mkdir(mode=0o755)
    with running(folder, broker=False, durable=False, announce=lambda _: None) as started:
        assert started.database_url is not None
        yield Cluster(find_home(folder), started.database_url)


@contextmanager
def a_standby(primary: Cluster, folder: Path) -> Iterator[Cluster]:
    """A copy that follows a primary; stopped at the end, whatever became of it."""
    folder.mkdir(mode=0o755)
    home = prepare_home(folder, lambda _: None)
    into = home.make("postgres") / "data"
    source = ("-h", primary.sockets, "-U", "maewol", "-D", str(into))
    done = home.run(
        (primary.program("pg_basebackup"), *source, "-R", "-X", "stream", "-c", "fast"), cwd=folder
    )
    assert done.returncode == 0, done.stdout
    try:
        yield Cluster(home, postgres.ensure(home, False, lambda _: None))
    finally:
        postgres.stop(home)


def multi_host(clusters: Sequence[Cluster]) -> str:
    """One address for all of them, whichever can be written to: as docs/failover.md has it."""
    hosts = "&".join(f"host={one.sockets}:5432" for one in clusters)
    return f"postgresql+psycopg://maewol@/maewol?{hosts}&target_session_attrs=read-write"
