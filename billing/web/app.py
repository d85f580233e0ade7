"""The application: every router, and what stands before all of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import anyio
from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

import billing
from billing import liveness
from billing.bootstrap import House, gateway, quick_redis
from billing.meter import CallCounter, sharing
from billing.ports import PaymentGateway
from billing.web import console, health, metrics, problems, webhooks
from billing.web.api import cycles, reference, subscriptions
from billing.web.api.routes import EncodedPaths
from billing.web.bodies import Bodies
from billing.web.checkout import routes as checkout
from billing.web.edge import Connect, Edge
from billing.web.headers import SecurityHeaders

# A book that is away must not keep the edge from starting.
BEGIN_SECONDS = 3


def create_app(house: House, connect: Connect | None = None) -> FastAPI:
    """The ASGI application. `connect` opens a client of the gateway; the real one by default."""
    calls, broker_url = CallCounter(), house.broker_url

    def client() -> AbstractAsyncContextManager[PaymentGateway]:
        return gateway(house.settings, broker_url=broker_url, meter=calls)

    edge = Edge(house, connect or client)
    show = liveness.shown(house.settings.liveness_file, os.environ)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with anyio.move_on_after(BEGIN_SECONDS):
            await anyio.to_thread.run_sync(metrics.begin, app, abandon_on_cancel=True)
        with sharing(calls, quick_redis(house.broker)):
            async with edge.open(), liveness.kept(show):
                yield

    app = FastAPI(
        title="Maewol",
        version=billing.__version__,
        summary="Recurring phone billing through PortOne V1: enrolment, webhooks, operations.",
        lifespan=lifespan,
        # Their pages load scripts from elsewhere; ours is `reference`.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # A redirect would lead a client's credential to an address it did not ask for.
        redirect_slashes=False,
    )
    app.state.edge = edge
    problems.install(app)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(subscriptions.router)
    app.include_router(cycles.router)
    app.include_router(webhooks.router)
    app.include_router(reference.router)
    checkout.install(app)
    console.install(app, edge)
    # The last one added stands before all others.
    app.add_middleware(problems.Unexpected)
    app.add_middleware(EncodedPaths)
    app.add_middleware(Bodies)
    app.add_middleware(SecurityHeaders)
    if house.settings.trusted_proxies:
        # Customers behind our own proxy are counted one by one. It makes nobody local: whoever was
        # passed on never is (`access.is_local`).
        trusted = house.settings.trusted_proxies.split(",")
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=trusted)
    return app
