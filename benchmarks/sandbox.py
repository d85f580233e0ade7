"""How fast does the sandbox answer? Prints `again` requests per second beside a trivial server's.

    python benchmarks/sandbox.py [--requests 4000] [--widths 1,10,100]

Each server is a process of its own; one event loop posts to it over `width` kept connections, each
request a charge of another customer. The trivial server is the same uvicorn with one route that
reads JSON and echoes it: what is left between the two is the sandbox's own work. Client and server
share this machine, and others may, too: the last column, what a whole core could answer by the CPU
time that the server spent, is the steadiest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import cast
from urllib.parse import urlsplit

import httpx
import psutil
import uvloop

AGAIN = "/subscribe/payments/again"
NOW = datetime(2027, 2, 20, 1, 0, tzinfo=UTC)
MONTH_AGO = datetime(2027, 1, 20, 1, 0, tzinfo=UTC)
TERMS = {"amount": 9_900, "name": "월간 구독", "buyer_tel": "010-0000-0000"}

TRIVIAL = """
import asyncio, json, socket, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def echo(request):
    return Response(json.dumps(await request.json()), media_type="application/json")

listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
print(json.dumps({"url": "http://127.0.0.1:%d" % listener.getsockname()[1]}), flush=True)
app = Starlette(routes=[Route("/subscribe/payments/again", echo, methods=["POST"])])
config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
uvicorn.Server(config).run(sockets=[listener])
"""


class _Connection(asyncio.Protocol):
    """As little client as possible: one request at a time, answers only counted and checked."""

    def __init__(self, requests: Iterator[bytes], wanted: bytes) -> None:
        self._requests = requests
        self._wanted = wanted
        self._buffer = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        if self._wanted not in body:
            self.ended.set_exception(AssertionError(body.decode()))
            return
        self._buffer = b""
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(AssertionError("the server hung up"))

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.ended.set_result(None)
        else:
            self._transport.write(request)


async def _post_all(url: str, requests: Sequence[bytes], width: int, wanted: bytes) -> None:
    """Post all, over `width` connections."""
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    shared = iter(requests)
    made = [
        await loop.create_connection(
            lambda: _Connection(shared, wanted), parts.hostname, parts.port
        )
        for _ in range(width)
    ]
    await asyncio.gather(*(connection.ended for _, connection in made))
    for transport, _ in made:
        transport.close()


def _request(token: str, name: str) -> bytes:
    body = json.dumps({"customer_uid": name, "merchant_uid": name, **TERMS}).encode()
    head = (
        f"POST {AGAIN} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def _running(*command: str) -> Iterator[tuple[str, psutil.Process]]:
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["url"], psutil.Process(server.pid)
        finally:
            server.terminate()


def _with_customers(url: str, names: Sequence[str]) -> str:
    """Register everybody at a sandbox; returns a token."""
    customers = [
        {"customer_uid": name, "paid_at": MONTH_AGO.isoformat(), **TERMS} for name in names
    ]
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        client.post("/sandbox/clock", json={"set": NOW.isoformat()}).raise_for_status()
        client.post("/sandbox/customers", json=customers).raise_for_status()
        pair = {"imp_key": "key", "imp_secret": "secret"}
        token: str = client.post("/users/getToken", json=pair).json()["response"]["access_token"]
        return token


def _cells(
    url: str, server: psutil.Process, names: Sequence[str], widths: Sequence[int], token: str
) -> Iterator[str]:
    wanted = b'"status":"paid"' if token else b"customer_uid"
    each = len(names) // len(widths)
    for place, width in enumerate(widths):
        requests = [_request(token, name) for name in names[place * each : (place + 1) * each]]
        cpu, start = sum(server.cpu_times()[:2]), time.perf_counter()
        uvloop.run(_post_all(url, requests, width, wanted))
        elapsed, spent = time.perf_counter() - start, sum(server.cpu_times()[:2]) - cpu
        yield f"{each / elapsed:6.0f}/s  {1000 * spent / each:5.3f} ms  {each / spent:6.0f}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=4000, help="for each width")
    options.add_argument("--widths", default="1,10,100", help="connections")
    chosen = options.parse_args()
    widths = [int(width) for width in chosen.widths.split(",")]
    names = [f"customer-{number}" for number in range(chosen.requests * len(widths))]
    print(f"Python {sys.version.split()[0]}, {chosen.requests} requests each")
    print("requests/s, server CPU per request, requests per CPU second")
    print(f"{'':<24}" + "".join(f"{f'{width} connections':>32}" for width in widths))
    with tempfile.TemporaryDirectory(prefix="maewol-bench-") as folder:
        servers = {
            "trivial echo": ("-c", TRIVIAL),
            "sandbox, in memory": ("-m", "billing.sandbox"),
            "sandbox, ledger file": ("-m", "billing.sandbox", "--data", f"{folder}/ledger.db"),
        }
        for name, command in servers.items():
            with _running(*command) as (url, server):
                token = "" if command[0] == "-c" else _with_customers(url, names)
                cells = _cells(url, server, names, widths, token)
                print(f"{name:<24}" + "".join(f"{cell:>32}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
