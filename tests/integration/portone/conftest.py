"""A gateway made of a raw socket: every answer is written, cut, delayed or withheld by the test."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.domain.money import Won
from billing.portone.client import PortOneClient
from billing.portone.token import MemoryTokenStore
from billing.ports import Buyer, ChargeRequest


@dataclass
class Arrival:
    """One request as it came off the wire."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        asked: dict[str, Any] = json.loads(self.body)
        return asked


class Wire:
    """The gateway's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def answer(self, status: int, body: object, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + content)

    async def ok(self, response: object) -> None:
        await self.answer(200, {"code": 0, "message": None, "response": response})

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        peer = self.writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Scene = Callable[[Wire, Arrival], Awaitable[None]]


async def silence(wire: Wire, arrival: Arrival) -> None:
    await asyncio.sleep(60)


async def charged(wire: Wire, arrival: Arrival) -> None:
    await wire.ok(paid_for(arrival.json()))


def paid_for(asked: Mapping[str, Any], **changes: object) -> dict[str, Any]:
    """The gateway's payment for a charge request, as the documents show it."""
    return {
        "imp_uid": "imp_123456789012",
        "merchant_uid": asked["merchant_uid"],
        "customer_uid": asked["customer_uid"],
        "customer_uid_usage": "payment",
        "amount": asked["amount"],
        "currency": "KRW",
        "status": "paid",
        "paid_at": 1_732_400_000,
        "failed_at": 0,
        "sandbox": False,
        "pay_method": "phone",
        "pg_provider": "mobilians",
        "name": asked["name"],
        "fail_reason": None,
        "a_field_of_next_year": {"nested": [1, 2]},
        **changes,
    }


@dataclass
class ScriptedGateway:
    """Plays `token_scene` for getToken and `scene` for everything else; counts arrivals."""

    scene: Scene = charged
    token_scene: Scene | None = None
    token_seconds: int = 1800
    clock_ahead: int = 0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    arrivals: list[Arrival] = field(default_factory=list)
    token_fetches: int = 0
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _handlers: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def issue_token(self, wire: Wire, arrival: Arrival) -> None:
        now = int(self.now().timestamp()) + self.clock_ahead
        await wire.ok(
            {
                "access_token": f"token-{self.token_fetches}",
                "now": now,
                "expired_at": now + self.token_seconds,
            }
        )

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self.connections += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    await self._play(Wire(reader, writer))
        finally:
            self._handlers.discard(task)
            with suppress(OSError):
                writer.close()

    async def _play(self, wire: Wire) -> None:
        head = (await wire.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await wire.reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = first.split(" ")
        arrival = Arrival(method, path, headers, body)
        if path == "/users/getToken":
            self.token_fetches += 1
            await (self.token_scene or self.issue_token)(wire, arrival)
        else:
            self.arrivals.append(arrival)
            await self.scene(wire, arrival)


@dataclass
class Clock:
    """A clock to move; the wall and the monotonic one together."""

    moved: float = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.moved)

    def monotonic(self) -> float:
        return time.monotonic() + self.moved


@dataclass
class Kit:
    """What a test of the client needs."""

    gateway: ScriptedGateway
    clock: Clock
    clients: list[PortOneClient] = field(default_factory=list)

    def client(self, **changes: Any) -> PortOneClient:
        settings: dict[str, Any] = {
            "tokens": MemoryTokenStore(),
            "now": self.clock.now,
            "monotonic": self.clock.monotonic,
            "charge_timeout": 5.0,
            "include_sandbox": False,
            "lookup_timeout": 5.0,
        } | changes
        url = settings.pop("url", self.gateway.url)
        made = PortOneClient(url, "the-key", "the-secret", **settings)
        self.clients.append(made)
        return made

    @staticmethod
    def request(number: int = 1, **changes: Any) -> ChargeRequest:
        facts: dict[str, Any] = {
            "customer_uid": "customer@example.com",
            "merchant_uid": f"mw-abc-202411-{number:02}",
            "amount": Won(9900),
            "order_name": "월간 구독",
            "buyer": Buyer(name="홍길동", email="hong@example.com", tel="010-1234-5678"),
        }
        return ChargeRequest(**(facts | changes))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    clock = Clock()
    gateway = ScriptedGateway(now=clock.now)
    await gateway.start()
    made = Kit(gateway, clock)
    yield made
    for client in made.clients:
        await client.aclose()
    await gateway.stop()
