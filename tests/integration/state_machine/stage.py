"""What all rules share: one book, one gateway, one clock, the way between them, and the model."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, TypeVar

from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.bootstrap import billing_policy
from billing.domain.calendar import SEOUL
from billing.domain.errors import GatewayError
from billing.portone.client import PortOneClient
from billing.sandbox import Sandbox, SandboxClock, mood
from billing.sandbox.model import Payment, Status
from billing.services import reconciled
from billing.services.answer import Result
from billing.services.charge import charge
from billing.services.clock_guard import ClockGuard
from billing.services.close_cycles import anything_ends, close_cycles
from billing.services.dispatch import dispatch
from billing.services.inquire import find_unknown, inquire
from billing.services.look_at_webhooks import look_at_webhooks, waiting
from billing.services.open_cycles import anything_opens, open_cycles
from billing.services.reconcile import Report
from billing.services.refund import open_now, work_on_open
from billing.services.seal_events import seal_events
from billing.settings import Settings
from billing.simulation.lookback import SLOTS
from billing.store.session import Book, Transaction
from billing.store.tables import Base
from tests.builders import a_client, query
from tests.conftest import MovedClock
from tests.integration.state_machine.wire import Journal, Killed, MortalBook, Post, Wire

T = TypeVar("T")
START = datetime(2026, 11, 18, 0, 55, tzinfo=UTC)
# No comparison looks further back.
BEGAN = date(2026, 11, 1)
# These have one row each that is always there.
FRESH = {
    "installation": "UPDATE installation SET hold_reason = NULL, held_at = NULL, seal_up_to = NULL,"
    " seal_once_past = NULL",
    "gateway_health": "DELETE FROM gateway_health; INSERT INTO gateway_health (id) VALUES (1)",
    "receiver": "DELETE FROM receiver; INSERT INTO receiver (id) VALUES (1)",
}
LASTING = set(FRESH)
TABLES = ", ".join(sorted(Base.metadata.tables.keys() - LASTING))
MOODS: dict[str, dict[str, Any]] = {
    "well": {},
    "strict": {"failed_merchant_uid": "strict"},
    "lagging": {"lookup_lag_seconds": 25},
    "half its look-ups fail": {"chances": {"lookup": {"http:503": 0.3, "html": 0.2}}},
    "charges get lost": {
        "chances": {"charge": {"timeout_before_charge": 0.3, "reset_after_charge": 0.3}}
    },
    "cancellations get lost": {
        "chances": {"cancel": {"timeout_before_cancel": 0.4, "reset_after_cancel": 0.4}}
    },
    "cancellations go wrong": {
        "chances": {
            "cancel": {
                "refused:0043": 0.3,
                "http_before_cancel:500": 0.2,
                "cut_json_after_cancel": 0.2,
                "unauthorized": 0.1,
                "too_many:30": 0.1,
            }
        }
    },
    "down": {
        "spells": [
            {"from": "2026-01-01T00:00:00Z", "until": "2028-01-01T00:00:00Z", "does": "http:503"}
        ]
    },
}
OFF = {"clock ahead": timedelta(minutes=10), "clock behind": timedelta(minutes=-10)}
# In these a question may have no answer.
DEAF = {"half its look-ups fail", "down"}
SCANS = ("open", "dispatch", "ask", "close", "refund", "webhooks")


class Stage(RuleBasedStateMachine):
    """Six customers, one book, one gateway, one clock."""

    book: Book
    engine: Any
    # What really happened, over all examples: a rule that is never reached proves nothing.
    reached: ClassVar[Counter[str]]

    def begin(self) -> None:
        self.clock = MovedClock(START)
        # By so much the database's clock differs from the gateway's and the hosts'.
        self.off = timedelta(0)
        self.book = Book(self.engine, self.read)
        self.policy = billing_policy(Settings.load(charge_cron="0 * * * *", charges_per_second=0))
        with self.engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {TABLES} RESTART IDENTITY CASCADE"))
            for row in sorted(LASTING):
                connection.execute(text(FRESH[row]))
        self.sandbox = Sandbox(seed=1, clock=SandboxClock(lambda: self.clock.now), sleep=no_sleep)
        self.sandbox.webhooks = self.post = Post(self.sandbox)
        self.mood = "well"
        self.journal = Journal()
        self.guard = ClockGuard(lambda: self.clock.now, lambda: self.clock.now.timestamp())
        self.messages: list[tuple[str, list[int]]] = []
        # The lines of an import that bring in, or brought in, each customer; those whom the gateway
        # alone knows as yet; and what the initial payment says, by which a book is put right.
        self.rows: dict[str, str] = {}
        self.registered: dict[str, Payment] = {}
        self.facts: dict[str, tuple[Any, ...]] = {}
        # What somebody changed behind our back, and nobody has put right.
        self.spoiled: dict[str, set[str]] = {}
        # The model: what became of each customer's months, and by which payment, as far as the book
        # has told; and the payments of others that went back before any month counted them.
        self.months: dict[tuple[str, date], str] = {}
        self.pays: dict[tuple[str, date], str] = {}
        self.never: set[str] = set()
        # Whose open month is held, after the step before.
        self.held: set[str] = set()

    def read(self, _: Session) -> datetime:
        """Billing time, which is the database's."""
        return self.clock.now + self.off

    def set_mood(self, name: str) -> None:
        """Of the gateway, and of the database's clock."""
        self.mood, off = name, OFF.get(name, timedelta(0))
        self.sandbox.mood = mood(MOODS.get(name, {}))
        if off != self.off:
            # For longer than a comparison counts nothing is done: what happens within that time is
            # done by a clock that was right.
            self.off = off
            self.clock.move(minutes=6)
            self.reached["clock off"] += bool(off)

    # -- WorkQueue: a hint that may be lost, doubled and late ----------------------------------

    def charge(self, attempt_ids: Sequence[int]) -> None:
        self.messages.append(("charge", list(attempt_ids)))

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        self.messages.append(("inquire", list(attempt_ids)))

    def charges_waiting(self) -> int:
        return sum(kind == "charge" for kind, _ in self.messages)

    def dispatch_soon(self) -> None:
        """The next tick comes soon enough."""

    # -- processes ------------------------------------------------------------------------------

    def ask(
        self, use_case: Callable[[Book, PortOneClient], Awaitable[T]], kill: str = ""
    ) -> T | None:
        """What a process of its own does that needs the gateway; None where it died of it."""
        book = MortalBook(self.engine, self.read)

        async def run() -> T:
            wire = Wire(self.sandbox, book, self.journal, kill)
            timeout = self.policy.deadline.total_seconds()
            client = a_client(self.clock, wire, charge_timeout=timeout)
            try:
                return await use_case(book, client)
            finally:
                await client.aclose()

        try:
            return asyncio.run(run())
        except Killed:
            assert kill
            self.reached[f"killed {kill}"] += 1
            return None

    def work(self, message: tuple[str, list[int]], kill: str = "") -> None:
        kind, ids = message
        use_case = {"charge": charge, "inquire": inquire}[kind]
        tally = self.ask(lambda book, client: use_case(book, client, self.policy, ids), kill)
        if tally is not None:
            assert not tally[Result.UNRECORDED], "the book is there to be written"

    def one_tick(self, name: str, kill: str = "") -> None:
        match name:
            case "open":
                self._watch_the_clock(anything_opens)
                open_cycles(self.book, self.policy, self.guard)
            case "dispatch":
                dispatch(self.book, self, self.policy)
            case "ask":
                find_unknown(self.book, self, self.policy)
            case "close":
                self._watch_the_clock(lambda tx: anything_ends(tx, self.policy))
                close_cycles(self.book, self.policy, self.guard)
            case "seal":
                seal_events(self.book)
            case "refund" if open_now(self.book):
                self.ask(lambda book, client: work_on_open(book, client, self.policy), kill)
            case "webhooks" if waiting(self.book):
                tally = self.ask(
                    lambda book, client: look_at_webhooks(book, client, self.policy), kill
                )
                self.reached.update(f"webhook {outcome}" for outcome in tally or ())
            case "reconcile":
                self._reconcile(kill)

    def _watch_the_clock(self, waits: Callable[[Transaction], bool]) -> None:
        if self.guard.must_compare(self.book, waits):
            self.ask(lambda book, client: self.guard.compare(book, client))

    def _reconcile(self, kill: str) -> None:
        def due(tx: Transaction) -> bool:
            return reconciled.is_due(tx, self.policy, SLOTS)

        self._watch_the_clock(due)
        if not self.book.run(lambda tx: due(tx) and self.guard.may_end(tx)):
            return
        try:
            report = self.ask(
                lambda book, client: reconciled.make(
                    book, client, self.policy, None, sleep=no_sleep
                ),
                kill,
            )
        except GatewayError:
            assert self.mood in DEAF
            return
        assert report is None or report.whole or self.mood in DEAF
        self.note(report)

    def note(self, report: Report | None) -> None:
        if report is not None:
            self.reached.update(f"reconciled: {one.kind}" for one in report.applied)
            self.reached.update(f"told: {one.kind}" for one in report.differences)

    def a_good_minute(self) -> None:
        """What mostly happens: everything ticks, and every message is worked off."""
        for name in SCANS:
            self.one_tick(name)
        while self.messages:
            self.work(self.messages.pop(0))
        self.clock.move(seconds=61)

    # -- both sides -----------------------------------------------------------------------------

    def statuses(self) -> dict[str, str]:
        """Every subscription's, by its customer."""
        rows = query(self.book, "SELECT customer_uid, status FROM subscriptions")
        return {name: status for name, status in rows}

    def held_by_gateway(self) -> list[Payment]:
        """Payments that stand, of customers of the book, the newest first."""
        found = reversed(self.sandbox.ledger.payments)
        return [one for one in found if one.status is Status.PAID and one.customer_uid in self.rows]

    def counted(self) -> set[str]:
        """The payments that months count."""
        return set(self.pays.values())


async def no_sleep(_: float) -> None:
    """The clock stands while a use case runs."""


def month_of(payment: Payment) -> date:
    return day_of(payment.paid_at).replace(day=1)


def day_of(moment: float) -> date:
    return datetime.fromtimestamp(moment, SEOUL).date()
