"""What changes something. Each has a page that says what follows, then a form that does it; a
second submit finds it done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import datetime
from enum import StrEnum, auto
from typing import Annotated, TypeVar

from fastapi import APIRouter, Form, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from billing.domain.attempt import AttemptStatus
from billing.domain.errors import BillingError, GatewayError, GatewayUnavailable, NotFound
from billing.domain.refund import RefundStatus
from billing.presenting.formats import Formats
from billing.presenting.texts import Texts
from billing.services import change_status, hold, inquire, refund, resend
from billing.services.answer import Result
from billing.services.change_status import Changed
from billing.services.let_go import let_go
from billing.services.refund import Proposal
from billing.services.try_again import NotTried, try_again
from billing.store import dossier
from billing.web.console import look
from billing.web.console.door import Room
from billing.web.console.subscription import PATIENCE, Number, found_one
from billing.web.edge import Edge, TheEdge
from billing.web.texts import texts_for

router = APIRouter(route_class=Room, include_in_schema=False)

T = TypeVar("T")

Reason = Annotated[str, Form(max_length=200)]
Typed = Annotated[str, Form(max_length=40)]


class Action(StrEnum):
    PAUSE = auto()
    RESUME = auto()
    CANCEL = auto()
    RETRY = auto()
    LET_GO = auto()
    ASK = auto()


@router.get("/subscriptions/{number}/do/{action}")
def before(request: Request, edge: TheEdge, number: Number, action: Action) -> Response:
    """What would follow; nothing is changed."""
    subscription = found_one(edge, number)
    warning = None
    if action is Action.PAUSE:
        risks = change_status.before_pause(edge.book, edge.policy, subscription.customer_uid)
        warning = _warning(risks, texts_for(request))
    return look.render(
        request, "confirm.html", subscription=subscription, action=action, warning=warning
    )


@router.post("/subscriptions/{number}/do/{action}")
async def do(request: Request, edge: TheEdge, number: Number, action: Action) -> Response:
    subscription = await run_in_threadpool(found_one, edge, number)
    t = texts_for(request)
    try:
        if action is Action.ASK:
            kind, text = await _ask(edge, number, t)
        else:
            kind, text = await run_in_threadpool(
                _change, edge, subscription.customer_uid, action, t
            )
    except GatewayError as error:
        kind, text = "refused", t("action.no_answer", problem=str(error))
    except BillingError as error:
        kind, text = "refused", t("action.refused", problem=str(error))
    return look.tell(request, f"/subscriptions/{number}", kind, text)


def _change(edge: Edge, customer_uid: str, action: Action, t: Texts) -> tuple[str, str]:
    match action:
        case Action.PAUSE:
            changed = change_status.pause(edge.book, edge.policy, customer_uid)
        case Action.RESUME:
            changed = change_status.resume(edge.book, edge.policy, customer_uid)
        case Action.CANCEL:
            changed = change_status.cancel(edge.book, edge.policy, customer_uid)
        case Action.LET_GO:
            return _let_go(edge, customer_uid, t)
        case _:
            return _retry(edge, customer_uid, t)
    warning = _warning(changed, t)
    done = t(f"action.{action}.done")
    return ("warning", f"{done} {warning}") if warning else ("done", done)


def _warning(changed: Changed, t: Texts) -> str:
    return changed.warning_ko if t.language == "ko" else changed.warning_en


def _retry(edge: Edge, customer_uid: str, t: Texts) -> tuple[str, str]:
    tried = try_again(edge.book, edge.policy, customer_uid)
    at = _shown(edge, tried.at)
    if tried.why_not is None:
        return "done", t("action.retry.done", at=at)
    kind = "done" if tried.why_not is NotTried.PLANNED else "refused"
    return kind, t(f"not_tried.{tried.why_not}", at=at)


def _let_go(edge: Edge, customer_uid: str, t: Texts) -> tuple[str, str]:
    gone = let_go(edge.book, edge.policy, customer_uid)
    if gone.at is not None:
        return "done", t("action.let_go.done", at=_shown(edge, gone.at))
    done = t("action.let_go.only")
    if gone.why_not is None:
        return "done", done
    return "warning", f"{done} {t(f'not_tried.{gone.why_not}', at=None)}"


def _shown(edge: Edge, at: datetime | None) -> str | None:
    return None if at is None else f"{at.astimezone(edge.settings.zone):%Y-%m-%d %H:%M}"


async def _ask(edge: Edge, number: int, t: Texts) -> tuple[str, str]:
    ids = await run_in_threadpool(_unknown_attempts, edge, number)
    if not ids:
        return "done", t("action.ask.nothing")
    client = await edge.gateway()
    results = await _in_time(inquire.inquire(edge.book, client, edge.policy, ids))
    result = next(iter(results), Result.UNKNOWN)
    kind = "warning" if result is Result.UNKNOWN else "done"
    key = f"asked.{result}"
    return kind, t(key) if t.has(key) else t("asked.other", result=str(result))


def _unknown_attempts(edge: Edge, number: int) -> list[int]:
    with edge.book.transaction() as tx:
        found = dossier.read(tx.session, number)
    if found is None:
        raise NotFound(f"no subscription has the number {number}")
    attempts = (attempt for rows in found.cycles for attempt in rows.attempts)
    return [one.id for one in attempts if one.status == AttemptStatus.UNKNOWN]


async def _in_time(question: Awaitable[T], seconds: float = PATIENCE) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await question
    except TimeoutError:
        raise GatewayUnavailable(f"no answer within {seconds:g} seconds") from None


# -- refund -------------------------------------------------------------------------------------

# The gateway's names of a payment, as its own rows and ours show them.
InAddress = Annotated[str, Query(min_length=1, max_length=100)]
InForm = Annotated[str, Form(min_length=1, max_length=100)]


@router.get("/subscriptions/{number}/refund")
async def before_refund(
    request: Request, edge: TheEdge, number: Number, merchant_uid: InAddress, imp_uid: InAddress
) -> Response:
    """What would be given back and what follows, by the gateway's own row of the payment."""
    subscription = await run_in_threadpool(found_one, edge, number)
    proposal = await _proposed(edge, number, merchant_uid, imp_uid)
    ko = texts_for(request).language == "ko"
    return await run_in_threadpool(
        look.render,
        request,
        "refund.html",
        subscription=subscription,
        proposal=proposal,
        warning=proposal.warning_ko if ko else proposal.warning_en,
    )


