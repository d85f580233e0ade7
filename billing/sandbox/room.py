"""The control room: one page for people, with the sandbox's payments, its clock and its mood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from billing.sandbox.browser import is_disguised, is_foreign, rendered
from billing.sandbox.cancelling import cancel_in_console
from billing.sandbox.clock import SEOUL
from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import Payment, Status
from billing.sandbox.months import month_of
from billing.sandbox.mood import mood
from billing.sandbox.travel import Journey, a_month_later
from billing.sandbox.words import Language, language_of

_NEWEST = 40
_LARGEST_FORM = 4096
_COOKIE = "sandbox_language"

# Faults documents to choose from; what the faults file or a control request set is left with
# "custom" until another is chosen.
MOODS: Mapping[str, Mapping[str, object]] = {
    "well": {},
    "slow": {"latency": {"charge": [2000, 6000], "lookup": [500, 1500]}},
    "unsteady": {"chances": {"charge": {"declined:0098": 0.3}}},
    "forgetful": {"chances": {"charge": {"timeout_after_charge": 0.2, "reset_after_charge": 0.2}}},
    "webhooks": {"chances": {"webhook": {"lost": 0.3, "late:5": 0.3, "doubled": 0.3}}},
    "down": {"chances": {"charge": {"http_before_charge:503": 1.0}}},
}

Act = Callable[[Mapping[str, str]], str]


def room_routes(sandbox: Sandbox, journey: Journey) -> list[Route]:
    """The page at `/` and its buttons."""

    async def home(request: Request) -> Response:
        sandbox.settle()
        language = _language(request)
        values = _values(sandbox, journey, request.query_params.get("told", ""))
        page = rendered("room.html", language, values)
        if "lang" in request.query_params:
            page.set_cookie(_COOKIE, language, httponly=True, samesite="strict")
        return page

    def cancelled(form: Mapping[str, str]) -> str:
        done = cancel_in_console(sandbox, form.get("imp_uid", ""), "sandbox")
        return "told_cancelled" if done.body["code"] == 0 else "told_not_cancelled"

    def moved(form: Mapping[str, str]) -> str:
        now = sandbox.clock.now()
        match form.get("by"):
            case "hour":
                journey.stop()
                sandbox.clock.advance(3600)
                sandbox.clock_moved()
            case "day":
                journey.start(now + timedelta(days=1))
            case "month":
                journey.start(a_month_later(now))
            case "stay":
                journey.stop()
        return ""

    def chosen(form: Mapping[str, str]) -> str:
        document = MOODS.get(form.get("mood", ""))
        if document is not None:
            sandbox.mood = mood(document)
        return "told_mood"

    def button(name: str, act: Act) -> Route:
        async def pressed(request: Request) -> Response:
            if is_foreign(request) or is_disguised(request):
                return PlainTextResponse("a page of another site sent this", 403)
            sandbox.settle()
            told = act(await _form(request))
            await sandbox.ledger.committed()
            query = "?" + urlencode({"told": told}) if told else ""
            return RedirectResponse("/" + query, 303)

        return Route(f"/room/{name}", pressed, methods=["POST"])

    return [
        Route("/", home, methods=["GET"]),
        button("cancel", cancelled),
        button("clock", moved),
        button("mood", chosen),
    ]


def _values(sandbox: Sandbox, journey: Journey, told: str) -> Mapping[str, object]:
    ledger, now = sandbox.ledger, sandbox.clock.now()
    states = Counter(one.status for one in ledger.payments)
    newest = ledger.payments[: -_NEWEST - 1 : -1]
    dump = sandbox.mood.model_dump(mode="json")
    moods = {name: mood(document).model_dump(mode="json") for name, document in MOODS.items()}
    return {
        "now": now.astimezone(SEOUL),
        "until": journey.until and journey.until.astimezone(SEOUL),
        "keys": len(ledger.keys),
        "states": {
            state: states[state] for state in (Status.PAID, Status.FAILED, Status.CANCELLED)
        },
        "charges": sum(one.kind == "again" for one in ledger.requests),
        "moods": list(MOODS),
        "mood": next((name for name, other in moods.items() if other == dump), "custom"),
        "faults": sandbox.mood.model_dump_json(exclude_defaults=True, by_alias=True),
        "notice_url": sandbox.webhooks.address.url,
        "rows": [_row(one, now) for one in newest],
        "more": len(ledger.payments) > len(newest),
        "told": told if told in ("told_cancelled", "told_not_cancelled", "told_mood") else "",
    }


def _row(one: Payment, now: datetime) -> Mapping[str, object]:
    moment = datetime.fromtimestamp(one.started_at, SEOUL)
    here = now.astimezone(SEOUL)
    same_month = month_of(moment.date()) == month_of(here.date())
    return {
        "payment": one,
        "at": moment,
        "cancellable": one.status is Status.PAID and same_month,
    }


def _language(request: Request) -> Language:
    asked = request.query_params.get("lang") or request.cookies.get(_COOKIE)
    return language_of(asked, request.headers.get("accept-language"))


async def _form(request: Request) -> Mapping[str, str]:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _LARGEST_FORM:
            return {}
    return dict(parse_qsl(raw.decode("utf-8", "replace")))
