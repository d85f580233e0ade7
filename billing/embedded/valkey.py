"""The private Valkey: on a loopback port of its own, behind a password that only its user can read.

A port and not a socket, because `redis://` is the one address that Celery, Flower and redis-py all
understand. It keeps its port over restarts, so that connected workers find it again by themselves.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from billing.domain.errors import EmbeddedServerError
from billing.embedded.home import Home
from billing.embedded.processes import last_lines, runs
from billing.embedded.programs import valkey_program

_START_SECONDS = 60.0  # loading a large append-only file
_STOP_SECONDS = 30.0
_PORTS_TO_TRY = 5  # a free port may be taken by somebody else before Valkey binds it

_SETTINGS = """\
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
daemonize yes
set-proc-title no
pidfile valkey.pid
logfile valkey.log
dir ./
databases 16
tcp-backlog 128
# A queue must never drop messages to make room.
maxmemory-policy noeviction
save ""
appendonly {append}
appendfsync everysec
"""


def ensure(home: Home, durable: bool, announce: Callable[[str], None]) -> str:
    """The URL of the running server, which is started (and made, the first time) if need be.

    Called by one process at a time. Raises `EmbeddedServerError`."""
    folder = home.make("valkey")
    password = _password(home, folder)
    if _runs(folder) and (port := _port(folder)):
        _wait_for(folder, port, password)
    else:
        port = _start(home, folder, password, durable, announce)
    return f"redis://:{password}@127.0.0.1:{port}/0"


def is_running(home: Home) -> bool:
    """Whether its process lives."""
    return _runs(home.folder / "valkey")


def stop(home: Home) -> None:
    """Have the server write down what it holds and end. Raises `EmbeddedServerError`."""
    folder = home.folder / "valkey"
    port = _port(folder)
    if port is None or not _runs(folder):
        return
    with _client(port, (folder / "password").read_text(encoding="ascii")) as client:
        try:
            client.shutdown()
        except redis.RedisError as error:
            raise EmbeddedServerError(f"Valkey in {folder} did not stop: {error}") from error
    deadline = time.monotonic() + _STOP_SECONDS
    while _runs(folder):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"Valkey in {folder} is still running after SHUTDOWN.")
        time.sleep(0.01)


def _start(
    home: Home, folder: Path, password: str, durable: bool, announce: Callable[[str], None]
) -> int:
    program = valkey_program(home)
    if not (folder / "port").exists():
        announce(f"Making a private {program.name.removesuffix('-server').title()} in {folder}.")
    append = "yes" if durable else "no"
    for port in _ports(folder):
        (folder / "valkey.pid").unlink(missing_ok=True)
        settings = _SETTINGS.format(port=port, password=password, append=append)
        home.write(folder / "valkey.conf", settings)
        home.write(folder / "port", str(port))
        home.run((program, folder / "valkey.conf"), cwd=folder)
        if _came_up(folder):
            _wait_for(folder, port, password)
            return port
    log = folder / "valkey.log"
    raise EmbeddedServerError(
        f"Valkey in {folder} did not start. The end of {log}:\n{last_lines(log)}"
    )


def _ports(folder: Path) -> Iterator[int]:
    if (last := _port(folder)) is not None and _is_free(last):
        yield last
    for _ in range(_PORTS_TO_TRY):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        yield port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Valkey itself does: connections of the last server may linger in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _came_up(folder: Path) -> bool:
    """Whether the detached process wrote its pid file, which it does once its port is its own."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        if _runs(folder):
            return True
        time.sleep(0.01)
    return False


def _wait_for(folder: Path, port: int, password: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    with _client(port, password) as client:
        while True:
            try:
                client.ping()
                return
            except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as error:
                if not _runs(folder) or time.monotonic() > deadline:
                    raise EmbeddedServerError(
                        f"Valkey in {folder} does not answer ({type(error).__name__}). The end of "
                        f"its log:\n{last_lines(folder / 'valkey.log')}"
                    ) from error
            time.sleep(0.05)


@contextmanager
def _client(port: int, password: str) -> Iterator[redis.Redis]:
    client = redis.Redis(
        host="127.0.0.1",
        port=port,
        password=password,
        socket_timeout=5.0,
        retry=Retry(NoBackoff(), 0),  # else a SHUTDOWN, whose answer is silence, is sent again
    )
    try:
        yield client
    finally:
        client.close()


def _runs(folder: Path) -> bool:
    return runs(folder / "valkey.pid", str(folder / "valkey.conf")) is not None


def _port(folder: Path) -> int | None:
    try:
        return int((folder / "port").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None


def _password(home: Home, folder: Path) -> str:
    path = folder / "password"
    if not path.exists():
        home.write(path, secrets.token_urlsafe(32))
    return path.read_text(encoding="ascii")
