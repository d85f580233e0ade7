"""The private PostgreSQL: a cluster of its own, on a unix socket that only its user can reach."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg

from billing.domain.errors import EmbeddedServerError
from billing.embedded.home import Home, private_folder
from billing.embedded.processes import last_lines, runs
from billing.embedded.programs import PostgresPrograms, postgres_programs

_NAME = "maewol"  # of the database and of its superuser
_PORT = 5432  # only a part of the socket's name: nothing listens on the network
_SOCKET = f".s.PGSQL.{_PORT}"
_LONGEST_SOCKET_PATH = 103  # bytes: 108 on Linux and 104 on macOS, a final zero included
_START_SECONDS = 120  # crash recovery of a small database on a slow disk
_LOG_LIMIT = 16 * 1024 * 1024  # bytes; set aside at the next start

_SETTINGS = """\
# Written by Maewol at every start. Your own settings go into postgresql.conf, below its include.
listen_addresses = ''
port = {port}
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 128MB
max_wal_size = 512MB
timezone = 'UTC'
log_timezone = 'UTC'
# No row of a customer in the log: no DETAIL, no statement, no parameter.
log_error_verbosity = terse
log_min_error_statement = panic
log_parameter_max_length_on_error = 0
fsync = {switch}
synchronous_commit = {switch}
full_page_writes = {switch}
"""


def ensure(home: Home, durable: bool, announce: Callable[[str], None]) -> str:
    """The URL of the running server, which is started (and made, the first time) if need be.

    Called by one process at a time. Raises `EmbeddedServerError`."""
    if re.search(r'["$`\\]', str(home.folder)):  # pg_ctl hands the path to a shell, in quotes
        raise EmbeddedServerError(
            f'PostgreSQL cannot live in {home.folder}. Set MAEWOL_DATA_DIR to a path without ", $, '
            "` and \\."
        )
    folder = home.make("postgres")
    data, sockets = folder / "data", _socket_folder(home)
    if not _answers(sockets):
        if pid := _pid(data):
            _wait_for(sockets, pid, folder)
        else:
            _start(home, data, sockets, durable, announce)
        _make_database(sockets)
    return f"postgresql+psycopg://{_NAME}@/{_NAME}?host={quote(str(sockets))}&port={_PORT}"


def is_made(home: Home) -> bool:
    """Whether a cluster is there, running or not."""
    return (home.folder / "postgres" / "data").exists()


def is_running(home: Home) -> bool:
    """Whether its process lives."""
    return _pid(home.folder / "postgres" / "data") is not None


def stop(home: Home) -> None:
    """Stop the server if it runs; sessions still open are ended. Raises `EmbeddedServerError`."""
    data = home.folder / "postgres" / "data"
    if _pid(data) is None:
        return
    pg_ctl = postgres_programs(home, _major(data)).folder / "pg_ctl"
    for mode in ("fast", "immediate"):
        command = (pg_ctl, "-D", data, "-m", mode, "-w", "-t", "60", "stop")
        answer = home.run(command, cwd=data, timeout=90)
        if answer.returncode == 0:
            with suppress(OSError):  # empty now, or never made
                _short_folder(home).rmdir()
            return
    raise EmbeddedServerError(f"PostgreSQL in {data} did not stop: {answer.stdout.strip()}")


def _start(
    home: Home, data: Path, sockets: Path, durable: bool, announce: Callable[[str], None]
) -> None:
    programs = postgres_programs(home, _major(data))
    if not data.exists():
        announce(f"Making a private PostgreSQL {programs.version} in {data.parent}.")
        _initialize(home, programs, data, durable)
    settings = _SETTINGS.format(port=_PORT, sockets=sockets, switch="on" if durable else "off")
    home.write(data / "maewol.conf", settings)
    for leftover in (data / "postmaster.pid", sockets / f"{_SOCKET}.lock", sockets / _SOCKET):
        # Written by a server that was killed. PostgreSQL clears them itself unless their number
        # meanwhile belongs to another process; shared memory still guards against two servers.
        leftover.unlink(missing_ok=True)
    _launch(home, programs, data)


def _initialize(home: Home, programs: PostgresPrograms, data: Path, durable: bool) -> None:
    """Make the cluster under another name first, so that one cut short is never taken for whole."""
    fresh = data.with_name("data.new")
    shutil.rmtree(fresh, ignore_errors=True)
    options = ["--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--data-checksums"]
    # Byte order everywhere: indexes then never depend on the machine's C library.
    options += ["--locale=C", f"--username={_NAME}", *([] if durable else ["--no-sync"])]
    if programs.major >= 17:
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    answer = home.run(
        (programs.folder / "initdb", "-D", fresh, *options), cwd=data.parent, timeout=300
    )
    if answer.returncode != 0:
        raise EmbeddedServerError(f"initdb failed in {data.parent}: {answer.stdout.strip()}")
    own = (fresh / "postgresql.conf").read_text(encoding="utf-8")
    home.write(fresh / "postgresql.conf", f"include_if_exists = 'maewol.conf'\n{_ours(own)}")
    fresh.rename(data)


def _ours(postgresql_conf: str) -> str:
    """initdb's choices without those that `maewol.conf` makes; a later line would win over it."""
    names = "|".join(re.findall(r"^(\w+) =", _SETTINGS, re.MULTILINE))
    return re.sub(rf"^(?=({names}) *=)", "#", postgresql_conf, flags=re.MULTILINE)


