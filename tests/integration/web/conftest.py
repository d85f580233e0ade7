"""The application in this process, on a real book and broker, with the sandbox as its gateway."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from billing.bootstrap import house
from billing.embedded import Servers
from billing.portone.client import PortOneClient
from billing.sandbox import Sandbox, SandboxClock
from billing.sandbox import create_app as create_sandbox
from billing.settings import Settings
from billing.store.session import Book
from billing.web.app import create_app
from tests.builders import a_client
from tests.conftest import MovedClock


@dataclass
class Edge:
    """The application, its book and the gateway it asks."""

    app: FastAPI
    book: Book
    sandbox: Sandbox
    clock: MovedClock

    @contextlib.contextmanager
    def browse(
        self, *, peer: str = "127.0.0.1", host: str = "127.0.0.1", **headers: str
    ) -> Iterator[TestClient]:
        """A client at an address that asks for a host; errors of a route are answers."""
        with TestClient(
            self.app,
            base_url=f"http://{host}",
            client=(peer, 4321),
            headers=headers,
            raise_server_exceptions=False,
            follow_redirects=False,
        ) as client:
            yield client


@pytest.fixture
def make_edge(
    servers: Servers, database_url: str, book: Book, clock: MovedClock
) -> Iterator[Callable[..., Edge]]:
    """The application with these settings; time stands still until `clock` moves it."""
    with contextlib.ExitStack() as exits:
        yield lambda **settings: _edge(exits, servers, database_url, book, clock, settings)


@pytest.fixture
def make_free_edge(servers: Servers, clock: MovedClock) -> Iterator[Callable[..., Edge]]:
    """The same without a database behind it: for what must be refused before anything is read."""
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:9/nothing"
    with contextlib.ExitStack() as exits:
        yield lambda **settings: _edge(exits, servers, nowhere, None, clock, settings)


@pytest.fixture
def edge(make_edge: Callable[..., Edge]) -> Edge:
    """The application with the default settings."""
    return make_edge()


def _edge(
    exits: contextlib.ExitStack,
    servers: Servers,
    database_url: str,
    book: Book | None,
    clock: MovedClock,
    settings: dict[str, Any],
) -> Edge:
    made = Settings.load(
        **{
            "database_url": database_url,
            "broker_url": servers.broker_url,
            "portone_imp_key": "key",
            "portone_imp_secret": "secret",
            **settings,
        }
    )
    opened = exits.enter_context(house(made))
    if book is not None:
        opened = replace(opened, book=book)
    sandbox = Sandbox(clock=SandboxClock(lambda: clock.now))

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[PortOneClient]:
        transport = httpx.ASGITransport(create_sandbox(sandbox))
        client = a_client(clock, transport, include_sandbox=made.include_sandbox)
        try:
            yield client
        finally:
            await client.aclose()

    return Edge(create_app(opened, connect), opened.book, sandbox, clock)
