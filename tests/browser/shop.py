"""A shop as its operator meets it: a book that was lived in, the gateway, and the HTTP edge, each a
real server of this machine, on one clock that runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import uvicorn
from pydantic import SecretStr
from sqlalchemy import text
from starlette.types import ASGIApp, Receive, Scope, Send

from billing import clock as real_clock
from billing.bootstrap import House, house
from billing.embedded import Servers
from billing.sandbox import create_app as create_sandbox
from billing.settings import Settings
from billing.store.session import Book
from billing.web.app import create_app
from tests.conftest import MovedClock
from tests.lived_in import NOW, live
from tests.world import World


class RunningClock(MovedClock):
    """Stands still until `start`; then time passes."""

    ahead: timedelta | None = None

    def start(self) -> None:
        self.ahead = self.__dict__["now"] - real_clock.host_time()

    @property  # type: ignore[override]
    def now(self) -> datetime:
        if self.ahead is None:
            found: datetime = self.__dict__["now"]
            return found
        return real_clock.host_time() + self.ahead

    @now.setter
    def now(self, moment: datetime) -> None:
        self.__dict__["now"] = moment


@dataclass
class Shop:
    """Where it is, and what is behind it."""

    url: str
    book: Book
    world: World
    settings: Settings
    house: House

    @contextlib.contextmanager
    def another(self, **settings: Any) -> Iterator[str]:
        """A second HTTP edge on the same book, with other settings."""
        changed = self.settings.model_copy(update=_secrets(settings))
        with served(create_app(replace(self.house, settings=changed))) as url:
            yield url


def _secrets(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: SecretStr(value) for name, value in settings.items()}


@contextlib.contextmanager
def a_shop(servers: Servers, database_url: str, **settings: Any) -> Iterator[Shop]:
    """Lived in and open. Works in threads of its own, so that a browser may run in this one."""
    clock = RunningClock()
    with contextlib.ExitStack() as exits:
        gateway = exits.enter_context(_gateway())
        made = Settings.load(
            **{
                "database_url": database_url,
                "broker_url": servers.broker_url,
                "portone_api_url": gateway.url,
                "portone_imp_key": "key",
                "portone_imp_secret": "secret",
                "flower_url": "http://127.0.0.1:5555",
                **settings,
            }
        )
        opened = exits.enter_context(house(made))
        opened = replace(opened, book=Book(opened.engine, clock.read))
        with ThreadPoolExecutor(1) as elsewhere:
            world = elsewhere.submit(live, opened.book, opened.policy, clock).result()
        gateway.app = create_sandbox(world.sandbox)
        clock.start()
        _tell_the_database(opened, clock)
        url = exits.enter_context(served(create_app(opened)))
        yield Shop(url, opened.book, world, made, opened)


def _tell_the_database(opened: House, clock: RunningClock) -> None:
    """For whoever reads the moment from the book, as another process would."""
    with opened.engine.begin() as connection:
        connection.execute(
            text("UPDATE installation SET clock_offset = :ahead"), {"ahead": clock.ahead}
        )


class _Gateway:
    """An address first; the sandbox moves in when its months have passed."""

    url: str
    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@contextlib.contextmanager
def _gateway() -> Iterator[_Gateway]:
    gateway = _Gateway()
    with served(gateway) as gateway.url:
        yield gateway


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """An application on a free port of this machine."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, proxy_headers=False)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


__all__ = ["NOW", "Shop", "a_shop", "served"]
