"""One subscription: why it is as it is, its facts, cycles, attempts, events, notices; and what the
gateway has beside them."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from billing.broker import CHARGE_TASK
from billing.domain.calendar import start_of
from billing.domain.errors import GatewayError, NotFound
from billing.domain.payment import Buyer
from billing.domain.refund import month_of
from billing.services import explain
from billing.services.beside import beside
from billing.services.show_buyer import show_buyer
from billing.store import dossier
from billing.web.console import look, masks
from billing.web.console.asked import Before
from billing.web.console.door import Room
from billing.web.edge import Edge, TheEdge

router = APIRouter(route_class=Room, include_in_schema=False)

Number = Annotated[int, Path(ge=1, lt=2**63)]
CycleNumber = Annotated[int | None, Query(ge=1, le=100_000)]
# A person waits for this answer, in seconds.
PATIENCE = 8.0


@router.get("/subscriptions/{number}")
def subscription(
    request: Request,
    edge: TheEdge,
    number: Number,
    cycle: CycleNumber = None,
    before: Before = None,
) -> Response:
    return _page(request, edge, number, cycle=cycle, before=before)


@router.post("/subscriptions/{number}/buyer")
def buyer(request: Request, edge: TheEdge, number: Number) -> Response:
    """The same page with the buyer's data, this once; that it was shown is written down."""
    return _page(request, edge, number, buyer=show_buyer(edge.book, number))


@router.get("/subscriptions/{number}/gateway")
async def gateway(request: Request, edge: TheEdge, number: Number) -> Response:
    """Both sides' payments, asked for now."""
    found, problem, zone = None, None, edge.policy.plan.zone
    subscription = await run_in_threadpool(found_one, edge, number)
    try:
        client = await edge.gateway()
        found = await beside(edge.book, client, number, PATIENCE)
    except GatewayError as error:
        problem = str(error)
    return await run_in_threadpool(
        look.render,
        request,
        "gateway.html",
        code=200 if problem is None else 502,
        subscription=subscription,
        found=found,
        problem=problem,
        # Of an earlier month nothing can be given back.
        month_begins=found and start_of(month_of(found.asked_at, zone), zone),
    )


def found_one(edge: Edge, number: int) -> Any:
    """The subscription's row. Raises `NotFound`."""
    with edge.book.transaction() as tx:
        row = dossier.find(tx.session, number)
    if row is None:
        raise NotFound(f"no subscription has the number {number}")
    return row


def _page(
    request: Request,
    edge: Edge,
    number: int,
    *,
    cycle: int | None = None,
    before: int | None = None,
    buyer: Buyer | None = None,
) -> Response:
    with edge.book.transaction() as tx:
        now = tx.now
        found = dossier.read(tx.session, number, before)
    if found is None:
        raise NotFound(f"no subscription has the number {number}")
    why = explain.why(edge.book, edge.policy, found.subscription.customer_uid, cycle)
    zone = edge.policy.plan.zone
    return look.render(
        request,
        "subscription.html",
        subscription=found.subscription,
        cycles=found.cycles,
        events=found.events,
        events_before=found.events_before,
        events_from=before,
        notices=found.notices,
        now=now,
        why=why,
        buyer=buyer or _masked(found),
        shown=buyer is not None,
        this_month=month_of(now, zone),
        flower=lambda attempt_id: flower_link(edge.settings.flower_url, attempt_id),
    )


def _masked(found: dossier.Dossier) -> Buyer | None:
    row = found.buyer
    if row is None:
        return None
    return Buyer(masks.name(row.name), masks.email(row.email), masks.tel(row.tel))


def flower_link(flower_url: str | None, attempt_id: int) -> str | None:
    """Flower's list of the tasks that carried an attempt, while Flower remembers them.

    A task's argument is a list of ids; Flower finds text in it, so each way to stand in a list is
    asked for."""
    if flower_url is None:
        return None
    ways = (f"[{attempt_id},", f"[{attempt_id}]", f", {attempt_id},", f", {attempt_id}]")
    search = " OR ".join(f'args:"{way}"' for way in ways)
    # Flower makes `name:…` of it; what follows the name belongs to the search.
    return f"{flower_url}/tasks?name={quote(f'{CHARGE_TASK} ({search})', safe='')}"
