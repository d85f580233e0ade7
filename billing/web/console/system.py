"""System: is everything there that charging needs; stopping and starting all of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.routing import Match

from billing.presenting import told
from billing.services import doctor, invariants
from billing.store import health, heartbeats, schema
from billing.store.pages import subscription_counts
from billing.web.console import look
from billing.web.console.door import Room
from billing.web.edge import TheEdge
from billing.web.texts import texts_for

router = APIRouter(route_class=Room, include_in_schema=False)

# The newest of many: hosts that are gone leave their names behind.
_MOST_NAMES = 40


@router.get("/system")
def system(request: Request, edge: TheEdge) -> Response:
    t = texts_for(request)
    wanted = edge.settings.notice_url is not None
    found = doctor.examine(edge.book, edge.house.engine, notices_wanted=wanted)
    checks = [told.check(one, t) for one in found]
    with edge.book.transaction() as tx:
        seen = sorted(heartbeats.seen(tx.session).items(), key=lambda one: one[1], reverse=True)
        page: dict[str, Any] = {
            "now": tx.now,
            "state": health.read(tx.session),
            "counts": subscription_counts(tx.session),
            "seen": [
                (name, at, at >= tx.now - _expected_within(name)) for name, at in seen[:_MOST_NAMES]
            ],
            "schema": schema.wanted(),
        }
    return look.render(
        request,
        "system.html",
        checks=checks,
        flower=edge.settings.flower_url,
        docs=_has_docs(request),
        ceiling=edge.policy.charges_per_second,
        **page,
    )


@router.get("/system/invariants")
def facts(request: Request, edge: TheEdge) -> Response:
    """Every fact that must hold, looked at for a short time each."""
    glance = invariants.glance(edge.book, edge.policy)
    return look.render(request, "invariants.html", glance=glance)


def _expected_within(name: str) -> timedelta:
    """How old a sign of life may be. Workers are heard of when they have work; some ticks come
    once an hour or once a day."""
    if name.endswith((".check", ".seal")):
        return timedelta(hours=2)
    if name.endswith((".reconcile", ".prune")):
        return timedelta(hours=26)
    return heartbeats.SEEN_WITHIN


def _has_docs(request: Request) -> bool:
    """Whether this application describes its API."""
    asked = {**request.scope, "path": "/docs", "raw_path": b"/docs", "method": "GET"}
    return any(route.matches(asked)[0] is Match.FULL for route in request.app.routes)
