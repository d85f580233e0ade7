"""Control of the sandbox, under `/sandbox/`: for tests and demos on this machine, without a key.

    GET  /sandbox/health                       {"ok": true, "now": …}
    POST /sandbox/customers                    register keys: one, a list, {"customers": […]}
    POST /sandbox/customers/{customer_uid}     change a line: limit, condition, script
    POST /sandbox/pay                          a payment by hand
    GET  /sandbox/ledger?customer_uid&limit&after     payments, oldest first
    GET  /sandbox/requests?customer_uid&kind&limit&after   every request seen
    GET  /sandbox/verdict?declines_per_day=2   what was done wrong
    GET  /sandbox/clock, POST {"advance_seconds": …} or {"set": …}
    POST /sandbox/travel {"days": …} or {"until": …}   on, stop by stop (see `travel`); {} stops
    POST /sandbox/cancel {"imp_uid": …}        a cancellation in the gateway's console
    GET  /sandbox/webhooks, POST {"url": …, "format": "json" | "form"}
    GET  /sandbox/faults, POST a whole faults document (see `faults`)
    POST /sandbox/revoke                       end all access tokens
    POST /sandbox/reset                        forget everything but the clock and the mood

Errors are `{"error": "…"}` with status 400; 403 for a browser that another site sent.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, FiniteFloat, TypeAdapter, ValidationError
from pydantic import Field as Bounded
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from billing.sandbox.browser import is_disguised, is_foreign
from billing.sandbox.cancelling import cancel_in_console
from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import Payment, Seen
from billing.sandbox.mood import FaultsError, mood, told
from billing.sandbox.travel import LONGEST, PAUSE_SECONDS, Journey
from billing.sandbox.verdict import judge
from billing.sandbox.webhooks import Address, Format, WebhookAddressError, checked_url
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


class Travel(BaseModel):
    """Where a journey goes; neither to stay here. `pause_seconds` is how long each stop lasts."""

    model_config = ConfigDict(extra="forbid")

    days: Annotated[FiniteFloat, Bounded(gt=0, le=LONGEST.days)] | None = None
    until: AwareDatetime | None = None
    pause_seconds: Annotated[FiniteFloat, Bounded(ge=0.05, le=60)] = PAUSE_SECONDS


class Cancel(BaseModel):
    """One payment to cancel."""

    model_config = ConfigDict(extra="forbid")

    imp_uid: str
    reason: str = ""


class WebhookAddress(BaseModel):
    """Where webhooks go; an empty `url` for nowhere."""

    model_config = ConfigDict(extra="forbid")

    url: str = ""
    format: Format = "json"


_CUSTOMERS = TypeAdapter(list[NewCustomer])
_CHANGE, _HAND, _MOVE = TypeAdapter(LineChange), TypeAdapter(HandPayment), TypeAdapter(Move)
_TRAVEL, _CANCEL = TypeAdapter(Travel), TypeAdapter(Cancel)
_WEBHOOKS = TypeAdapter(WebhookAddress)


def control_routes(sandbox: Sandbox, journey: Journey) -> list[Route]:
    """All control routes."""

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
        until = None if journey.until is None else journey.until.isoformat()
        offset = sandbox.clock.offset.total_seconds()
        return {"now": now.isoformat(), "offset_seconds": offset, "travelling_until": until}

    async def move_clock(request: Request) -> Answer:
        move = _read(_MOVE, await _document(request))
        if (move.advance_seconds is None) == (move.set is None):
            raise Bad('give either "advance_seconds" or "set"')
        journey.stop()
        if move.set is not None:
            sandbox.clock.set(move.set)
        else:
            sandbox.clock.advance(move.advance_seconds or 0.0)
        sandbox.clock_moved()
        return await clock(request)

    async def travel(request: Request) -> Answer:
        asked = _read(_TRAVEL, await _document(request))
        until = asked.until
        if asked.days is not None:
            if until is not None:
                raise Bad('give either "days" or "until"')
            until = sandbox.clock.now() + timedelta(days=asked.days)
        if until is None:
            journey.stop()
        elif until > sandbox.clock.now() + LONGEST:
            raise Bad(f"a journey ends within {LONGEST.days} days")
        else:
            journey.start(until, pause=asked.pause_seconds)
        return await clock(request)

    async def cancel(request: Request) -> Answer:
        asked = _read(_CANCEL, await _document(request))
        done = cancel_in_console(sandbox, asked.imp_uid, asked.reason)
        if done.body["code"] != 0:
            raise Bad(str(done.body["message"]))
        return {"payment": done.body["response"]}

    async def webhooks(request: Request) -> Answer:
        return asdict(sandbox.webhooks.address)

    async def set_webhooks(request: Request) -> Answer:
        asked = _read(_WEBHOOKS, await _document(request))
        sandbox.webhooks.address = Address(checked_url(asked.url), asked.format)
        return await webhooks(request)

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
        route("health", health, "GET"),
        route("customers", add_customers, "POST"),
        route("customers/{customer_uid}", change_line, "POST"),
        route("pay", pay_by_hand, "POST"),
        route("ledger", ledger, "GET"),
        route("requests", requests, "GET"),
        route("verdict", verdict, "GET"),
        route("clock", clock, "GET"),
        route("clock", move_clock, "POST"),
        route("travel", travel, "POST"),
        route("cancel", cancel, "POST"),
        route("webhooks", webhooks, "GET"),
        route("webhooks", set_webhooks, "POST"),
        route("faults", faults, "GET"),
        route("faults", set_faults, "POST"),
        route("revoke", revoke, "POST"),
        route("reset", reset, "POST"),
    ]


def _carried_out(
    sandbox: Sandbox, endpoint: Callable[[Request], Awaitable[Answer]]
) -> Callable[[Request], Awaitable[Response]]:
    async def carry_out(request: Request) -> Response:
        if request.method == "POST" and (is_foreign(request) or is_disguised(request)):
            return JSONResponse({"error": "a page of another site sent this"}, 403)
        sandbox.settle()
        try:
            answer = await endpoint(request)
            await sandbox.ledger.committed()
        except (Bad, FaultsError, WebhookAddressError, WorldError) as error:
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
