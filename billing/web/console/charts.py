"""The console's pictures; each page has the same numbers as a table beneath."""

from __future__ import annotations

from enum import StrEnum, auto
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from billing.presenting import charts
from billing.presenting.formats import Formats
from billing.presenting.texts import Texts
from billing.services.outlook import outlook
from billing.web.console import money
from billing.web.console.door import Room
from billing.web.console.forecast import Weeks
from billing.web.edge import Edge, TheEdge
from billing.web.texts import texts_for

router = APIRouter(route_class=Room, include_in_schema=False)

# Opened by itself, a picture may use its own style and nothing else.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_SIZES: Final = {"wide": (1040, 300), "narrow": (360, 260)}


class Chart(StrEnum):
    DAYS = auto()
    MONTHS = auto()
    HOURS = auto()
    AHEAD = auto()


Theme = Annotated[Literal["light", "dark"], Query()]
Size = Annotated[Literal["wide", "narrow"], Query()]


@router.get("/charts/{chart}.svg")
def chart(
    request: Request,
    edge: TheEdge,
    chart: Chart,
    theme: Theme = "light",
    size: Size = "wide",
    weeks: Weeks = 4,
) -> Response:
    t = texts_for(request)
    canvas = charts.bars(Formats(t, edge.settings.zone), *_SIZES[size], dark=theme == "dark")
    match chart:
        case Chart.DAYS:
            _days(canvas, request, edge, t)
        case Chart.MONTHS:
            _months(canvas, request, edge, t, every=1 if size == "wide" else 2)
        case Chart.HOURS:
            _hours(canvas, request, edge, t)
        case Chart.AHEAD:
            _ahead(canvas, edge, t, weeks)
    return Response(
        charts.draw(canvas),
        media_type="image/svg+xml",
        headers={"Content-Security-Policy": _POLICY},
    )


def _days(canvas: Any, request: Request, edge: Edge, t: Texts) -> None:
    days = money.figures_of(edge, money.span_asked(request, edge)).days
    charts.label(canvas, [str(day.on.day) for day in days], every=5)
    canvas.add(t("money.kept"), [day.won for day in days])
    canvas.add(t("money.not_kept"), [day.refunded_won for day in days])


def _months(canvas: Any, request: Request, edge: Edge, t: Texts, every: int) -> None:
    months = money.by_month(edge, money.span_asked(request, edge))
    charts.label(canvas, [f"{month.on:%Y-%m}" for month in months], every)
    canvas.add(t("money.kept"), [month.won for month in months])
    canvas.add(t("money.not_kept"), [month.refunded_won for month in months])


def _hours(canvas: Any, request: Request, edge: Edge, t: Texts) -> None:
    hours = money.figures_of(edge, money.span_asked(request, edge)).hours
    charts.label(canvas, [f"{one.hour:02d}" for one in hours], every=3)
    canvas.add(t("money.approved"), [one.approved for one in hours])
    canvas.add(t("money.declined"), [one.declined for one in hours])


def _ahead(canvas: Any, edge: Edge, t: Texts, weeks: int) -> None:
    days = outlook(edge.book, edge.policy, weeks * 7)
    charts.label(canvas, [f"{day.on:%m-%d}" for day in days], every=7)
    canvas.add(t("forecast.won"), [day.charges.won for day in days])
