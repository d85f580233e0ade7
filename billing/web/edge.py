"""What a route needs that lives longer than a request, and how it gets hold of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond

from billing.bootstrap import House
from billing.domain.policy import BillingPolicy
from billing.ports import PaymentGateway
from billing.settings import Settings
from billing.store.session import Book
from billing.web.limiting import Limiter

Connect = Callable[[], AbstractAsyncContextManager[PaymentGateway]]


def _refusals() -> Limiter:
    return Limiter(RateLimitItemPerMinute(30), RateLimitItemPerMinute(600))


# The gateway announces every charge, from two or three addresses, or from the one of a proxy.
_LEAST_WEBHOOKS_PER_SECOND = 20
_WINDOW_SECONDS = 10


def _webhooks(settings: Settings) -> Limiter:
    each = max(_LEAST_WEBHOOKS_PER_SECOND, 2 * int(settings.charges_per_second or 50))
    return Limiter(
        RateLimitItemPerSecond(each * _WINDOW_SECONDS, _WINDOW_SECONDS),
        RateLimitItemPerSecond(2 * each * _WINDOW_SECONDS, _WINDOW_SECONDS),
    )


@dataclass
class Edge:
    """The house and one client of the gateway, made when the first route asks for it."""

    house: House
    connect: Connect
    # Requests with a wrong credential.
    refusals: Limiter = field(default_factory=_refusals)
    webhooks: Limiter = field(init=False)
    _exits: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _client: PaymentGateway | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.webhooks = _webhooks(self.settings)

    @property
    def settings(self) -> Settings:
        return self.house.settings

    @property
    def policy(self) -> BillingPolicy:
        return self.house.policy

    @property
    def book(self) -> Book:
        return self.house.book

    async def gateway(self) -> PaymentGateway:
        """The client. Raises `InvalidSetting` without credentials."""
        async with self._lock:
            if self._client is None:
                self._client = await self._exits.enter_async_context(self.connect())
            return self._client

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """For the life of the application."""
        try:
            yield
        finally:
            self._client = None
            await self._exits.aclose()


def edge_of(request: Request) -> Edge:
    """The edge that the application was made with."""
    edge: Edge = request.app.state.edge
    return edge


TheEdge = Annotated[Edge, Depends(edge_of)]
