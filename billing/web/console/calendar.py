"""Calendar: the month by day and by band, with what each day carries."""

from __future__ import annotations

from datetime import date

from fastapi import APIRouter, Request
from starlette.responses import Response

from billing.domain.calendar import day_of
from billing.domain.refund import month_after, month_before
from billing.services.month import DayOfMonth, month
from billing.web.console import look
from billing.web.console.asked import month_asked
from billing.web.console.door import Room
from billing.web.edge import Edge, TheEdge

router = APIRouter(route_class=Room, include_in_schema=False)

# Shades of a day's load; 0 is none.
_SHADES = 5


@router.get("/calendar")
def calendar(request: Request, edge: TheEdge) -> Response:
    today = today_of(edge)
    first_day = month_asked(request.query_params.get("month"), today)
    shown = month(edge.book, edge.policy, first_day)
    return look.render(
        request,
        "calendar.html",
        month=shown,
        today=today,
        weeks=_weeks(shown.days),
        shades=_shades(shown.days),
        earlier=month_before(first_day),
        later=month_after(first_day),
    )


def today_of(edge: Edge) -> date:
    """Today in Seoul, by the clock of billing."""
    return edge.book.run(lambda tx: day_of(tx.now, edge.policy.plan.zone))


def _weeks(days: list[DayOfMonth]) -> list[list[DayOfMonth | None]]:
    """Rows from Sunday to Saturday, as calendars in Korea have them; None outside the month."""
    before = (days[0].on.weekday() + 1) % 7
    cells: list[DayOfMonth | None] = [*([None] * before), *days]
    cells += [None] * (-len(cells) % 7)
    return [cells[start : start + 7] for start in range(0, len(cells), 7)]


def _shades(days: list[DayOfMonth]) -> dict[date, int]:
    """How heavy each day is beside the heaviest, from 0 to 5."""
    heaviest = max((day.first.count for day in days), default=0)
    return {day.on: -(-_SHADES * day.first.count // heaviest) if heaviest else 0 for day in days}
