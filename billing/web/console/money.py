"""Money: collected by day and by month; declines by class; answers by hour of the day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from fastapi import APIRouter, Request
from starlette.responses import Response

from billing.domain.calendar import start_of
from billing.domain.refund import month_after
from billing.store import figures
from billing.store.figures import Collected
from billing.web.console import look
from billing.web.console.asked import month_asked, month_before
from billing.web.console.calendar import today_of
from billing.web.console.door import Room
from billing.web.edge import Edge, TheEdge

router = APIRouter(route_class=Room, include_in_schema=False)

MONTHS = 6


@dataclass(frozen=True, slots=True)
class Span:
    """A month as days and as moments."""

    first_day: date
    begins: datetime
    ends: datetime

    @property
    def days(self) -> list[date]:
        """Every day of it."""
        count = (month_after(self.first_day) - self.first_day).days
        return [self.first_day + timedelta(days=ahead) for ahead in range(count)]


@router.get("/money")
def money(request: Request, edge: TheEdge) -> Response:
    span = span_asked(request, edge)
    months = by_month(edge, span)
    return look.render(
        request,
        "money.html",
        span=span,
        days=by_day(edge, span),
        months=months,
        total=months[-1],
        declines=declines(edge, span),
        hours=hours(edge, span),
        earlier=month_before(span.first_day),
        later=month_after(span.first_day),
    )


def span_asked(request: Request, edge: Edge) -> Span:
    """The month that `?month=` names, or this one."""
    first_day = month_asked(request.query_params.get("month"), today_of(edge))
    zone = edge.policy.plan.zone
    return Span(first_day, start_of(first_day, zone), start_of(month_after(first_day), zone))


def by_day(edge: Edge, span: Span) -> list[Collected]:
    """Every day of the month, also those without money."""
    with edge.book.transaction() as tx:
        rows = figures.by_day(tx.session, span.begins, span.ends, edge.policy.plan.zone)
    return _filled(rows, span.days)


def by_month(edge: Edge, span: Span) -> list[Collected]:
    """That month and those before it, the oldest first."""
    months = [span.first_day]
    while len(months) < MONTHS:
        months.insert(0, month_before(months[0]))
    zone = edge.policy.plan.zone
    with edge.book.transaction() as tx:
        rows = figures.by_month(tx.session, start_of(months[0], zone), span.ends, zone)
    return _filled(rows, months)


def _filled(rows: Sequence[Collected], days: list[date]) -> list[Collected]:
    found = {row.on: row for row in rows}
    return [found.get(on, Collected(on, 0, 0, 0, 0)) for on in days]


def declines(edge: Edge, span: Span) -> list[figures.DeclinedBy]:
    with edge.book.transaction() as tx:
        return list(figures.declines(tx.session, span.begins, span.ends))


def hours(edge: Edge, span: Span) -> list[figures.Hour]:
    with edge.book.transaction() as tx:
        zone = edge.policy.plan.zone
        return list(figures.hours(tx.session, span.begins, span.ends, zone))
