"""Every route of the console, and what they share."""

from __future__ import annotations

from fastapi import FastAPI

from billing.web.console import (
    actions,
    calendar,
    charts,
    cycles,
    forecast,
    log,
    money,
    report,
    sign_in,
    subscription,
    subscriptions,
    system,
    today,
)
from billing.web.console.sign_in import Attempts
from billing.web.console.visit import Visits
from billing.web.edge import Edge

PAGES = (
    today,
    calendar,
    money,
    report,
    forecast,
    subscriptions,
    subscription,
    cycles,
    log,
    system,
    actions,
    charts,
    sign_in,
)


def install(app: FastAPI, edge: Edge) -> None:
    """Make the console part of the application."""
    app.state.visits = Visits(edge)
    app.state.attempts = Attempts()
    for page in PAGES:
        app.include_router(page.router)
    app.include_router(sign_in.files)
