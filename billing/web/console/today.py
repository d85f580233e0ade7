"""Today: what is due, paid, retried, unknown, about to close; what needs a person."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from billing.domain.calendar import day_of, end_of, start_of
from billing.store import overview
from billing.web.console import look
from billing.web.console.door import Room
from billing.web.edge import TheEdge

router = APIRouter(route_class=Room, include_in_schema=False)

_ALARMS = 8
_ALARMS_OF = timedelta(days=7)


@router.get("/")
def today(request: Request, edge: TheEdge) -> Response:
    policy = edge.policy
    with edge.book.transaction() as tx:
        on = day_of(tx.now, policy.plan.zone)
        begins, ends = start_of(on, policy.plan.zone), end_of(on, policy.plan.zone)
        soon = policy.closing_soon
        page: dict[str, Any] = {
            "now": tx.now,
            "on": on,
            "day": overview.day(tx.session, tx.now, begins, ends, soon),
            "closing": overview.closing_soon(tx.session, tx.now, soon),
            "unknown": overview.unknown(tx.session),
            "alarms": overview.newest_alarms(tx.session, tx.now - _ALARMS_OF, _ALARMS),
            "soon_hours": int(soon.total_seconds() // 3600),
            "most": overview.MOST_ROWS,
        }
    return look.render(request, "today.html", **page)
