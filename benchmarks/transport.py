"""Which HTTP client carries the charges? Prints requests per second and client CPU, side by side.

    python benchmarks/transport.py [--seconds 3] [--widths 50,100,200] [--delays-ms 0,50,300]

One small server answers after a fixed delay in a process of its own; every client posts the same
body to it from one event loop, `width` at a time. Read the ratios, not the absolutes: client and
server share this machine. The decision is docs/adr/0003-http-transport.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from multiprocessing.connection import Connection
from typing import cast

import aiohttp
import httpx
import uvloop
from httpx_aiohttp import AiohttpTransport as PackagedTransport
from rig.client import a_client

from billing.domain.money import Won
from billing.domain.outcome import Approved
from billing.portone.transport import AiohttpTransport, verified_tls
from billing.ports import Buyer, ChargeRequest

Post = Callable[[int], Awaitable[None]]
BODY = {
    "customer_uid": "customer-1",
    "merchant_uid": "mw-1",
    "amount": 9900,
    "name": "Monthly plan",
    "buyer_name": "Hong",
    "buyer_tel": "01000000000",
}
CONTENT = json.dumps(BODY).encode()


# --- the server: as little work as possible, so that the clients are what is measured -----------


class _Answering(asyncio.Protocol):
    delay = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = 0
        for line in head.split(b"\r\n"):
            if line[:15].lower() == b"content-length:":
                length = int(line[15:])
        if len(rest) < length:
            return
        self.buffer = b""
        answer = _answer(head, rest)
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)


def _answer(head: bytes, body: bytes) -> bytes:
    now = int(time.time())
    if b"getToken" in head:
        response = {"access_token": "t" * 40, "now": now, "expired_at": now + 1800}
    else:
        asked = json.loads(body)
        response = {
            "imp_uid": "imp_" + asked["merchant_uid"],
            "merchant_uid": asked["merchant_uid"],
            "customer_uid": asked["customer_uid"],
            "amount": asked["amount"],
            "currency": "KRW",
            "status": "paid",
            "paid_at": now,
            "sandbox": False,
            "pay_method": "phone",
            "pg_provider": "mobilians",
            "name": asked["name"],
            "fail_reason": None,
            "cancel_history": [],
            **{f"unused_{n}": None for n in range(20)},
        }
    content = json.dumps({"code": 0, "message": None, "response": response}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        len(content),
        content,
    )


def serve(delay: float, ready: Connection) -> None:
    async def run() -> None:
        _Answering.delay = delay
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Answering, "127.0.0.1", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


# --- the clients --------------------------------------------------------------------------------


@asynccontextmanager
async def httpx_pool(url: str, width: int) -> AsyncIterator[Post]:
    limits = httpx.Limits(max_connections=width, max_keepalive_connections=width)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
        yield _through([client], url)


@asynccontextmanager
async def httpx_small_pools(url: str, width: int) -> AsyncIterator[Post]:
    limits = httpx.Limits(max_connections=5, max_keepalive_connections=5)
    tls = ssl.create_default_context()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(limits=limits, timeout=60, trust_env=False, verify=tls)
            )
            for _ in range(max(1, width // 5))
        ]
        yield _through(clients, url)


@asynccontextmanager
async def httpx_aiohttp_package(url: str, width: int) -> AsyncIterator[Post]:
    transport = PackagedTransport(limits=httpx.Limits(max_connections=width, keepalive_expiry=15))
    async with httpx.AsyncClient(transport=transport, timeout=60, trust_env=False) as client:
        yield _through([client], url)


@asynccontextmanager
async def our_transport_alone(url: str, width: int) -> AsyncIterator[Post]:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer t"}
    transport = _our_transport(width)

    async def post(_: int) -> None:
        json.loads((await transport.send("POST", url + "/again", headers, CONTENT)).body)

    try:
        yield post
    finally:
        await transport.aclose()


@asynccontextmanager
async def raw_aiohttp(url: str, width: int) -> AsyncIterator[Post]:
    connector = aiohttp.TCPConnector(limit=width)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:

        async def post(_: int) -> None:
            async with session.post(url + "/again", data=CONTENT) as response:
                json.loads(await response.read())

        yield post


@asynccontextmanager
async def portone_client(url: str, width: int) -> AsyncIterator[Post]:
    client = a_client(url, width)

    async def post(number: int) -> None:
        request = ChargeRequest(
            customer_uid="customer-1",
            merchant_uid=f"mw-{number}",
            amount=Won(9900),
            order_name="Monthly plan",
            buyer=Buyer(name="Hong", tel="01000000000"),
        )
        if not isinstance(await client.charge(request), Approved):
            raise AssertionError("the benchmark's charge was not approved")

    try:
        yield post
    finally:
        await client.aclose()


def _our_transport(width: int) -> AiohttpTransport:
    return AiohttpTransport(connect_timeout=10, max_connections=width, tls=verified_tls())


def _through(clients: list[httpx.AsyncClient], url: str) -> Post:
    turn = cycle(clients)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer t"}

    async def post(_: int) -> None:
        response = await next(turn).post(url + "/again", content=CONTENT, headers=headers)
        json.loads(response.content)

    return post


CLIENTS = {
    "httpx, one pool": httpx_pool,
    "httpx, pools of 5": httpx_small_pools,
    "httpx + httpx-aiohttp": httpx_aiohttp_package,
    "our transport alone": our_transport_alone,
    "raw aiohttp (ceiling)": raw_aiohttp,
    "PortOneClient.charge": portone_client,
}


# --- measuring ----------------------------------------------------------------------------------


async def measure(name: str, url: str, width: int, seconds: float) -> tuple[float, float]:
    """Requests per second and client CPU milliseconds per request."""
    async with CLIENTS[name](url, width) as post:
        await asyncio.gather(*(post(-n) for n in range(width)))  # open the connections
        done = 0
        start, cpu = time.perf_counter(), time.process_time()

        async def worker() -> None:
            nonlocal done
            while time.perf_counter() - start < seconds:
                await post(done)
                done += 1

        await asyncio.gather(*(worker() for _ in range(width)))
        elapsed, spent = time.perf_counter() - start, time.process_time() - cpu
    return done / elapsed, 1000 * spent / done


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--widths", default="50,100,200")
    options.add_argument("--delays-ms", default="0,50,300")
    options.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    chosen = options.parse_args()
    widths = [int(width) for width in chosen.widths.split(",")]
    run = uvloop.run if chosen.loop == "uvloop" else asyncio.run
    print(f"Python {sys.version.split()[0]}, {chosen.loop}, {chosen.seconds:g} s each")
    print("req/s (ratio to the first line), client CPU ms per request")
    for delay in (int(text) for text in chosen.delays_ms.split(",")):
        parent, child = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(delay / 1000, child), daemon=True
        )
        server.start()
        url = f"http://127.0.0.1:{parent.recv()}"
        heading = "".join(f"{f'width {width}':>24}" for width in widths)
        print(f"\nanswer after {delay} ms{'':<7}{heading}")
        first: dict[int, float] = {}
        for name in CLIENTS:
            cells = []
            for width in widths:
                rate, cpu = run(measure(name, url, width, chosen.seconds))
                ratio = rate / first.setdefault(width, rate)
                cells.append(f"{rate:8.0f} ({ratio:5.1f}x) {cpu:6.3f}")
            print(f"{name:<24}{''.join(f'{cell:>24}' for cell in cells)}", flush=True)
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
