"""PostgreSQL and Valkey of the run: real, private, durable, and started again when they die."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from billing.embedded import EmbeddedServerError, postgres, running, valkey
from billing.embedded.home import Home, find_home, prepare_home
from billing.embedded.processes import runs
from billing.embedded.programs import postgres_programs
from tests.builders import plain

# An operator's supervisor needs a moment, too.
PAUSE_SECONDS = 0.5
# The book of a run and its WAL are less than half of it.
_DISK_MEGABYTES = 384


class Servers:
    """Both servers in `folder`; a context manager. `small_disk` says why none could be made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "data"
        self._exits = ExitStack()
        self._stopping = threading.Event()
        # Who holds it keeps a server from being started again.
        self._quiet = threading.RLock()
        self._keeper = threading.Thread(target=self._keep, name="servers", daemon=True)
        self.small_disk: str | None = None
        self.database_url = self.broker_url = ""

    def __enter__(self) -> Servers:
        self._folder.mkdir(mode=0o755)
        self.small_disk = self._mount()
        started = self._exits.enter_context(running(self._folder, announce=lambda _: None))
        assert started.database_url is not None
        assert started.broker_url is not None
        self.database_url, self.broker_url = started.database_url, started.broker_url
        self._home: Home = find_home(self._folder)
        self._data = self._home.folder / "postgres" / "data"
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        with suppress(EmbeddedServerError):
            self._exits.close()
        if self.small_disk is None:
            subprocess.run(["umount", "-l", self._disk], check=False, capture_output=True)

    # -- faults -------------------------------------------------------------------------------

    def kill_postmaster(self) -> None:
        if pid := self._postmaster():
            os.kill(pid, signal.SIGKILL)

    def kill_backend(self) -> bool:
        """Kill one session with -9: PostgreSQL restarts itself and recovers."""
        pids = self._query("SELECT pid FROM pg_stat_activity WHERE application_name = 'maewol'")
        if not pids:
            return False
        with suppress(ProcessLookupError):
            os.kill(pids[0][0], signal.SIGKILL)
        return True

    def end_all_sessions(self) -> None:
        self._query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def restart_postgres(self, mode: str) -> None:
        """As an administrator does: `fast` or `immediate`; the keeper starts it again."""
        pg_ctl = postgres_programs(self._home, None).folder / "pg_ctl"
        # Started before pg_ctl looks whether the old one is gone, it would wait for the new one.
        with self._quiet:
            self._home.run((pg_ctl, "-D", self._data, "-m", mode, "-w", "stop"), cwd=self._data)

    def kill_valkey(self, *, empty: bool = False) -> None:
        """Kill it; `empty` throws away what it had written, so that it comes back with nothing."""
        folder = self._home.folder / "valkey"
        with self._quiet:
            if pid := runs(folder / "valkey.pid", str(folder / "valkey.conf")):
                os.kill(pid, signal.SIGKILL)
                while runs(folder / "valkey.pid", str(folder / "valkey.conf")):
                    time.sleep(0.01)
            if empty:
                shutil.rmtree(folder / "appendonlydir", ignore_errors=True)

    @contextmanager
    def valkey_away(self) -> Iterator[None]:
        """Nobody listens on the broker's port."""
        with self._quiet:
            self.kill_valkey()
            yield

    @contextmanager
    def postgres_away(self) -> Iterator[None]:
        """Nobody listens on the database's socket."""
        with self._quiet:
            self.restart_postgres("immediate")
            yield

    @contextmanager
    def frozen(self, server: str) -> Iterator[None]:
        """`postgres` or `valkey` stands still: connections are open, nothing is answered."""
        pids = self._server_pids(server)
        with self._quiet:
            try:
                _signal(pids, signal.SIGSTOP)
                yield
            finally:
                _signal(pids, signal.SIGCONT)

    def flush(self) -> None:
        with self.broker() as client:
            client.flushall()

    def cut(self, kind: str) -> None:
        """End the connections of a kind, `normal` or `pubsub`, to a Valkey that lives on."""
        with self.broker() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def push(self, queue: str, payload: bytes) -> None:
        """Put a message at the end of a queue, as any stranger with access could."""
        with self.broker() as client:
            client.lpush(queue, payload)

    def messages_in_hand(self) -> list[bytes]:
        """The raw messages that workers hold."""
        with self.broker() as client:
            found = client.hgetall("unacked")
        return list(found.values())

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Nothing more can be written to the book's disk."""
        ballast = Path(self._disk) / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(1 << 16))
            with suppress(psycopg.Error):
                for _ in range(3):  # A new WAL file is needed now: PostgreSQL panics.
                    self._query("SELECT pg_switch_wal(), pg_current_xact_id()")
            yield
        finally:
            ballast.unlink(missing_ok=True)

    # -- life ---------------------------------------------------------------------------------

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """A session of the rig's own. Raises `psycopg.Error` while the server is away."""
        address = plain(self.database_url)
        with psycopg.connect(address, connect_timeout=3, autocommit=True) as session:
            yield session

    @contextmanager
    def broker(self) -> Iterator[redis.Redis]:
        """A client of the rig's own. Raises `RedisError` while the server is away."""
        client = redis.Redis.from_url(
            self.broker_url,
            socket_timeout=2,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            yield client
        finally:
            client.close()

    def answers(self) -> bool:
        """Whether both servers answer now."""
        try:
            with self.connection() as session, self.broker() as client:
                session.execute("SELECT 1")
                return bool(client.ping())
        except (psycopg.Error, redis.RedisError):
            return False

    def _query(self, statement: str) -> list[tuple[int, ...]]:
        with self.connection() as session:
            return session.execute(statement).fetchall()  # type: ignore[arg-type]

    def _postmaster(self) -> int | None:
        return runs(self._data / "postmaster.pid", str(self._data))

    def _server_pids(self, server: str) -> list[int]:
        if server == "valkey":
            folder = self._home.folder / "valkey"
            pid = runs(folder / "valkey.pid", str(folder / "valkey.conf"))
            return [pid] if pid else []
        pid = self._postmaster()
        if pid is None:
            return []
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]

    def _keep(self) -> None:
        while not self._stopping.wait(PAUSE_SECONDS):
            with self._quiet, contextlib.suppress(EmbeddedServerError, psycopg.Error, OSError):
                if self._postmaster() is None:
                    postgres.ensure(self._home, True, lambda _: None)
                valkey.ensure(self._home, True, lambda _: None)

    def _mount(self) -> str | None:
        """A small disk of the book's own, so that it can be full; else the reason why there is
        none. It lives in the rig's own mount namespace (see `__main__`) and ends with it."""
        home = prepare_home(self._folder, lambda _: None)
        self._disk = str(home.folder / "postgres")
        if home.account is None:
            return "not root: no disk of its own can be mounted"
        Path(self._disk).mkdir(mode=0o700)
        options = f"size={_DISK_MEGABYTES}m,mode=0700,uid={home.account.uid},gid={home.account.gid}"
        command = ["mount", "-t", "tmpfs", "-o", options, "maewol-chaos", self._disk]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            Path(self._disk).rmdir()
            return f"no disk could be mounted: {done.stderr.strip()}"
        return None


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
