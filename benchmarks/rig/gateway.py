"""A gateway that costs as little as possible: fixed delay, everything approved, everything counted.

    python benchmarks/rig/gateway.py --delay-ms 50

Prints its address as one JSON line. Not a sandbox: it checks nothing but that no `merchant_uid` and
no customer is charged twice. `GET /seen` tells what came, and when.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any, cast

import httptools
import uvloop

AGAIN = "/subscribe/payments/again"
NO_ROWS = {"total": 0, "previous": 0, "next": 0, "list": []}


class Ledger:
    """What was charged, and when each answer left."""

    def __init__(self) -> None:
        self.customers: set[str] = set()
        self.orders: set[str] = set()
        self.doubles = 0
        self.first_request: float | None = None
        self.answered_at: list[float] = []

    def charge(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.first_request = self.first_request or time.time()
        customer_uid, merchant_uid = asked["customer_uid"], asked["merchant_uid"]
        self.doubles += customer_uid in self.customers or merchant_uid in self.orders
        self.customers.add(customer_uid)
        self.orders.add(merchant_uid)
        return {
            "imp_uid": f"imp_{len(self.orders)}",
            "merchant_uid": merchant_uid,
            "customer_uid": customer_uid,
            "status": "paid",
            "amount": asked["amount"],
            "currency": "KRW",
            "pay_method": "phone",
            "pg_provider": "mobilians",
            "name": asked["name"],
            "paid_at": int(time.time()),
            "failed_at": 0,
            "cancelled_at": 0,
            "fail_reason": None,
        }

    def seen(self) -> dict[str, Any]:
        times = self.answered_at
        return {
            "charged": len(times),
            "doubles": self.doubles,
            "first": self.first_request,
            "last": times[-1] if times else None,
            "times": times,
        }


class Connection(asyncio.Protocol):
    """One client's connection; requests come one after the other."""

    def __init__(self, ledger: Ledger, delay: float) -> None:
        self._ledger, self._delay = ledger, delay
        self._loop = asyncio.get_running_loop()
        self._fresh()

    def _fresh(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path = self._url.split(b"?")[0].decode()
        delay = 0.0 if path == "/seen" else self._delay
        self._loop.call_later(delay, self._answer, path, self._body)
        self._url, self._body = b"", b""

    def _answer(self, path: str, body: bytes) -> None:
        if path == "/seen":
            response: Any = self._ledger.seen()
        elif path == "/users/getToken":
            now = int(time.time())
            response = {"access_token": "t" * 40, "now": now, "expired_at": now + 1800}
        elif path == AGAIN:
            response = self._ledger.charge(json.loads(body))
            self._ledger.answered_at.append(time.time())
        elif path.startswith("/subscribe/customers/") and path.endswith("/payments"):
            response = NO_ROWS
        else:
            self._send(404, {"code": 1, "message": "not here", "response": None})
            return
        self._send(200, {"code": 0, "message": None, "response": response})

    def _send(self, status: int, envelope: dict[str, Any]) -> None:
        body = json.dumps(envelope, separators=(",", ":")).encode()
        head = (
            f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)


async def _serve(delay: float) -> None:
    ledger = Ledger()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(ledger, delay), "127.0.0.1", 0, backlog=4096
    )
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--delay-ms", type=float, default=50)
    uvloop.run(_serve(options.parse_args().delay_ms / 1000))
