"""The month's report to take away: for paper, and for spreadsheets."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from billing.presenting import month_files, month_page
from billing.services.report import charges, days, report
from billing.web.console import money
from billing.web.console.door import Room
from billing.web.console.export import csv_file, kept_as
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
            **kept_as(month_files.name(first_day, ".html")),
        },
    )


@router.get("/money/days.csv")
def by_day(request: Request, edge: TheEdge) -> Response:
    first_day = money.span_asked(request, edge).first_day
    found = days(edge.book, edge.policy, first_day)
    return csv_file(month_files.name(first_day, "-days.csv"), month_files.days(found))


@router.get("/money/declines.csv")
def declined(request: Request, edge: TheEdge) -> Response:
    first_day = money.span_asked(request, edge).first_day
    made = report(edge.book, edge.policy, first_day)
    lines = month_files.declines(made.codes, made.other_texts)
    return csv_file(month_files.name(first_day, "-declines.csv"), lines)


@router.get("/money/lost.csv")
def lost(request: Request, edge: TheEdge) -> Response:
    first_day = money.span_asked(request, edge).first_day
    made = report(edge.book, edge.policy, first_day)
    lines = month_files.lost(made.figures.outcomes.lost)
    return csv_file(month_files.name(first_day, "-lost.csv"), lines)


@router.get("/money/charges.csv")
def each_charge(request: Request, edge: TheEdge) -> Response:
    first_day = money.span_asked(request, edge).first_day
    lines = month_files.charges(charges(edge.book, edge.policy, first_day), edge.settings.zone)
    return csv_file(month_files.name(first_day, "-charges.csv"), lines)
