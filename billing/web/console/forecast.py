"""Forecast: the charges of the coming weeks, by day."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from billing.domain.money import Sum
from billing.services.outlook import DayAhead, outlook
from billing.web.console import look
from billing.web.console.door import Room
from billing.web.edge import TheEdge

router = APIRouter(route_class=Room, include_in_schema=False)

CHOICES = (2, 4, 8, 13)
Weeks = Annotated[int, Query(ge=1, le=13)]


@router.get("/forecast")
def forecast(request: Request, edge: TheEdge, weeks: Weeks = 4) -> Response:
    days = outlook(edge.book, edge.policy, weeks * 7)
    return look.render(
        request,
        "forecast.html",
        weeks=weeks,
        choices=CHOICES,
        by_week=[days[start : start + 7] for start in range(0, len(days), 7)],
        total=total(days),
        total_of=total,
    )


def total(days: list[DayAhead]) -> Sum:
    return sum((day.charges for day in days), Sum())
