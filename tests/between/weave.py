"""Two operations laid into each other at one place.

The first is stopped where it is about to send a statement, to commit, or to speak to the gateway.
There the second runs, until it ends or waits for a row that the first has locked; then the first
goes on, and the second as soon as it can.

A transaction is whole or it is not one: what happens in the middle of a transaction of the first
must end as if it had happened just before that transaction, or just after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import Connection, Engine, event, text

from billing.domain.errors import BillingError
from billing.store.session import Book
from tests.town import Town, Wiretap

Operation = Callable[[Town], object]

_LONGEST_SECONDS = 60
# By this the observer knows the connections of the second.
SECOND = "maewol-second"
_WAITING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name"
    " AND datname = current_database() AND wait_event_type = 'Lock'"
)


class _Strand(threading.Thread):
    """One operation in a thread of its own."""

    def __init__(self, operation: Operation, town: Town) -> None:
        super().__init__(daemon=True)
        self._operation, self._town = operation, town
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with suppress(BillingError):
                # A refusal in words is an end like any other.
                self._operation(self._town)
        except BaseException as error:
            self.failure = error

    def end(self) -> None:
        """Wait for it. Raises what no operation may raise."""
        self.join(_LONGEST_SECONDS)
        assert not self.is_alive(), "it hangs"
        if self.failure is not None:
            raise self.failure


class _Watched(Wiretap):
    """A wire that tells of each request before it leaves."""

    place: Callable[[], None]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.place()
        return await super().handle_async_request(request)


class _Places:
    """The places of the first operation, as it passes them: whether it had begun no transaction."""

    def __init__(self, arrive: Callable[[int], None]) -> None:
        self.outside: list[bool] = []
        self._arrive = arrive
        self._begun: set[int] = set()
        self._one_at_a_time = threading.RLock()

    def statement(self, connection: Connection, *_: Any) -> None:
        with self._one_at_a_time:
            self._pass()
            # PostgreSQL begins with the first statement, whenever we said so.
            self._begun.add(id(connection))

    def commit(self, connection: Connection) -> None:
        with self._one_at_a_time:
            if id(connection) in self._begun:
                self._pass()
                self._begun.discard(id(connection))

    def rollback(self, connection: Connection) -> None:
        with self._one_at_a_time:
            self._begun.discard(id(connection))

    def request(self) -> None:
        with self._one_at_a_time:
            self._pass()

    def _pass(self) -> None:
        self.outside.append(not self._begun)
        self._arrive(len(self.outside) - 1)


@dataclass(frozen=True)
class Loom:
    """The two engines, and a connection that looks at both."""

    first: Engine
    second: Engine
    observer: Engine

    def woven(self, town: Town, first: Operation, second: Operation, at: int | None) -> list[bool]:
        """`second` at this place of `first`, or after it. Returns of each place that was passed
        whether it lay outside of every transaction. Raises what an operation may not raise."""
        beside = copy(town)
        beside.book = Book(self.second, town.clock.read, pause=lambda _: None)
        beside.wire = Wiretap(town.sandbox)
        other = _Strand(second, beside)

        def arrive(place: int) -> None:
            if place == at:
                other.start()
            if at is not None and place >= at:
                # Also later: it goes on as soon as it can, and the same way each time.
                self._until_it_waits(other)

        places = _Places(arrive)
        with self._watching(town, places):
            main = _Strand(first, town)
            main.start()
            main.end()
        if other.ident is None:
            other.start()
        other.end()
        return places.outside

    def _until_it_waits(self, strand: _Strand) -> None:
        strand.join(0.002)
        if not strand.is_alive():
            return
        until = time.monotonic() + _LONGEST_SECONDS
        with self.observer.connect() as connection:
            while strand.is_alive() and time.monotonic() < until:
                strand.join(0.002)
                if connection.execute(_WAITING, {"name": SECOND}).scalar_one():
                    return
                connection.rollback()

    @contextmanager
    def _watching(self, town: Town, places: _Places) -> Iterator[None]:
        wire = _Watched(town.sandbox)
        wire.place = places.request
        town.wire, before = wire, town.wire
        heard = {
            "before_cursor_execute": places.statement,
            "commit": places.commit,
            "rollback": places.rollback,
        }
        for name, listener in heard.items():
            event.listen(self.first, name, listener)
        try:
            yield
        finally:
            for name, listener in heard.items():
                event.remove(self.first, name, listener)
            town.wire = before
