"""The ports of a simulated process: its book, queue and token store, each with its faults.

They do what the real ones do, unless the process is dead (then nothing they do has any effect) or
the nemesis strikes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg.errors
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from billing.domain.errors import BrokerUnavailable
from billing.ports import AccessToken
from billing.simulation.loop import Killed
from billing.store.session import Book, Transaction

if TYPE_CHECKING:
    from billing.simulation.processes import Mail, Process

# How the errors that the nemesis makes are told from real ones.
MADE_UP = "simulated"
# As the Redis store: a fetch that takes longer is given up, then another worker may try.
_SINGLE_FLIGHT_SECONDS = 10


class SimulatedBook(Book):
    """The real book on the real database; commits may fail, be lost, or kill."""

    def __init__(
        self, engine: Engine, moment: Callable[[Session], datetime], process: Process
    ) -> None:
        super().__init__(engine, moment, pause=lambda _: None)
        self._process = process

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        process, nemesis = self._process, self._process.world.nemesis
        self._reach()
        with super().transaction() as tx:
            yield tx
            if nemesis.strikes("kill_before_commit"):
                process.kill()
                raise Killed
            if nemesis.strikes("commit_lost_undone"):
                raise _away()
            if nemesis.strikes("deadlock"):
                raise OperationalError(MADE_UP, {}, psycopg.errors.DeadlockDetected(MADE_UP))
        process.world.on_commit()
        if nemesis.strikes("kill_after_commit"):
            process.kill()
            raise Killed
        if nemesis.strikes("commit_lost_done"):
            raise _away()

    @contextmanager
    def snapshot(self, *, staging: bool = False) -> Iterator[Transaction]:
        self._reach()
        with super().snapshot(staging=staging) as tx:
            yield tx

    def _reach(self) -> None:
        self._process.check()
        if self._process.world.database_is_down:
            raise _away()


def _away() -> OperationalError:
    return OperationalError(MADE_UP, {}, psycopg.OperationalError(MADE_UP))


class SimulatedQueue:
    """The way to the workers: see `billing.ports.WorkQueue`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def charge(self, attempt_ids: Sequence[int]) -> None:
        self._send("charge", attempt_ids)

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        self._send("inquire", attempt_ids)

    def charges_waiting(self) -> int:
        return self._reached().charges_waiting

    def dispatch_soon(self) -> None:
        self._send("dispatch", ())

    def _send(self, kind: str, attempt_ids: Sequence[int]) -> None:
        self._reached().send(kind, tuple(attempt_ids))

    def _reached(self) -> Mail:
        self._process.check()
        if self._process.world.broker_is_down:
            raise BrokerUnavailable(MADE_UP)
        return self._process.world.mail


class SimulatedTokens:
    """The shared access token of all workers; away together with the broker."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def get(self) -> AccessToken | None:
        self._process.check()
        shared = self._process.world.mail
        return None if self._process.world.broker_is_down else shared.token

    async def put(self, token: AccessToken) -> None:
        self._process.check()
        if not self._process.world.broker_is_down:
            self._process.world.mail.token = token

    async def discard(self, value: str) -> None:
        self._process.check()
        kept = self._process.world.mail.token
        if kept is not None and kept.value == value:
            self._process.world.mail.token = None

    @asynccontextmanager
    async def single_flight(self) -> AsyncIterator[None]:
        lock, held = self._process.world.mail.token_lock, False
        try:
            async with asyncio.timeout(_SINGLE_FLIGHT_SECONDS):
                held = await lock.acquire()
        except TimeoutError:
            held = False
        try:
            yield
        finally:
            if held:
                lock.release()


class SimulatedWatermark:
    """The highest event number seen of each database; see `billing.ports.Watermark`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def seen(self) -> Mapping[str, int]:
        self._process.check()
        world = self._process.world
        return {} if world.broker_is_down else dict(world.mail.watermarks)

    async def raise_to(self, database: str, number: int) -> None:
        self._process.check()
        world = self._process.world
        if not world.broker_is_down:
            known = world.mail.watermarks.get(database, 0)
            world.mail.watermarks[database] = max(known, number)

    async def begin_anew(self, database: str, number: int) -> None:
        self._process.check()
        world = self._process.world
        if not world.broker_is_down:
            world.mail.watermarks[database] = number
