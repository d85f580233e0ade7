"""Control of the sandbox, under `/sandbox/`: for tests and demos on this machine, without a key.

    GET  /sandbox/health                       {"ok": true, "now": …}
    POST /sandbox/customers                    register keys: one, a list, {"customers": […]}
    POST /sandbox/customers/{customer_uid}     change a line: limit, condition, script
    POST /sandbox/pay                          a payment by hand
    GET  /sandbox/ledger?customer_uid&limit&after     payments, oldest first
    GET  /sandbox/requests?customer_uid&kind&limit&after   every request seen
    GET  /sandbox/verdict?declines_per_day=2   what was done wrong
    GET  /sandbox/clock, POST {"advance_seconds": …} or {"set": …}
    GET  /sandbox/faults, POST a whole faults document (see `faults`)
    POST /sandbox/revoke                       end all access tokens
    POST /sandbox/reset                        forget everything but the clock and the mood

Errors are `{"error": "…"}` with status 400.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, FiniteFloat, TypeAdapter, ValidationError
from pydantic import Field as Bounded
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import Payment, Seen
from billing.sandbox.mood import FaultsError, mood, told
from billing.sandbox.page import page
from billing.sandbox.verdict import judge
from billing.sandbox.world import (
    HandPayment,
    LineChange,
    NewCustomer,
    WorldError,
    change,
    pay,
    register,
)

Answer = dict[str, Any]
M = TypeVar("M")

# Rows of one page: enough for a test world, little enough for a browser.
_ROWS = 1000

# A world of 100,000 customers is about 30 MB.
_LARGEST_BODY = 256 << 20


class Bad(ValueError):
    """A control request that cannot be carried out: HTTP 400 with this text."""


class Move(BaseModel):
    """Where the clock goes: by so many seconds, or to a moment."""

    model_config = ConfigDict(extra="forbid")

    advance_seconds: Annotated[FiniteFloat, Bounded(ge=-4e9, le=4e9)] | None = None
    set: AwareDatetime | None = None


_CUSTOMERS = TypeAdapter(list[NewCustomer])
_CHANGE, _HAND, _MOVE = TypeAdapter(LineChange), TypeAdapter(HandPayment), TypeAdapter(Move)


def control_routes(sandbox: Sandbox) -> list[Route]:
    """All control routes, and the page at `/`."""

    async def home(request: Request) -> Response:
        sandbox.settle()
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return HTMLResponse(page(sandbox), headers={"Content-Security-Policy": policy})

    async def health(request: Request) -> Answer:
        return {"ok": True, "now": sandbox.clock.now().isoformat()}

    async def add_customers(request: Request) -> Answer:
        document = await _document(request)
        if isinstance(document, dict):
            document = document.get("customers", [document])
        wishes = _read(_CUSTOMERS, document)
        made = register(sandbox, wishes)
        return {
            "customers": [
                {
                    "customer_uid": one.customer_uid,
                    "imp_uid": one.imp_uid,
                    "merchant_uid": one.merchant_uid,
                }
                for one in made
            ]
        }

    async def change_line(request: Request) -> Answer:
        wish = _read(_CHANGE, await _document(request))
        return asdict(change(sandbox, str(request.path_params["customer_uid"]), wish))

    async def pay_by_hand(request: Request) -> Answer:
        return asdict(pay(sandbox, _read(_HAND, await _document(request))))

    async def ledger(request: Request) -> Answer:
        uid = request.query_params.get("customer_uid")
        book = sandbox.ledger
        return _page(request, "payments", book.payments if uid is None else book.of_customer(uid))

    async def requests(request: Request) -> Answer:
        wanted = {
            name: request.query_params[name]
            for name in ("customer_uid", "merchant_uid", "kind")
            if name in request.query_params
        }
        rows = [
            one
            for one in sandbox.ledger.requests
            if all(getattr(one, name) == value for name, value in wanted.items())
        ]
        return _page(request, "requests", rows)

    async def verdict(request: Request) -> Answer:
        book, allowed = sandbox.ledger, _whole(request, "declines_per_day", 2)
        now = sandbox.clock.unix()
        return judge(book.payments, book.keys, book.requests, now, allowed).as_json()

    async def clock(request: Request) -> Answer:
        now = sandbox.clock.now()
        return {"now": now.isoformat(), "offset_seconds": sandbox.clock.offset.total_seconds()}

    async def move_clock(request: Request) -> Answer:
        move = _read(_MOVE, await _document(request))
        if (move.advance_seconds is None) == (move.set is None):
            raise Bad('give either "advance_seconds" or "set"')
        if move.set is not None:
            sandbox.clock.set(move.set)
        else:
            sandbox.clock.advance(move.advance_seconds or 0.0)
        sandbox.clock_moved()
        return await clock(request)

    async def faults(request: Request) -> Answer:
        return sandbox.mood.model_dump(mode="json", by_alias=True)

    async def set_faults(request: Request) -> Answer:
        sandbox.mood = mood(await _document(request))
        return await faults(request)

    async def revoke(request: Request) -> Answer:
        sandbox.tokens.revoke()
        return {"ok": True}

    async def reset(request: Request) -> Answer:
        sandbox.reset()
        return {"ok": True}

    def route(path: str, endpoint: Callable[[Request], Awaitable[Answer]], method: str) -> Route:
        return Route(f"/sandbox/{path}", _carried_out(sandbox, endpoint), methods=[method])

    return [
        Route("/", home, methods=["GET"]),
        route("health", health, "GET"),
        route("customers", add_customers, "POST"),
        route("customers/{customer_uid}", change_line, "POST"),
        route("pay", pay_by_hand, "POST"),
        route("ledger", ledger, "GET"),
        route("requests", requests, "GET"),
        route("verdict", verdict, "GET"),
        route("clock", clock, "GET"),
        route("clock", move_clock, "POST"),
        route("faults", faults, "GET"),
        route("faults", set_faults, "POST"),
        route("revoke", revoke, "POST"),
        route("reset", reset, "POST"),
    ]


def _carried_out(
    sandbox: Sandbox, endpoint: Callable[[Request], Awaitable[Answer]]
) -> Callable[[Request], Awaitable[Response]]:
    async def carry_out(request: Request) -> Response:
        sandbox.settle()
        try:
            answer = await endpoint(request)
            await sandbox.ledger.committed()
        except (Bad, FaultsError, WorldError) as error:
            return JSONResponse({"error": str(error)}, 400)
        except sqlite3.Error as error:
            return JSONResponse({"error": f"the ledger cannot be written: {error}"}, 500)
        return JSONResponse(answer)

    return carry_out


async def _document(request: Request) -> Any:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _LARGEST_BODY:
            raise Bad("the body is too long")
    try:
        return json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise Bad(f"the body is not JSON: {error}") from None


def _read(adapter: TypeAdapter[M], document: Any) -> M:
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        raise Bad(told(error)) from None


def _page(request: Request, name: str, rows: Sequence[Payment] | Sequence[Seen]) -> Answer:
    """Rows with a number above `after`; `next` is what to pass as `after`, null at the end."""
    begin, limit = _whole(request, "after", 0), min(_whole(request, "limit", 100), _ROWS)
    later = [one for one in rows if one.number > begin]
    some = later[:limit]
    return {
        "total": len(rows),
        "next": some[-1].number if len(some) < len(later) else None,
        name: [_shown(one) for one in some],
    }


def _shown(row: Payment | Seen) -> Answer:
    shown = asdict(row)
    if isinstance(row, Seen):
        shown["at"] = datetime.fromtimestamp(row.at, UTC).isoformat()
    return shown


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Bad(f"{name} must be a whole number")
    return int(text)
