"""A database that vanishes without a word: the kernel must not wait a quarter of an hour for it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy.engine import make_url

from billing.embedded import Servers
from billing.store.session import create_book_engine


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has the option")
def test_unacknowledged_statements_are_given_up_within_a_minute(servers: Servers) -> None:
    url = make_url(servers.database_url or "")
    unix = f"{url.query['host']}/.s.PGSQL.{url.query['port']}"
    with a_tcp_door(unix) as port:
        engine = create_book_engine(
            f"postgresql+psycopg://{url.username}@127.0.0.1:{port}/postgres"
        )
        with engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert raw is not None
            with socket.socket(fileno=os.dup(raw.fileno())) as wire:
                milliseconds = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        engine.dispose()

    assert 0 < milliseconds <= 60_000


@contextmanager
def a_tcp_door(unix: str) -> Iterator[int]:
    """The private server listens on a unix socket only; this lets one TCP connection in."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def carry() -> None:
            with suppress(OSError), listener.accept()[0] as outside, _connected(unix) as inside:
                back = threading.Thread(target=_pump, args=(inside, outside), daemon=True)
                back.start()
                _pump(outside, inside)
                back.join()

        thread = threading.Thread(target=carry, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def _connected(unix: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(unix)
    return made


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
