"""A second, small PortOne, written apart from the sandbox and from docs/gateway.md alone.

The sandbox is part of the product; a mistake in how we read the guide could be in both of us. This
one knows no carrier rules: it takes what it is sent, keeps a ledger, and loses answers by seed.
Run as a process: `python foreign_gateway.py SEED FAULTS` prints its port; `GET /ledger` is what it
saw.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from typing import Any

from aiohttp import web

TOKEN = "a-token-of-the-foreign-gateway"
FAULTS = (
    "lost_before",
    "lost_after",
    "502",
    "html",
    "cut",
    "401",
    "429",
    "system",
    "limit",
    "moved",
)


class Gateway:
    """Everything it knows: rows by imp_uid, and every request for a charge."""

    def __init__(self, seed: int, fault_share: float) -> None:
        self.dice = random.Random(seed)
        self.fault_share = fault_share
        self.rows: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.tokens = 0

    async def get_token(self, _: web.Request) -> web.Response:
        self.tokens += 1
        now = int(time.time())
        return _ok({"access_token": TOKEN, "now": now, "expired_at": now + 1800})

    async def again(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"code": -1, "message": "Unauthorized"}, status=401)
        body = await request.json()
        self.requests.append({"at": time.time(), **body})
        if any(
            row["merchant_uid"] == body["merchant_uid"] and row["status"] == "paid"
            for row in self.rows
        ):
            return _refused("이미 결제가 이루어진 거래건입니다.")
        fault = self.dice.choice(FAULTS) if self.dice.random() < self.fault_share else "none"
        return await self._answer(request, body, fault)

    async def _answer(
        self, request: web.Request, body: dict[str, Any], fault: str
    ) -> web.StreamResponse:
        match fault:
            case "lost_before":
                return await _silence(request)
            case "lost_after":
                self._row(body, "paid", None)
                return await _silence(request)
            case "502":
                self._row(body, "paid", None)
                return web.Response(status=502, text="Bad Gateway")
            case "html":
                return web.Response(text="<html>점검 중</html>", content_type="text/html")
            case "cut":
                self._row(body, "paid", None)
                return web.Response(text='{"code":0,"resp', content_type="application/json")
            case "401":
                return web.json_response({"code": -1, "message": "Unauthorized"}, status=401)
            case "429":
                return web.json_response({}, status=429, headers={"Retry-After": "1"})
            case "system":
                return _ok(self._row(body, "failed", "[0098] 시스템 오류입니다. 잠시 후 다시"))
            case "limit":
                return _ok(self._row(body, "failed", "[0031] 당월 한도 초과"))
            case "moved":
                return _ok(self._row(body, "failed", "[0023] 번호이동"))
        return _ok(self._row(body, "paid", None))

    def _row(self, body: dict[str, Any], status: str, reason: str | None) -> dict[str, Any]:
        now = int(time.time())
        row = {
            "imp_uid": f"imp_{len(self.rows) + 1:08d}",
            "merchant_uid": body["merchant_uid"],
            "customer_uid": body["customer_uid"],
            "amount": body["amount"],
            "name": body["name"],
            "currency": "KRW",
            "pay_method": "phone",
            "pg_provider": "mobilians",
            "status": status,
            "started_at": now,
            "paid_at": now if status == "paid" else 0,
            "failed_at": now if status == "failed" else 0,
            "cancelled_at": 0,
            "cancel_amount": 0,
            "fail_reason": reason,
            "sandbox": False,
            "a_field_of_tomorrow": {"x": [1, 2]},
        }
        self.rows.append(row)
        return row

    async def of_order(self, request: web.Request) -> web.Response:
        return _page([r for r in self.rows if r["merchant_uid"] == request.match_info["uid"]])

    async def of_key(self, request: web.Request) -> web.Response:
        return _page([r for r in self.rows if r["customer_uid"] == request.match_info["uid"]])

    async def ledger(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"rows": self.rows, "requests": self.requests, "tokens": self.tokens}
        )

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/users/getToken", self.get_token)
        app.router.add_post("/subscribe/payments/again", self.again)
        app.router.add_get("/payments/findAll/{uid}", self.of_order)
        app.router.add_get("/payments/findAll/{uid}/", self.of_order)
        app.router.add_get("/payments/findAll/{uid}/all", self.of_order)
        app.router.add_get("/subscribe/customers/{uid}/payments", self.of_key)
        app.router.add_get("/ledger", self.ledger)
        return app


def _ok(response: dict[str, Any]) -> web.Response:
    return web.json_response({"code": 0, "message": None, "response": response})


def _refused(text: str) -> web.Response:
    return web.json_response({"code": 1, "message": text, "response": None})


def _page(rows: list[dict[str, Any]]) -> web.Response:
    if not rows:
        missing = {"code": -1, "message": "존재하지 않는 결제정보입니다.", "response": None}
        return web.json_response(missing, status=404)
    return _ok({"total": len(rows), "previous": 0, "next": 0, "list": rows})


async def _silence(request: web.Request) -> web.StreamResponse:
    """No answer at all; the connection is cut long after any client gave up."""
    await asyncio.sleep(30)
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def main(seed: int, fault_share: float) -> None:
    runner = web.AppRunner(Gateway(seed, fault_share).app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
