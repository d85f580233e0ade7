"""The merchant's own system: a real HTTP server on this machine that receives notices."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

KEY = b"a signing key of thirty-two byte"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
PATH = "/hooks/maewol?from=phone"


@dataclass(frozen=True)
class Seen:
    """One request, its signature verified by the library."""

    webhook_id: str
    headers: dict[str, str]
    raw: str

    @property
    def body(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.raw)
        return document

    @property
    def customer_uid(self) -> str:
        return str(self.body["data"]["customer_uid"])


@dataclass(frozen=True)
class Answer:
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    # Seconds before it, whether the connection breaks instead, and how many bytes come with it.
    delay: float = 0.0
    reset: bool = False
    size: int = 0
    # Seconds that the last byte is kept back.
    dribble: float = 0.0


@dataclass
class Merchant:
    """What was received, and how the next is answered."""

    url: str = ""
    secret: str | bytes = SECRET
    seen: list[Seen] = field(default_factory=list)
    taken: list[Seen] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    answer: Callable[[Seen], Answer] = lambda _: Answer()
    at_once: int = 0
    most_at_once: int = 0
    doubled: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    open_ids: set[str] = field(default_factory=set)

    def types(self) -> list[str]:
        return [one.body["type"] for one in self.taken]

    def of(self, kind: str) -> dict[str, Any]:
        """The data of the one notice of a kind."""
        (found,) = [one.body["data"] for one in self.taken if one.body["type"] == kind]
        assert isinstance(found, dict)
        return found

    def of_customer(self, customer_uid: str) -> list[str]:
        """The webhook-ids that were taken, in order, each at its first time."""
        ids = [one.webhook_id for one in self.taken if one.customer_uid == customer_uid]
        return list(dict.fromkeys(ids))

    @contextlib.contextmanager
    def working_on(self, seen: Seen) -> Iterator[None]:
        with self.lock:
            self.seen.append(seen)
            self.doubled |= seen.webhook_id in self.open_ids
            self.open_ids.add(seen.webhook_id)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self.lock:
                self.at_once -= 1
                self.open_ids.discard(seen.webhook_id)


@contextlib.contextmanager
def a_merchant(tls: ssl.SSLContext | None = None) -> Iterator[Merchant]:
    """A merchant's system that takes everything, until it is told otherwise."""
    merchant = Merchant()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            _receive(self, merchant)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 100

        def handle_error(self, *_: object) -> None:
            """A client that hangs up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    merchant.url = f"{scheme}://127.0.0.1:{server.server_port}{PATH}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield merchant
    finally:
        server.shutdown()
        server.server_close()


def _receive(request: BaseHTTPRequestHandler, merchant: Merchant) -> None:
    raw = request.rfile.read(int(request.headers["content-length"]))
    headers = {name.lower(): value for name, value in request.headers.items()}
    if request.path != PATH:
        merchant.elsewhere.append(request.path)
    Webhook(merchant.secret).verify(raw, headers)
    seen = Seen(headers["webhook-id"], headers, raw.decode())
    with merchant.working_on(seen):
        answer = merchant.answer(seen)
        time.sleep(answer.delay)
        if 200 <= answer.status < 300:
            with merchant.lock:
                merchant.taken.append(seen)
    if answer.reset:
        linger = struct.pack("ii", 1, 0)
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.connection.close()
        request.close_connection = True
        return
    _say(request, answer)


def _say(request: BaseHTTPRequestHandler, answer: Answer) -> None:
    request.send_response(answer.status)
    for name, value in answer.headers.items():
        request.send_header(name, value)
    if answer.status != 204:
        request.send_header("content-length", str(answer.size))
    request.end_headers()
    left = answer.size
    while left > 1:
        left -= request.wfile.write(b"x" * min(left - 1, 65536))
    time.sleep(answer.dribble)
    request.wfile.write(b"x" * left)
