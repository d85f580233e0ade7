"""Money: collected by day and by month; declines by class; answers by hour of the day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from fastapi import APIRouter, Request
from starlette.responses import Response

from billing.domain.calendar import start_of
from billing.domain.refund import month_after, month_before
from billing.services.month import paid_by_day
from billing.store import figures
from billing.store.figures import Collected
from billing.web.console import look
from billing.web.console.asked import month_asked
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


@dataclass(frozen=True, slots=True)
class Hour:
    """What the carrier answered in one hour of the day."""

    hour: int
    approved: int
    declined: int


@dataclass(frozen=True, slots=True)
class Figures:
    """One month by day and by hour of the day."""

    days: list[Collected]
    hours: list[Hour]


@router.get("/money")
def money(request: Request, edge: TheEdge) -> Response:
    span = span_asked(request, edge)
    months, found = by_month(edge, span), figures_of(edge, span)
    with edge.book.transaction() as tx:
        declines = figures.declines(tx.session, span.begins, span.ends)
    return look.render(
        request,
        "money.html",
        span=span,
        days=found.days,
        months=months,
        total=months[-1],
        declines=declines,
        hours=found.hours,
        earlier=month_before(span.first_day),
        later=month_after(span.first_day),
    )


def span_asked(request: Request, edge: Edge) -> Span:
    """The month that `?month=` names, or this one."""
    first_day = month_asked(request.query_params.get("month"), today_of(edge))
    zone = edge.policy.plan.zone
    return Span(first_day, start_of(first_day, zone), start_of(month_after(first_day), zone))


def figures_of(edge: Edge, span: Span) -> Figures:
    """Every day and every hour, also those without an answer."""
    zone = edge.policy.plan.zone
    with edge.book.transaction() as tx:
        paid = figures.by_hour(tx.session, span.begins, span.ends, zone)
        declined = figures.declined_by_hour(tx.session, span.begins, span.ends, zone)
    approved: Counter[int] = Counter()
    for one in paid:
        approved[one.hour] += one.collected.count + one.collected.refunded_count
    return Figures(
        _filled(paid_by_day(paid), span.days),
        [Hour(hour, approved[hour], declined.get(hour, 0)) for hour in range(24)],
    )


def by_month(edge: Edge, span: Span) -> list[Collected]:
    """That month and those before it, the oldest first."""
    months = [span.first_day]
    while len(months) < MONTHS:
        months.insert(0, month_before(months[0]))
    with edge.book.transaction() as tx:
        rows = figures.by_month(tx.session, months[0], months[-1])
    return _filled({row.on: row for row in rows}, months)


def _filled(found: Mapping[date, Collected], days: list[date]) -> list[Collected]:
    return [found.get(on, Collected(on, 0, 0, 0, 0)) for on in days]
