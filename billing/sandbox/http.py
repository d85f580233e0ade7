"""PortOne's routes: read the request, check the token, strike with the mood, answer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from billing.sandbox import cancelling, charging, keys, lookups, preparing
from billing.sandbox.faults import Fault, lookup_fault
from billing.sandbox.gateway import Sandbox
from billing.sandbox.lookups import BadQuery, Query
from billing.sandbox.mood import by_chance, seconds
from billing.sandbox.reply import (
    Broken,
    Reply,
    bad_request,
    door,
    not_found,
    refusal,
    unauthorized,
)
from billing.sandbox.texts import cancel_text
from billing.sandbox.wire import respond

Form = Mapping[str, object]
Asker = Callable[[Request, Query], Reply]
Doer = Callable[[Sandbox, Form], Reply]
Striker = Callable[[Sandbox], Fault | None]

Answering = Callable[[Request], Awaitable[Response]]

# No request of this API is longer; a longer one is not read.
LARGEST_BODY = 1 << 20


class Endpoint:
    """A route's end as an application: what Starlette puts around a function costs as much as a
    charge."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answering(Request(scope, receive))
        await response(scope, receive, send)


def routes(sandbox: Sandbox) -> list[Route]:
    """All routes of PortOne V1 that phone billing needs."""
    box = sandbox

    def path(request: Request, name: str) -> str:
        return str(request.path_params[name])

    def state(request: Request) -> str:
        return str(request.path_params.get("payment_status", ""))

    def one_payment(request: Request, query: Query) -> Reply:
        return lookups.payment(box, path(request, "imp_uid"), query)

    def balance(request: Request, query: Query) -> Reply:
        return lookups.balance(box, path(request, "imp_uid"), query)

    def find_all(request: Request, query: Query) -> Reply:
        return lookups.find_all(box, path(request, "merchant_uid"), state(request), query)

    def find(request: Request, query: Query) -> Reply:
        return lookups.find(box, path(request, "merchant_uid"), state(request), query)

    def by_state(request: Request, query: Query) -> Reply:
        return lookups.by_state(box, path(request, "payment_status"), query)

    def by_ids(request: Request, query: Query) -> Reply:
        return lookups.by_ids(
            box, _listed(request, "imp_uid"), _listed(request, "merchant_uid"), query
        )

    def customer(request: Request, query: Query) -> Reply:
        return lookups.customer(box, path(request, "customer_uid"))

    def customers(request: Request, query: Query) -> Reply:
        return lookups.customers(box, _listed(request, "customer_uid"))

    def of_customer(request: Request, query: Query) -> Reply:
        return lookups.of_customer(box, path(request, "customer_uid"), query)

    def schedules(request: Request, query: Query) -> Reply:
        return lookups.schedules(box, path(request, "customer_uid"), query)

    def scheduled(request: Request, query: Query) -> Reply:
        return lookups.scheduled(box, path(request, "merchant_uid"))

    def prepared(request: Request, query: Query) -> Reply:
        return preparing.prepared(box, path(request, "merchant_uid"))

    def delete_key(request: Request, query: Query) -> Reply:
        return keys.delete(box, path(request, "customer_uid"))

    def ask(path: str, kind: str, answer: Asker, method: str = "GET") -> Route:
        return Route(path, _asked(box, kind, answer), methods=[method])

    def do(path: str, kind: str, act: Doer, fault_of: Striker = Sandbox.spell) -> Route:
        return Route(path, _done(box, kind, act, fault_of), methods=["POST"])

    def of_order(what: str, answer: Asker) -> list[Route]:
        path = f"/payments/{what}/{{merchant_uid}}"
        return [ask(path + end, what, answer) for end in ("", "/", "/{payment_status}")]

    # A customer_uid may hold a slash, which the server has decoded by now.
    key, plan = "/subscribe/customers/{customer_uid:path}", "/subscribe/payments"
    return [
        Route(f"{plan}/again", _again(box), methods=["POST"]),
        Route("/users/getToken", _get_token(box), methods=["POST"]),
        *of_order("findAll", find_all),
        *of_order("find", find),
        do("/payments/cancel", "cancel", cancelling.cancel, cancelling.fault_of),
        do("/payments/prepare", "prepare", preparing.prepare),
        ask("/payments/prepare/{merchant_uid}", "prepared", prepared),
        ask("/payments/status/{payment_status}", "status", by_state),
        ask("/payments/{imp_uid}/balance", "balance", balance),
        ask("/payments/{imp_uid}", "payment", one_payment),
        ask("/payments", "payments", by_ids),
        ask("/payments/", "payments", by_ids),
        ask(f"{key}/payments", "customer_payments", of_customer),
        ask(f"{key}/schedules", "schedules", schedules),
        ask(key, "customer", customer),
        ask(key, "delete_customer", delete_key, "DELETE"),
        ask("/subscribe/customers", "customers", customers),
        do(f"{plan}/schedule", "schedule", keys.schedule),
        ask(f"{plan}/schedule/{{merchant_uid}}", "scheduled", scheduled),
        ask(f"{plan}/schedule/customers/{{customer_uid:path}}", "schedules", schedules),
        do(f"{plan}/unschedule", "unschedule", keys.unschedule),
    ]


