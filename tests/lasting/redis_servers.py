"""Valkey in threes: a primary, a replica, Sentinels; and a door of TLS before one server."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from billing.embedded.home import Home
from billing.embedded.programs import valkey_program

PASSWORD = "the servers' own"
SENTINEL_PASSWORD = "the sentinels' own"
MASTER = "billing"
PATIENCE_SECONDS = 60.0

_Process = AbstractContextManager[subprocess.Popen[bytes]]


@dataclass
class Watched:
    """A primary with its replica, and the Sentinels that watch them."""

    servers: dict[int, subprocess.Popen[bytes]]
    sentinels: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        """As docs/failover.md writes it."""
        password = PASSWORD.replace(" ", "%20").replace("'", "%27")
        return ";".join(f"sentinel://:{password}@127.0.0.1:{port}/0" for port in self.sentinels)

    def primary(self) -> int:
        """The port of the primary, by what a Sentinel says."""
        with _client(self.sentinels[0], SENTINEL_PASSWORD) as sentinel:
            found = sentinel.execute_command("SENTINEL", "get-master-addr-by-name", MASTER)
        return int(found[1])

    def kill_primary(self) -> int:
        """-9; returns the port that is dead now."""
        port = self.primary()
        self.servers[port].kill()
        self.servers[port].wait()
        return port

    def cut(self) -> None:
        """End every subscription at the primary, which lives on."""
        with _client(self.primary(), PASSWORD) as client:
            cut(client, "pubsub")


def cut(server: redis.Redis, kind: str) -> None:
    """End the connections of others of a kind, `normal` or `pubsub`; there must be some."""
    assert server.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes") > 0


@contextmanager
def watched_by_sentinels(folder: Path, sentinels: int = 3) -> Iterator[Watched]:
    """Everything up, in sync, and known to every Sentinel."""
    with ExitStack() as exits:
        primary, replica = _free_port(), _free_port()
        servers = {
            port: exits.enter_context(_a_server(folder / str(port), port, follows))
            for port, follows in ((primary, None), (replica, primary))
        }
        watched = Watched(servers)
        for port in (_free_port() for _ in range(sentinels)):
            exits.enter_context(_a_sentinel(folder / str(port), port, primary, sentinels))
            watched.sentinels.append(port)
        _until(lambda: all(_sees_all(port, sentinels) for port in watched.sentinels))
        yield watched


def _a_server(folder: Path, port: int, follows: int | None) -> _Process:
    settings = [f'{name} "{PASSWORD}"' for name in ("requirepass", "masterauth")]
    settings += ['save ""', "repl-diskless-sync-delay 0", "maxmemory-policy noeviction"]
    if follows is not None:
        settings.append(f"replicaof 127.0.0.1 {follows}")
    return _process(folder, port, settings)


def _a_sentinel(folder: Path, port: int, primary: int, sentinels: int) -> _Process:
    settings = [
        f'requirepass "{SENTINEL_PASSWORD}"',
        f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"',
        f"sentinel monitor {MASTER} 127.0.0.1 {primary} {sentinels // 2 + 1}",
        f'sentinel auth-pass {MASTER} "{PASSWORD}"',
        f"sentinel down-after-milliseconds {MASTER} 1000",
        f"sentinel failover-timeout {MASTER} 4000",
    ]
    return _process(folder, port, settings, "--sentinel")


@contextmanager
def _process(
    folder: Path, port: int, settings: list[str], *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir()
    own = [f"port {port}", "bind 127.0.0.1", f"dir {folder}", f"logfile {folder}/log"]
    (folder / "conf").write_text("\n".join([*own, *settings, ""]))
    process = subprocess.Popen([valkey_program(Home(folder)), folder / "conf", *options])
    try:
        _until(lambda: _answers(port, PASSWORD) or _answers(port, SENTINEL_PASSWORD))
        yield process
    finally:
        process.kill()
        process.wait()


def _sees_all(port: int, sentinels: int) -> bool:
    with _client(port, SENTINEL_PASSWORD) as client:
        answer = client.execute_command("SENTINEL", "MASTER", MASTER)
    found = answer if isinstance(answer, dict) else dict(zip(*[iter(answer)] * 2, strict=True))
    row = {(key.decode() if isinstance(key, bytes) else key): value for key, value in found.items()}
    others, replicas = int(row["num-other-sentinels"]), int(row["num-slaves"])
    return others == sentinels - 1 and replicas == 1


@contextmanager
def tls_door(folder: Path, behind: int) -> Iterator[tuple[int, Path]]:
    """A port that speaks TLS before a server that does not, as stunnel does; and the certificate
    that it shows, which is its own authority."""
    certificate = folder / "door.pem"
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", certificate, "-out", f"{certificate}.crt"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    authority = Path(f"{certificate}.crt")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, certificate)
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(0.2)
        closing = threading.Event()
        callers: list[socket.socket] = []

        def serve() -> None:
            while not closing.is_set():
                with suppress(TimeoutError):
                    callers.append(door.accept()[0])
                    arguments = (context, callers[-1].dup(), behind)
                    threading.Thread(target=_join, args=arguments, daemon=True).start()

        keeper = threading.Thread(target=serve)
        keeper.start()
        try:
            yield door.getsockname()[1], authority
        finally:
            closing.set()
            keeper.join()
            for caller in callers:
                with caller, suppress(OSError):
                    caller.shutdown(socket.SHUT_RDWR)


def _join(context: ssl.SSLContext, near: socket.socket, behind: int) -> None:
    """Carry bytes both ways until either side ends."""
    with suppress(OSError), near, socket.create_connection(("127.0.0.1", behind)) as far:
        near.settimeout(10)
        with context.wrap_socket(near, server_side=True) as inside:
            inside.settimeout(None)
            back = threading.Thread(target=_carry, args=(far, inside))
            back.start()
            _carry(inside, far)
            back.join()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextmanager
def _client(port: int, password: str) -> Iterator[redis.Redis]:
    client = redis.Redis(port=port, password=password, socket_timeout=5)
    try:
        yield client
    finally:
        client.close()


def _answers(port: int, password: str) -> bool:
    try:
        with _client(port, password) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
