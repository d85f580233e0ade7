"""Subscriptions: found by whatever a person has at hand, listed by status, exported."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from billing.domain.subscription import SubscriptionStatus
from billing.store import pages
from billing.store.pages import Page
from billing.store.tables import Subscription
from billing.web.console import look
from billing.web.console.asked import Before
from billing.web.console.door import Room
from billing.web.console.export import csv_response
from billing.web.edge import TheEdge

router = APIRouter(route_class=Room, include_in_schema=False)

Status = Annotated[SubscriptionStatus | None, Query()]
Wanted = Annotated[str, Query(max_length=200)]


@router.get("/subscriptions")
def subscriptions(
    request: Request,
    edge: TheEdge,
    q: Wanted = "",
    status: Annotated[str, Query(max_length=16)] = "",
    before: Before = None,
) -> Response:
    """The search, or the list; a search that finds one leads there."""
    # The database has no NUL; nobody's name has one.
    wanted = q.strip().replace("\0", "")
    chosen = status if status in set(SubscriptionStatus) else None
    with edge.book.transaction() as tx:
        counts = pages.subscription_counts(tx.session)
        if wanted:
            page = Page(pages.found(tx.session, wanted))
        else:
            page = pages.subscriptions(tx.session, status=chosen, before=before)
    if wanted and len(page.rows) == 1:
        return RedirectResponse(f"/subscriptions/{page.rows[0].id}", status_code=303)
    return look.render(
        request,
        "subscriptions.html",
        page=page,
        counts=counts,
        statuses=list(SubscriptionStatus),
        status=chosen,
        q=wanted,
        most=pages.PAGE,
    )


@router.get("/subscriptions.csv")
def export(edge: TheEdge, status: Annotated[str, Query(max_length=16)] = "") -> Response:
    """Every subscription (of a status), without buyer data."""
    chosen = status if status in set(SubscriptionStatus) else None

    def page(before: int | None, size: int) -> Page:
        with edge.book.transaction() as tx:
            return pages.subscriptions(tx.session, status=chosen, before=before, size=size)

    zone = edge.settings.zone

    def row(one: Subscription) -> list[object]:
        return [
            one.customer_uid,
            one.reference,
            one.status,
            one.status_reason,
            one.amount,
            one.order_name,
            one.anchor_on,
            one.initial_paid_at.astimezone(zone),
            one.enrolled_at.astimezone(zone),
            one.next_cycle,
            one.next_due_at.astimezone(zone),
        ]

    return csv_response("subscriptions", _HEADER, pages.walk(page), row)


_HEADER = (
    "customer_uid",
    "reference",
    "status",
    "reason",
    "amount",
    "order_name",
    "anchor_on",
    "initial_paid_at",
    "enrolled_at",
    "next_cycle",
    "next_due_at",
)
