"""A month in one process: the real use cases, book and client, the sandbox, one clock for all."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import httpx

from billing.domain.calendar import SEOUL
from billing.domain.policy import BillingPolicy
from billing.portone.client import PortOneClient
from billing.ports import Watermark
from billing.sandbox import NewCustomer, Sandbox, SandboxClock, create_app, mood, register
from billing.services.answer import Result
from billing.services.charge import charge
from billing.services.clock_guard import ClockGuard
from billing.services.close_cycles import anything_ends, close_cycles
from billing.services.dispatch import dispatch
from billing.services.fence import look_for_lost
from billing.services.inquire import find_unknown, inquire
from billing.services.open_cycles import anything_opens, open_cycles
from billing.services.seal_events import seal_events
from billing.store.session import Book, Transaction
from tests.builders import a_client, enrolled, query
from tests.conftest import MovedClock

T = TypeVar("T")

PAID_AT = datetime(2026, 10, 20, 14, 30, tzinfo=SEOUL)


@dataclass
class World:
    """Subscribers, a gateway and workers; nothing happens but by a call."""

    book: Book
    policy: BillingPolicy
    clock: MovedClock
    faults: Any = None
    watermark: Watermark | None = None
    sandbox: Sandbox = field(init=False)
    guard: ClockGuard = field(init=False)
    charges: deque[list[int]] = field(default_factory=deque)
    inquiries: deque[list[int]] = field(default_factory=deque)
    tally: Counter[Result] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.sandbox = Sandbox(
            clock=SandboxClock(lambda: self.clock.now),
            mood=mood(self.faults or {}),
            sleep=self._nap,
        )
        self.guard = ClockGuard(lambda: self.clock.now, lambda: self.clock.now.timestamp())

    async def _nap(self, seconds: float) -> None:
        self.clock.move(seconds=seconds)

    # -- WorkQueue ----------------------------------------------------------------------------

    def charge(self, attempt_ids: Sequence[int]) -> None:
        self.charges.append(list(attempt_ids))

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        self.inquiries.append(list(attempt_ids))

    def charges_waiting(self) -> int:
        return len(self.charges)

    def dispatch_soon(self) -> None:
        """The next tick comes soon enough."""

    # -- what happens -------------------------------------------------------------------------

    def enrol(self, *names: str, known: bool = True, script: Sequence[str] = ()) -> None:
        """Enrol subscribers; those not `known` have no billing key at the gateway."""
        if known:
            register(
                self.sandbox,
                [
                    NewCustomer(
                        customer_uid=name,
                        amount=9900,
                        name="plan",
                        paid_at=PAID_AT,
                        script=list(script),
                    )
                    for name in names
                ],
            )
        rows = [f"{name},9900,plan,{PAID_AT.isoformat()},," for name in names]
        assert enrolled(self.book, self.policy, *rows).added == len(names)

    def tick(self) -> None:
        """One of each, then the workers do what was sent to them."""
        self.open()
        dispatch(self.book, self, self.policy)
        find_unknown(self.book, self, self.policy)
        self.close()
        seal_events(self.book)
        self.work()

    def open(self) -> int:
        """The tick that opens."""
        self._watch_the_clock(anything_opens)
        return open_cycles(self.book, self.policy, self.guard)

    def close(self) -> int:
        """The tick that closes."""
        self._watch_the_clock(lambda tx: anything_ends(tx, self.policy))
        if self.watermark is not None:
            asyncio.run(look_for_lost(self.book, self.policy, self.watermark))
        return close_cycles(self.book, self.policy, self.guard)

    def _watch_the_clock(self, waits: Callable[[Transaction], bool]) -> None:
        if self.guard.must_compare(self.book, waits):
            self.ask(lambda client: self.guard.compare(self.book, client))

    def work(self) -> None:
        """The workers empty the queue."""
        if self.charges or self.inquiries:
            asyncio.run(self._work())

    def client(self) -> PortOneClient:
        """A client of the gateway, for one event loop."""
        return a_client(
            self.clock,
            httpx.ASGITransport(create_app(self.sandbox)),
            charge_timeout=self.policy.deadline.total_seconds(),
            include_sandbox=self.policy.sandbox,
        )

    def ask(self, use_case: Callable[[PortOneClient], Awaitable[T]]) -> T:
        """Run a use case that needs the gateway."""

        async def run() -> T:
            client = self.client()
            try:
                return await use_case(client)
            finally:
                await client.aclose()

        return asyncio.run(run())

    async def _work(self) -> None:
        client = self.client()
        try:
            while self.charges or self.inquiries:
                if self.charges:
                    ids = self.charges.popleft()
                    self.tally += await charge(
                        self.book, client, self.policy, ids, watermark=self.watermark
                    )
                else:
                    ids = self.inquiries.popleft()
                    self.tally += await inquire(self.book, client, self.policy, ids)
        finally:
            await client.aclose()

    def run(self, every: timedelta = timedelta(seconds=30), times: int = 1) -> None:
        """So many ticks, with so much time between them."""
        for _ in range(times):
            self.tick()
            self.clock.move(seconds=every.total_seconds())

    # -- what became of it --------------------------------------------------------------------

    def requests(self) -> int:
        """Charge requests that reached the gateway."""
        return sum(seen.kind == "again" for seen in self.sandbox.ledger.requests)

    def statuses(self, table: str) -> dict[str, int]:
        return {
            str(status): int(count)
            for status, count in query(
                self.book,
                f"SELECT status, count(*) FROM {table} GROUP BY status",
            )
        }

    def hold(self) -> str | None:
        return query(self.book, "SELECT hold_reason FROM installation")[0][0]  # type: ignore[no-any-return]

    def alarms(self) -> list[str]:
        return [row[0] for row in query(self.book, "SELECT kind FROM events WHERE alarm")]
