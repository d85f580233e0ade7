"""Cycles: by status, those that close soon, those that are held; and all of them as a file."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from billing.domain.cycle import CycleStatus
from billing.store import pages
from billing.store.pages import Page, Those
from billing.web.console import look
from billing.web.console.asked import Before
from billing.web.console.door import Room
from billing.web.console.export import csv_response
from billing.web.edge import TheEdge

router = APIRouter(route_class=Room, include_in_schema=False)

# A status, or one of the two that ask for more than a status.
FILTERS = (*CycleStatus, "soon", "held")
Filter = Annotated[str, Query(max_length=16)]


@router.get("/cycles")
def cycles(request: Request, edge: TheEdge, show: Filter = "", before: Before = None) -> Response:
    chosen = show if show in FILTERS else ""
    with edge.book.transaction() as tx:
        now, soon = tx.now, edge.policy.closing_soon
        page = pages.cycles(tx.session, _those(chosen), now, soon, before=before)
    return look.render(request, "cycles.html", page=page, now=now, show=chosen, filters=FILTERS)


@router.get("/cycles.csv")
def export(edge: TheEdge, show: Filter = "") -> Response:
    chosen = show if show in FILTERS else ""
    zone = edge.settings.zone

    def page(before: int | None, size: int) -> Page:
        with edge.book.transaction() as tx:
            soon = edge.policy.closing_soon
            return pages.cycles(tx.session, _those(chosen), tx.now, soon, before=before, size=size)

    def row(one: Any) -> list[object]:
        cycle, subscription = one
        return [
            subscription.customer_uid,
            subscription.reference,
            cycle.number,
            cycle.due_on,
            cycle.opens_on,
            cycle.closes_on,
            cycle.status,
            cycle.reason,
            cycle.held,
            cycle.amount,
            cycle.paid_merchant_uid,
            cycle.paid_imp_uid,
            cycle.paid_at.astimezone(zone) if cycle.paid_at else None,
        ]

    return csv_response("cycles", _HEADER, pages.walk(page), row)


def _those(chosen: str) -> Those:
    if chosen == "soon":
        return Those(soon=True)
    if chosen == "held":
        return Those(held=True)
    return Those(status=chosen or None)


_HEADER = (
    "customer_uid",
    "reference",
    "cycle",
    "due_on",
    "opens_on",
    "closes_on",
    "status",
    "reason",
    "held",
    "amount",
    "merchant_uid",
    "imp_uid",
    "paid_at",
)
