"""The window's addresses. Its id is the key to it; nothing of it stands in a cookie."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from billing.sandbox.browser import file, is_foreign, rendered
from billing.sandbox.clock import SEOUL
from billing.sandbox.gateway import Sandbox
from billing.sandbox.window import line
from billing.sandbox.window.order import OrderRefused, read_order
from billing.sandbox.window.payment import FAILURES, Failure, Later, Now
from billing.sandbox.window.visit import (
    CODE_SECONDS,
    TRIES,
    Step,
    Visit,
    Visits,
    refused_rsp,
)
from billing.sandbox.words import Language, language_of

# More than any order or form needs.
_LARGEST_BODY = 32_768


def window_routes(sandbox: Sandbox) -> list[Route]:
    """The SDK, its files, and the window."""
    visits = Visits(sandbox)

    async def sdk(request: Request) -> Response:
        return file("iamport.js") or _nothing()

    async def static(request: Request) -> Response:
        return file(str(request.path_params["name"])) or _nothing()

    async def opener(request: Request) -> Response:
        return rendered("open.html", _language(request), {}, framed=True)

    async def opened(request: Request) -> Response:
        asked = _call(await _body(request))
        if is_foreign(request) or asked is None:
            return JSONResponse({"error": "only the SDK opens a window"}, 400)
        params, phone = asked.get("params"), asked.get("device") == "phone"
        params = params if isinstance(params, dict) else {}
        try:
            order = read_order(sandbox, params, phone=phone)
        except OrderRefused as refused:
            return JSONResponse({"rsp": refused_rsp(refused, str(params.get("merchant_uid")))})
        language = language_of(
            str(params.get("language") or ""), request.headers.get("accept-language")
        )
        visit = visits.open(order, shop=_origin(asked.get("shop")), phone=phone, language=language)
        return JSONResponse({"url": f"/window/{visit.id}"})

    async def shown(request: Request) -> Response:
        visit = visits.get(str(request.path_params["id"]))
        if visit is None:
            return _gone(request)
        if "lang" in request.query_params:
            visit.language = language_of(request.query_params["lang"], None, visit.language)
        await sandbox.ledger.committed()
        return _page(visit)

    def identified(visit: Visit, form: Mapping[str, str]) -> dict[str, str]:
        if found := line.problems(form):
            return found
        visits.identify(
            visit,
            line.masked(form["number"]),
            _chosen(Now, form.get("now"), Now.APPROVED),
            _chosen(Later, form.get("later"), Later.PAID),
        )
        return {}

    def confirmed(visit: Visit, form: Mapping[str, str]) -> dict[str, str]:
        problem = visits.confirm(visit, "".join(form.get("code", "").split())[:12])
        return {"code": problem} if problem else {}

    def sent_again(visit: Visit, form: Mapping[str, str]) -> dict[str, str]:
        visits.send_code(visit)
        return {}

    def cancelled(visit: Visit, form: Mapping[str, str]) -> dict[str, str]:
        visits.give_up(visit, Failure.CANCELLED)
        return {}

    def step(
        name: str,
        act: Callable[[Visit, Mapping[str, str]], dict[str, str]],
        *steps: Step,
    ) -> Route:
        async def taken(request: Request) -> Response:
            visit = visits.get(str(request.path_params["id"]))
            if visit is None:
                return _gone(request)
            if is_foreign(request):
                return PlainTextResponse("this form belongs to the payment window", 403)
            form = _form(await _body(request))
            # A page of an earlier step, by the back button: the present one is shown.
            found = act(visit, form) if visit.step in steps else {}
            await sandbox.ledger.committed()
            if found:
                return _page(visit, form=form, problems=found, status=422)
            return RedirectResponse(f"/window/{visit.id}", 303)

        return Route(f"/window/{{id}}/{name}", _on_disk(taken), methods=["POST"])

    return [
        Route("/sdk/iamport.js", sdk, methods=["GET"]),
        Route("/static/{name}", static, methods=["GET"]),
        Route("/window", opened, methods=["POST"]),
        Route("/window/open", opener, methods=["GET"]),
        Route("/window/{id}", _on_disk(shown), methods=["GET"]),
        step("line", identified, Step.LINE),
        step("code", confirmed, Step.CODE),
        step("resend", sent_again, Step.CODE),
        step("cancel", cancelled, Step.LINE, Step.CODE),
    ]


def _page(
    visit: Visit,
    *,
    form: Mapping[str, str] | None = None,
    problems: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    rsp = _rsp(visit)
    values = {
        "visit": visit,
        "order": visit.order,
        "form": form if form is not None else {"number": visit.order.buyer_tel},
        "problems": problems or {},
        "carriers": line.CARRIERS,
        "consents": line.CONSENTS,
        "nows": list(Now),
        "laters": list(Later),
        "code_minutes": CODE_SECONDS // 60,
        "tries_left": TRIES - visit.wrong,
        "due_day": datetime.fromtimestamp(visit.opened_at, SEOUL).day,
        "rsp": rsp,
        "back": _back(visit, rsp) if rsp and visit.phone else "",
    }
    return rendered(f"{visit.step}.html", visit.language, values, status=status, framed=True)


def _rsp(visit: Visit) -> dict[str, Any] | None:
    """What the shop's page is told; of a payment whose news was lost: that it was given up."""
    if visit.rsp is None or not visit.silent:
        return visit.rsp
    code, text = FAILURES[Failure.CANCELLED]
    return refused_rsp(OrderRefused(code, text), visit.order.merchant_uid)


def _back(visit: Visit, rsp: Mapping[str, Any]) -> str:
    """A phone's way back: m_redirect_url with what became of the payment."""
    parts = urlsplit(visit.order.redirect_url)
    told = {
        name: str(rsp[name])
        for name in ("imp_uid", "merchant_uid", "error_code", "error_msg")
        if rsp.get(name)
    }
    told["imp_success"] = "true" if rsp["success"] else "false"
    kept = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in told]
    return urlunsplit(parts._replace(query=urlencode([*kept, *told.items()])))


def _on_disk(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except sqlite3.Error as error:
            return PlainTextResponse(f"the sandbox cannot write its ledger: {error}", 500)

    return guarded


def _gone(request: Request) -> Response:
    return rendered("gone.html", _language(request), {}, status=404, framed=True)


def _nothing() -> Response:
    return PlainTextResponse("no such file", 404)


def _language(request: Request) -> Language:
    return language_of(request.query_params.get("lang"), request.headers.get("accept-language"))


async def _body(request: Request) -> bytes:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _LARGEST_BODY:
            return b""
    return bytes(raw)


def _form(body: bytes) -> Mapping[str, str]:
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _call(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _origin(shop: object) -> str:
    """The origin of the page that opened the window; the browser names it to our script."""
    try:
        parts = urlsplit(str(shop or ""))
        return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else ""
    except ValueError:
        return ""


def _chosen(kind: Any, text: str | None, default: Any) -> Any:
    return kind(text) if text in list(kind) else default
