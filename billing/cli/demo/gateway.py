"""A small PortOne for the demo: a process of its own, with its own clock, rules and ledger.

It imports nothing of ours, so that it can judge us. It refuses what the carrier would refuse: a
second payment in a calendar month, a day outside the window, another amount, name or number, no
payment in the month before. What it had to refuse for such a reason it keeps as a complaint. It
causes the troubles it is told to, each customer's own. Run as `python gateway.py`; it prints its
address. `GET /demo/ledger` is everything it knows.
"""

from __future__ import annotations

import asyncio
import calendar
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from aiohttp import web

KOREA = timezone(timedelta(hours=9))
# Long enough that a worker can be seen, and killed, at work.
LATENCY_SECONDS = 0.25
TOKEN_SECONDS = 1800
SAYS = {
    "system_error": "[0098] 시스템 오류입니다. 잠시 후 다시 시도해 주세요.",
    "limit": "[0031] 당월 한도 초과입니다. 익월에 이용해 주세요.",
    "overdue": "[0016] 미납 요금이 있습니다.",
    "number_moved": "[0023] 번호이동된 고객입니다.",
}


class Gateway:
    """Customers, payments and complaints; nothing outlives the process."""

    def __init__(self) -> None:
        self.offset = timedelta(0)
        self.customers: dict[str, dict[str, Any]] = {}
        self.rows: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.token_ends: dict[str, datetime] = {}

    def now(self) -> datetime:
        """The gateway's own moment; the demo moves it together with the book's."""
        return datetime.now(UTC) + self.offset  # its own clock, since it imports nothing of ours

    # -- what PortOne offers ------------------------------------------------------------------

    async def get_token(self, _: web.Request) -> web.Response:
        now = self.now()
        alive = [token for token, ends in self.token_ends.items() if ends > now]
        token = alive[0] if alive else f"token-{len(self.token_ends) + 1}"
        ends = self.token_ends.setdefault(token, now + timedelta(seconds=TOKEN_SECONDS))
        return _ok({"access_token": token, "now": _unix(now), "expired_at": _unix(ends)})

    async def again(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        await asyncio.sleep(LATENCY_SECONDS)
        customer = self.customers.get(body["customer_uid"])
        if customer is None:
            return _refused("등록되지 않은 구매자입니다.")
        if any(_is_paid(row, merchant_uid=body["merchant_uid"]) for row in self.rows):
            return _refused("이미 결제가 이루어진 거래건입니다.")
        if problem := self._against_the_rules(body, customer):
            self.complaints.append(f"{body['merchant_uid']}: {problem}")
            return _ok(self._add(body, "failed", f"[0060] {problem}"))
        return await self._answer(request, body, self._trouble_of(customer))

    async def of_order(self, request: web.Request) -> web.Response:
        uid = request.match_info["uid"]
        return _page([row for row in self.rows if row["merchant_uid"] == uid])

    async def of_key(self, request: web.Request) -> web.Response:
        uid = request.match_info["uid"]
        return _page([row for row in self.rows if row["customer_uid"] == uid])

    # -- what the carrier insists on ----------------------------------------------------------

    def _against_the_rules(self, body: dict[str, Any], customer: dict[str, Any]) -> str | None:
        today = self.now().astimezone(KOREA)
        months = {_month(row) for row in self.rows if _is_paid(row, body["customer_uid"])}
        this = today.year * 12 + today.month
        last_day = calendar.monthrange(today.year, today.month)[1]
        if this in months:
            return "second payment in one calendar month"
        if this - 1 not in months:
            return "no payment last month"
        if abs(today.day - min(customer["anchor_day"], last_day)) > 5:
            return "outside the window"
        first = (customer["amount"], customer["name"], customer["buyer_tel"])
        if (body["amount"], body["name"], body.get("buyer_tel")) != first:
            return "differs from the first payment"
        return None

    def _trouble_of(self, customer: dict[str, Any]) -> str:
        """The trouble that strikes now: some strike once, some until the customer acts."""
        trouble = str(customer["trouble"])
        if trouble in ("system_error", "no_answer", "reset"):
            customer["trouble"] = "none"
        elif customer["until"] and self.now() >= datetime.fromisoformat(customer["until"]):
            return "none"
        return trouble

    async def _answer(
        self, request: web.Request, body: dict[str, Any], trouble: str
    ) -> web.StreamResponse:
        if trouble in SAYS:
            return _ok(self._add(body, "failed", SAYS[trouble]))
        row = self._add(body, "paid", None)
        if trouble in ("no_answer", "reset"):
            await asyncio.sleep(30 if trouble == "no_answer" else 0)
            if request.transport is not None:
                request.transport.abort()
        return _ok(row)

    def _add(
        self, body: dict[str, Any], status: str, reason: str | None, at: datetime | None = None
    ) -> dict[str, Any]:
        now = _unix(at or self.now())
        row = {
            "imp_uid": f"imp_{len(self.rows) + 1:012d}",
            "merchant_uid": body["merchant_uid"],
            "customer_uid": body["customer_uid"],
            "amount": body["amount"],
            "cancel_amount": 0,
            "name": body["name"],
            "buyer_tel": body.get("buyer_tel"),
            "currency": "KRW",
            "pay_method": "phone",
            "pg_provider": "mobilians",
            "status": status,
            "sandbox": False,
            "fail_reason": reason,
            "started_at": now,
            "paid_at": now if status == "paid" else 0,
            "failed_at": now if status == "failed" else 0,
            "cancelled_at": 0,
        }
        self.rows.append(row)
        return row

    # -- what the demo needs ------------------------------------------------------------------

    async def move_clock(self, request: web.Request) -> web.Response:
        wanted = datetime.fromisoformat((await request.json())["now"])
        self.offset = wanted - datetime.now(UTC)
        return web.json_response({})

    async def take_in(self, request: web.Request) -> web.Response:
        for customer in await request.json():
            self.customers[customer["customer_uid"]] = customer
            for number, moment in enumerate(customer["paid"]):
                order = {**customer, "merchant_uid": f"first-{customer['customer_uid']}-{number}"}
                self._add(order, "paid", None, datetime.fromisoformat(moment))
        return web.json_response({"customers": len(self.customers)})

    async def ledger(self, _: web.Request) -> web.Response:
        return web.json_response({"rows": self.rows, "complaints": self.complaints})

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._with_token], client_max_size=16 * 1024**2)
        app.router.add_post("/users/getToken", self.get_token)
        app.router.add_post("/subscribe/payments/again", self.again)
        for path in ("", "/", "/all", "/paid"):
            app.router.add_get(f"/payments/findAll/{{uid}}{path}", self.of_order)
        app.router.add_get("/subscribe/customers/{uid}/payments", self.of_key)
        app.router.add_post("/demo/clock", self.move_clock)
        app.router.add_post("/demo/customers", self.take_in)
        app.router.add_get("/demo/ledger", self.ledger)
        return app

    @web.middleware
    async def _with_token(self, request: web.Request, handler: Any) -> web.StreamResponse:
        open_to_all = request.path == "/users/getToken" or request.path.startswith("/demo/")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not open_to_all and self.token_ends.get(token, self.now()) <= self.now():
            return web.json_response({"code": -1, "message": "Unauthorized"}, status=401)
        response: web.StreamResponse = await handler(request)
        return response


def _is_paid(row: dict[str, Any], customer_uid: str = "", *, merchant_uid: str = "") -> bool:
    ids = (row["customer_uid"], row["merchant_uid"])
    return bool(row["status"] == "paid") and (customer_uid == ids[0] or merchant_uid == ids[1])


def _month(row: dict[str, Any]) -> int:
    paid = datetime.fromtimestamp(row["paid_at"], KOREA)
    return paid.year * 12 + paid.month


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())


def _ok(response: dict[str, Any]) -> web.Response:
    return web.json_response({"code": 0, "message": None, "response": response})


def _refused(text: str) -> web.Response:
    return web.json_response({"code": 1, "message": text, "response": None})


def _page(rows: list[dict[str, Any]]) -> web.Response:
    if not rows:
        missing = {"code": -1, "message": "존재하지 않는 결제정보입니다.", "response": None}
        return web.json_response(missing, status=404)
    return _ok({"total": len(rows), "previous": 0, "next": 0, "list": rows})


async def main() -> None:
    runner = web.AppRunner(Gateway().app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
