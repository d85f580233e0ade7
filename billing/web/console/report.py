"""The month's report to take away: for paper, and for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from billing.presenting import month_files, month_page
from billing.services.report import charges, days, report
from billing.web.console import money
from billing.web.console.door import Room
from billing.web.edge import TheEdge
from billing.web.texts import texts_for

router = APIRouter(route_class=Room, include_in_schema=False)

# Should a browser show the page instead of keeping it: its own style, and nothing from anywhere.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"


@router.get("/money/report.html")
def on_paper(request: Request, edge: TheEdge) -> Response:
    first_day = money.span_asked(request, edge).first_day
    made = report(edge.book, edge.policy, first_day, edge.settings.proof_dir)
    return Response(
        month_page.page(made, texts_for(request), edge.settings.zone),
        media_type="text/html; charset=utf-8",
        headers={
            "Content-Security-Policy": _POLICY,
            "Content-Disposition": _kept_as(month_files.name(first_day, ".html")),
        },
    )


@router.get("/money/days.csv")
def by_day(request: Request, edge: TheEdge) -> Response:
    first_day = money.span_asked(request, edge).first_day
    found = days(edge.book, edge.policy, first_day)
    return _csv(month_files.days(found), month_files.name(first_day, "-days.csv"))


@router.get("/money/charges.csv")
def each_charge(request: Request, edge: TheEdge) -> Response:
    first_day = money.span_asked(request, edge).first_day
    lines = month_files.charges(charges(edge.book, edge.policy, first_day), edge.settings.zone)
    return _csv(lines, month_files.name(first_day, "-charges.csv"))


def _csv(lines: Iterator[str], name: str) -> Response:
    return StreamingResponse(
        lines,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": _kept_as(name)},
    )


def _kept_as(name: str) -> str:
    return f'attachment; filename="{name}"'
