"""A TCP port that leads to a server of this machine, and can be shut.

    python -m tests.doors PORT HOST ITS_PORT

is one in a process of its own, for another network namespace.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy.engine import make_url

LOOPBACK = "127.0.0.1"


class Door:
    """Lets new connections through while `is_open`; ends them at once while it is not."""

    def __init__(
        self, connect: Callable[[], socket.socket], host: str = LOOPBACK, port: int = 0
    ) -> None:
        self._connect = connect
        self._listener = socket.create_server((host, port), backlog=500)
        self.is_open = True
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Until it is closed."""
        with suppress(OSError):
            while True:
                outside = self._listener.accept()[0]
                if self.is_open:
                    threading.Thread(target=self._carry, args=(outside,), daemon=True).start()
                else:
                    outside.close()

    @contextmanager
    def serving(self) -> Iterator[Door]:
        """Serve in a thread for the length of the block."""
        thread = threading.Thread(target=self.serve, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            # What waits in `accept` wakes by this, and not by `close`.
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            thread.join(10)

    def _carry(self, outside: socket.socket) -> None:
        with suppress(OSError), outside, self._connect() as inside:
            back = threading.Thread(target=_pump, args=(inside, outside), daemon=True)
            back.start()
            _pump(outside, inside)
            back.join()


def to_tcp(host: str, port: int) -> Callable[[], socket.socket]:
    """The way to a server's port."""
    return lambda: socket.create_connection((host, port))


def to_database(database_url: str) -> Callable[[], socket.socket]:
    """The way to a private PostgreSQL, which listens on a unix socket only."""
    query = make_url(database_url).query
    path = f"{query['host']}/.s.PGSQL.{query['port']}"

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(path)
        return made

    return connect


def through(database_url: str, door: Door, host: str = LOOPBACK) -> str:
    """The address of a private PostgreSQL's database by a door to it."""
    url = make_url(database_url)
    return f"postgresql+psycopg://{url.username}@{host}:{door.port}/{url.database}"


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    listen, where, its_port = sys.argv[1:]
    Door(to_tcp(where, int(its_port)), port=int(listen)).serve()