def _again(sandbox: Sandbox) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        form = await _form(request)
        if not _authorised(sandbox, request):
            sandbox.saw("again", "turned_away", **_about(form))
            return await _answered(sandbox, unauthorized())
        if form is None:
            sandbox.saw("again", "refused:malformed")
            return await _answered(sandbox, bad_request("the body is neither JSON nor a form"))
        try:
            return respond(await charging.again(sandbox, form))
        except sqlite3.Error as error:
            return respond(_disk(error))

    return Endpoint(endpoint)


def _get_token(sandbox: Sandbox) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        form = await _form(request)
        fault = sandbox.spell()
        return await _through(
            sandbox, "token", fault, lambda: sandbox.tokens.get_token(form or {}), {}
        )

    return Endpoint(endpoint)


def _asked(sandbox: Sandbox, kind: str, answer: Asker) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        about = {
            "order": str(request.path_params.get("merchant_uid", "")),
            "customer": str(request.path_params.get("customer_uid", "")),
        }
        if not _authorised(sandbox, request):
            sandbox.saw(kind, "turned_away", **about)
            return await _answered(sandbox, unauthorized())
        query = Query(request.query_params)

        def asked() -> Reply:
            try:
                return answer(request, query)
            except BadQuery as error:
                return bad_request(str(error))

        return await _through(sandbox, kind, _lookup_fault(sandbox, kind), asked, about)

    return Endpoint(endpoint)


def _done(sandbox: Sandbox, kind: str, do: Doer, fault_of: Striker = Sandbox.spell) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        form = await _form(request)
        if not _authorised(sandbox, request):
            sandbox.saw(kind, "turned_away", **_about(form))
            return await _answered(sandbox, unauthorized())
        if form is None:
            return await _answered(sandbox, bad_request("the body is neither JSON nor a form"))
        fault = fault_of(sandbox)
        return await _through(sandbox, kind, fault, lambda: do(sandbox, form), _about(form))

    return Endpoint(endpoint)


async def _through(
    sandbox: Sandbox,
    kind: str,
    fault: Fault | None,
    answer: Callable[[], Reply],
    about: Mapping[str, str],
) -> Response:
    """Wait, let the fault strike, else answer; and log it."""
    latency = sandbox.mood.latency.lookup
    wait = fault.number / 1000 if fault and fault.kind == "slow" else 0.0
    if latency:
        wait += seconds(latency, sandbox.dice.of("latency", kind, len(sandbox.ledger.requests)))
    if wait:
        await sandbox.sleep(wait)
    sandbox.settle()
    reply: Reply | Broken
    turned_away = door(fault) if fault else None
    if fault and fault.breaks and not fault.charged:
        reply, outcome = Broken(fault, refusal("", code=-1)), "lost"
    elif turned_away:
        reply, outcome = turned_away, "turned_away"
    elif fault and fault.kind == "hidden":
        reply, outcome = not_found(), "404"
    elif fault and fault.kind == "refused":
        reply, outcome = refusal(cancel_text(fault.argument)), "200:refused"
    else:
        reply = answer()
        outcome = f"{reply.status}" if reply.body["code"] == 0 else f"{reply.status}:refused"
        if fault and fault.breaks:
            reply = Broken(fault, reply)
    sandbox.saw(kind, outcome, fault=str(fault or ""), **about)
    return await _answered(sandbox, reply)


async def _answered(sandbox: Sandbox, reply: Reply | Broken) -> Response:
    """Answer only after everything is on the disk that the answer may tell of."""
    try:
        await sandbox.ledger.committed()
    except sqlite3.Error as error:
        return respond(_disk(error))
    return respond(reply)


def _disk(error: sqlite3.Error) -> Reply:
    return refusal(f"the sandbox cannot write its ledger: {error}", code=-1, status=500)


def _lookup_fault(sandbox: Sandbox, kind: str) -> Fault | None:
    if spell := sandbox.spell():
        return spell
    chances = sandbox.mood.chances.lookup
    if not chances:
        return None
    dice = sandbox.dice.of("lookup", kind, len(sandbox.ledger.requests))
    fault = lookup_fault(by_chance(chances, dice))
    return None if fault.kind == "ok" else fault


def _authorised(sandbox: Sandbox, request: Request) -> bool:
    return sandbox.tokens.accepts(request.headers.get("authorization"))


def _about(form: Form | None) -> dict[str, str]:
    form = form or {}
    return {
        "order": charging.storable(form.get("merchant_uid"))[:80],
        "customer": charging.storable(form.get("customer_uid"))[:80],
    }


def _listed(request: Request, name: str) -> list[str]:
    """`name[]=a&name[]=b`, as the gateway spells lists, or the name without brackets."""
    query = request.query_params
    return query.getlist(f"{name}[]") + query.getlist(name)


async def _form(request: Request) -> Form | None:
    """The body, JSON or form; None when it is neither."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > LARGEST_BODY:
            return None
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            found = json.loads(raw)
            return found if isinstance(found, dict) else None
        text = raw.decode("utf-8")
        return {name: values[-1] for name, values in parse_qs(text, strict_parsing=True).items()}
    except (ValueError, RecursionError):
        return None