@router.post("/subscriptions/{number}/refund")
async def do_refund(
    request: Request,
    edge: TheEdge,
    number: Number,
    merchant_uid: InForm,
    imp_uid: InForm,
    reason: Reason = "",
) -> Response:
    t = texts_for(request)
    try:
        proposal = await _proposed(edge, number, merchant_uid, imp_uid)
        refund_id = await run_in_threadpool(refund.request, edge.book, proposal, reason)
        client = await edge.gateway()
        standing = await refund.see_through(edge.book, client, edge.policy, refund_id, PATIENCE)
        kind = {RefundStatus.DONE: "done", RefundStatus.REFUSED: "refused"}.get(
            standing.status, "warning"
        )
        text = t(f"refunded.{standing.status}", message=standing.message or "")
    except GatewayError as error:
        kind, text = "refused", t("action.no_answer", problem=str(error))
    except BillingError as error:
        kind, text = "refused", t("action.refused", problem=str(error))
    return look.tell(request, f"/subscriptions/{number}", kind, text)


async def _proposed(edge: Edge, number: int, merchant_uid: str, imp_uid: str) -> Proposal:
    client = await edge.gateway()
    found = await _in_time(refund.propose(edge.book, client, edge.policy, merchant_uid, imp_uid))
    if found.subscription_id != number:
        raise NotFound(f"{imp_uid} is not a payment of subscription {number}")
    return found


# -- all charging -------------------------------------------------------------------------------


class Switch(StrEnum):
    STOP = auto()
    START = auto()


@router.get("/system/{switch}")
def before_switch(request: Request, edge: TheEdge, switch: Switch) -> Response:
    return look.render(request, "switch.html", switch=switch, wrong=False, reason="")


@router.post("/system/{switch}")
def do_switch(
    request: Request, edge: TheEdge, switch: Switch, typed: Typed = "", reason: Reason = ""
) -> Response:
    """Stop or start all charging, when the word was typed."""
    t = texts_for(request)
    words = {Texts("en")(f"switch.{switch}.word"), Texts("ko")(f"switch.{switch}.word")}
    if typed.strip().lower() not in words:
        return look.render(
            request, "switch.html", code=422, switch=switch, wrong=True, reason=reason
        )
    if switch is Switch.STOP:
        why = hold.hold(edge.book, reason.strip() or "held by hand, in the console")
        return look.tell(request, "/system", "done", t("switch.stop.done", why=why))
    again = hold.release(edge.book, edge.policy).tried_again
    text = Formats(t, edge.settings.zone).number(again)
    return look.tell(request, "/system", "done", t("switch.start.done", again=text))


# -- notices ------------------------------------------------------------------------------------


@router.post("/notices/resend")
def resend_dead(request: Request, edge: TheEdge) -> Response:
    """Every notice that was given up goes out again."""
    return _sent_again(request, resend.resend_dead(edge.book))


@router.post("/notices/{number}/resend")
def resend_one(request: Request, edge: TheEdge, number: Number) -> Response:
    return _sent_again(request, resend.resend(edge.book, str(number)))


def _sent_again(request: Request, count: int) -> Response:
    text = texts_for(request)("notices.sent_again", count=f"{count:,}")
    return look.tell(request, "/notices", "done", text)
