"""What was written down: events and alarms, differences of reconciliation, notices."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from billing.store import pages
from billing.web.console import look
from billing.web.console.asked import Before
from billing.web.console.door import Room
from billing.web.edge import TheEdge

router = APIRouter(route_class=Room, include_in_schema=False)

Which = Annotated[str, Query(max_length=16)]


@router.get("/events")
def events(
    request: Request, edge: TheEdge, show: Which = "alarms", before: Before = None
) -> Response:
    alarms = show != "all"
    with edge.book.transaction() as tx:
        page = pages.events(tx.session, alarms=alarms, before=before)
    return look.render(request, "events.html", page=page, show="alarms" if alarms else "all")


@router.get("/differences")
def differences(request: Request, edge: TheEdge) -> Response:
    with edge.book.transaction() as tx:
        found, open_refunds = pages.differences(tx.session), pages.open_refunds(tx.session)
    return look.render(request, "differences.html", found=found, refunds=open_refunds)


@router.get("/notices")
def notices(
    request: Request, edge: TheEdge, show: Which = "all", before: Before = None
) -> Response:
    dead = show == "dead"
    with edge.book.transaction() as tx:
        page = pages.notices(tx.session, dead=dead, before=before)
    return look.render(
        request,
        "notices.html",
        page=page,
        show="dead" if dead else "all",
        is_set=edge.settings.notice_url is not None,
    )