def _launch(home: Home, programs: PostgresPrograms, data: Path) -> None:
    log = data.with_name("postgres.log")
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    pg_ctl = (programs.folder / "pg_ctl", "-D", data, "-l", log)
    command = (*pg_ctl, "-w", "-t", str(_START_SECONDS), "start")
    for _ in range(20):
        answer = home.run(command, cwd=data, timeout=_START_SECONDS + 30)
        if answer.returncode == 0:
            return
        if "still in use" not in last_lines(log):
            break
        time.sleep(0.5)  # sessions of a server that was killed are about to notice it
    raise EmbeddedServerError(
        f"PostgreSQL in {data} did not start: {answer.stdout.strip()}\n"
        f"The end of {log}:\n{last_lines(log)}"
    )


def _pid(data: Path) -> int | None:
    return runs(data / "postmaster.pid", str(data))


def _wait_for(sockets: Path, pid: int, folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _answers(sockets):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"PostgreSQL (process {pid}) runs but does not answer; see "
                f"{folder / 'postgres.log'}. Stop that process and try again."
            )
        time.sleep(0.1)


def _make_database(sockets: Path) -> None:
    with _connected(sockets) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_NAME,))
        if known.fetchone() is None:
            connection.execute(f"CREATE DATABASE {_NAME}")


def _answers(sockets: Path) -> bool:
    if not (sockets / _SOCKET).exists():
        return False
    try:
        with _connected(sockets):
            return True
    except psycopg.OperationalError:
        return False


@contextmanager
def _connected(sockets: Path) -> Iterator[psycopg.Connection]:
    with psycopg.connect(
        host=str(sockets),
        port=_PORT,
        user=_NAME,
        dbname="postgres",
        connect_timeout=5,
        autocommit=True,
    ) as connection:
        yield connection


def _major(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        if not data.exists():
            return None
    raise EmbeddedServerError(
        f"{data} is not a PostgreSQL data folder (PG_VERSION is missing), and was left alone. "
        "Restore it, or set MAEWOL_DATA_DIR to an empty folder."
    )


def _socket_folder(home: Home) -> Path:
    """In the data folder if the socket's path stays short and plain enough, else under /tmp."""
    beside = home.folder / "postgres" / "run"
    path = beside / _SOCKET
    plain = re.fullmatch(r"[\w./ +-]+", str(path), re.ASCII) is not None
    if plain and len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return private_folder(beside, home.account)
    # The name can be guessed, so `private_folder` refuses one that somebody else made.
    return private_folder(_short_folder(home), home.account)


def _short_folder(home: Home) -> Path:
    digest = hashlib.sha256(os.fsencode(home.folder)).hexdigest()[:16]
    # Not $TMPDIR, which differs between the users of one server.
    return Path(f"/tmp/maewol-{digest}")  # noqa: S108  (made private, or refused, by the caller)
