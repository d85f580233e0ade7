"""Any order of anything that people, ticks, workers, the gateway and time may do (reliability L8).

The real use cases on a real PostgreSQL, the sandbox in the same process. After every step the book
keeps its invariants, the sandbox finds nothing wrong, and the model (months by customer), the book
and the gateway's ledger tell the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from billing.bootstrap import billing_policy
from billing.domain.calendar import SEOUL
from billing.domain.errors import Conflict, TransitionRefused
from billing.portone.client import PortOneClient
from billing.portone.token import MemoryTokenStore
from billing.sandbox import (
    HandPayment,
    LineChange,
    NewCustomer,
    Sandbox,
    SandboxClock,
    SandboxConnectionReset,
    SandboxNoAnswer,
    change,
    create_app,
    judge,
    mood,
    pay,
    register,
)
from billing.sandbox.model import Origin, Payment, Status
from billing.services import change_status
from billing.services.answer import Result
from billing.services.charge import charge
from billing.services.close_cycles import close_cycles
from billing.services.dispatch import dispatch
from billing.services.hold import hold, release
from billing.services.inquire import find_unknown, inquire
from billing.services.invariants import broken
from billing.services.open_cycles import open_cycles
from billing.services.seal_events import seal_events
from billing.settings import Settings
from billing.store.session import TRIES, Book, create_book_engine
from billing.store.tables import Base
from tests.builders import enrolled, execute, query
from tests.conftest import MovedClock

T = TypeVar("T")
START = datetime(2026, 11, 18, 0, 55, tzinfo=UTC)
# These have one row each that is always there.
FRESH = {
    "installation": "UPDATE installation SET hold_reason = NULL, held_at = NULL, seal_up_to = NULL,"
    " seal_once_past = NULL",
    "gateway_health": "DELETE FROM gateway_health; INSERT INTO gateway_health (id) VALUES (1)",
    "receiver": "DELETE FROM receiver; INSERT INTO receiver (id) VALUES (1)",
}
LASTING = set(FRESH)
TABLES = ", ".join(sorted(Base.metadata.tables.keys() - LASTING))
FAULTS = (
    "ok",
    "declined:0098",  # again soon
    "declined:0031",  # not this month
    "declined:0016",  # the customer must act
    "timeout_before_charge",
    "timeout_after_charge",
    "reset_after_charge",
    "cut_json_after_charge",
    "html_after_charge",
    "http_before_charge:500",
    "too_many:30",
    "unauthorized",
    "wrong_amount",
    "wrong_merchant_uid",
    "ready",
)
MOODS: dict[str, dict[str, Any]] = {
    "well": {},
    "strict": {"failed_merchant_uid": "strict"},
    "lagging": {"lookup_lag_seconds": 25},
    "half its look-ups fail": {"chances": {"lookup": {"http:503": 0.3, "html": 0.2}}},
    "charges get lost": {
        "chances": {"charge": {"timeout_before_charge": 0.3, "reset_after_charge": 0.3}}
    },
    "down": {
        "spells": [
            {"from": "2026-01-01T00:00:00Z", "until": "2028-01-01T00:00:00Z", "does": "http:503"}
        ]
    },
}
STEPS = tuple(
    timedelta(**one)
    for one in (
        {"seconds": 6},
        {"seconds": 70},
        {"minutes": 5},
        {"hours": 1},
        {"hours": 9},
        {"days": 1},
        {"days": 4},
    )
)
ENDED = {"paid", "missed", "skipped"}


class Killed(BaseException):
    """kill -9: nobody catches it."""


class MortalBook(Book):
    """The book as one worker sees it: once dead, the worker writes no more."""

    dead = False

    def run(self, step: Callable[..., T], tries: int = TRIES) -> T:
        if self.dead:
            raise Killed
        return super().run(step, tries)


class Wire(httpx.AsyncBaseTransport):
    """The sandbox in this process; what it does to connections becomes the client's error."""

    def __init__(self, sandbox: Sandbox, book: MortalBook) -> None:
        self._app = httpx.ASGITransport(create_app(sandbox))
        self._book = book
        self.kill = ""  # look-up, before or after

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        is_charge = request.url.path.endswith("/again")
        self._maybe_die("before" if is_charge else "look-up", request)
        try:
            answer = await self._app.handle_async_request(request)
        except SandboxNoAnswer as error:
            raise httpx.ReadTimeout(str(error), request=request) from error
        except SandboxConnectionReset as error:
            raise httpx.ReadError(str(error), request=request) from error
        finally:
            self._maybe_die("after" if is_charge else "", request)
        return answer

    def _maybe_die(self, where: str, request: httpx.Request) -> None:
        if where and self.kill == where and "getToken" not in request.url.path:
            self._book.dead = True
            raise Killed


class Machine(RuleBasedStateMachine):
    """Six customers, one book, one gateway, one clock."""

    book: Book
    engine: Any

    @initialize()
    def begin(self) -> None:
        self.clock = MovedClock(START)
        self.book = Book(self.engine, self.clock.read)
        self.policy = billing_policy(Settings.load(charge_cron="0 * * * *", charges_per_second=0))
        with self.engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {TABLES} RESTART IDENTITY CASCADE"))
            for row in sorted(LASTING):
                connection.execute(text(FRESH[row]))
        self.sandbox = Sandbox(seed=1, clock=SandboxClock(lambda: self.clock.now), sleep=_no_sleep)
        self.messages: list[tuple[str, list[int]]] = []
        self.rows: dict[str, str] = {}
        # The model: what became of each customer's months, as far as the book has told.
        self.months: dict[tuple[str, date], str] = {}
        self.doubled_by_hand: set[tuple[str, date]] = set()

    def teardown(self) -> None:
        if hasattr(self, "months"):
            self.come_to_rest()
            self.sandbox.close()

    # -- WorkQueue: a hint that may be lost, doubled and late ----------------------------------

    def charge(self, attempt_ids: Sequence[int]) -> None:
        self.messages.append(("charge", list(attempt_ids)))

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        self.messages.append(("inquire", list(attempt_ids)))

    def charges_waiting(self) -> int:
        return sum(kind == "charge" for kind, _ in self.messages)

    def dispatch_soon(self) -> None:
        """The next tick comes soon enough."""

    # -- people ---------------------------------------------------------------------------------

    @precondition(lambda self: len(self.rows) < 6)
    @rule(days_ago=st.integers(0, 4), script=st.lists(st.sampled_from(FAULTS), max_size=3))
    def enrol(self, days_ago: int, script: list[str]) -> None:
        name = f"customer-{len(self.rows)}"
        anchor = (self.clock.now.astimezone(SEOUL) - timedelta(days=days_ago)).day
        first_of_month = self.clock.now.astimezone(SEOUL).replace(day=1)
        paid_at = (first_of_month - timedelta(days=1)).replace(
            day=min(anchor, 28), hour=12, minute=0, second=0, microsecond=0
        )
        customer = NewCustomer(
            customer_uid=name, amount=9900, name="plan", paid_at=paid_at, script=script
        )
        register(self.sandbox, [customer])
        self.rows[name] = f"{name},9900,plan,{paid_at.isoformat()},,"
        assert enrolled(self.book, self.policy, self.rows[name]).added == 1

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def import_again(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.rows)))
        assert enrolled(self.book, self.policy, self.rows[name]).unchanged == 1
        changed = self.rows[name].replace("9900", "8800")
        report = enrolled(self.book, self.policy, changed)
        assert (report.added, report.unchanged, len(report.rejected)) == (0, 0, 1)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), what=st.sampled_from(["pause", "resume", "resume", "cancel"]))
    def change_a_subscription(self, data: st.DataObject, what: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.rows)))
        try:
            getattr(change_status, what)(self.book, self.policy, name)
        except (TransitionRefused, Conflict):
            status = query(
                self.book, "SELECT status FROM subscriptions WHERE customer_uid = :n", n=name
            )
            assert status[0][0] in ("cancelled", "suspended"), "refused without a reason"

    @precondition(lambda self: self.rows)
    @rule(
        statement=st.sampled_from(
            [
                "UPDATE subscriptions SET amount = amount + 1",
                "UPDATE subscriptions SET order_name = 'another'",
                "UPDATE events SET kind = 'nothing'",
                "DELETE FROM events",
            ]
        )
    )
    def edit_the_book(self, statement: str) -> None:
        with pytest.raises(DBAPIError):
            execute(self.book, statement)

    @rule(why=st.sampled_from(["hold", "release", "release"]))
    def stop_or_start(self, why: str) -> None:
        if why == "hold":
            hold(self.book, "a drill")
        else:
            release(self.book, self.policy)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def pay_by_hand(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.rows)))
        pay(self.sandbox, HandPayment(customer_uid=name))
        # Longer than any look-up lags: what happens within that is a race nobody can win.
        self.clock.move(seconds=31)

    # -- the gateway and time -------------------------------------------------------------------

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), script=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=4))
    def change_a_line(self, data: st.DataObject, script: list[str]) -> None:
        name = data.draw(st.sampled_from(sorted(self.rows)))
        change(self.sandbox, name, LineChange(script=script))

    @rule(name=st.sampled_from(["well", *MOODS]))
    def change_the_mood(self, name: str) -> None:
        self.sandbox.mood = mood(MOODS[name])

    @rule(by=st.sampled_from(STEPS))
    def let_time_pass(self, by: timedelta) -> None:
        self.clock.move(seconds=by.total_seconds())

    # -- ticks and workers ----------------------------------------------------------------------

    @rule(ticks=st.lists(st.sampled_from(["open", "dispatch", "ask", "close", "seal"]), min_size=1))
    def tick(self, ticks: list[str]) -> None:
        for name in ticks:
            self.one_tick(name)

    @rule()
    def tick_all(self) -> None:
        for name in ("open", "dispatch", "ask", "close"):
            self.one_tick(name)

    def one_tick(self, name: str) -> None:
        match name:
            case "open":
                open_cycles(self.book, self.policy)
            case "dispatch":
                dispatch(self.book, self, self.policy)
            case "ask":
                find_unknown(self.book, self, self.policy)
            case "close":
                close_cycles(self.book, self.policy)
            case "seal":
                seal_events(self.book)

    @precondition(lambda self: self.messages)
    @rule(
        data=st.data(),
        keep=st.booleans(),
        kill=st.sampled_from(["", "", "", "look-up", "before", "after"]),
    )
    def deliver(self, data: st.DataObject, keep: bool, kill: str) -> None:
        """Any message, in any order; kept, it comes once more; and a worker may die of it."""
        place = data.draw(st.integers(0, len(self.messages) - 1))
        message = self.messages[place] if keep else self.messages.pop(place)
        self.work(message, kill)

    @precondition(lambda self: self.messages)
    @rule()
    def lose_the_messages(self) -> None:
        self.messages.clear()

    @rule()
    def a_good_minute(self) -> None:
        """What mostly happens: everything ticks, and every message is worked off."""
        self.tick_all()
        while self.messages:
            self.work(self.messages.pop(0), "")
        self.clock.move(seconds=61)

    def work(self, message: tuple[str, list[int]], kill: str) -> None:
        kind, ids = message
        book = MortalBook(self.engine, self.clock.read)
        wire = Wire(self.sandbox, book)
        wire.kill = kill
        use_case = {"charge": charge, "inquire": inquire}[kind]

        async def run() -> None:
            client = PortOneClient(
                "http://127.0.0.1",
                "key",
                "secret",
                tokens=MemoryTokenStore(),
                now=lambda: self.clock.now,
                monotonic=lambda: self.clock.now.timestamp(),
                charge_timeout=self.policy.deadline.total_seconds(),
                include_sandbox=False,
                transport=wire,
            )
            try:
                tally = await use_case(book, client, self.policy, ids)
                assert not tally[Result.UNRECORDED], "the book is there to be written"
            finally:
                await client.aclose()

        try:
            asyncio.run(run())
        except Killed:
            assert kill

    # -- what must hold -------------------------------------------------------------------------

    @invariant()
    def the_book_keeps_its_rules(self) -> None:
        """All but I4, which is about what ticks must have done by now: they come when they come."""
        if hasattr(self, "months"):
            found = broken(self.book, self.policy)
            assert [one for one in found if not one.name.startswith("I4")] == []

    @invariant()
    def the_gateway_finds_nothing_wrong(self) -> None:
        if hasattr(self, "months"):
            book = self.sandbox.ledger
            found = judge(book.payments, book.keys, book.requests, self.sandbox.clock.unix())
            assert not found.problems

    @invariant()
    def model_book_and_ledger_agree(self) -> None:
        if not hasattr(self, "months"):
            return
        ours = {one.merchant_uid: one for one in self.paid(Origin.AGAIN)}
        assert len(ours) == len(self.paid(Origin.AGAIN))
        for name, month, status, imp_uid, attempts in query(
            self.book,
            "SELECT s.customer_uid, c.month, c.status, c.paid_imp_uid, (SELECT json_object_agg("
            "a.merchant_uid, a.status) FROM attempts a WHERE a.cycle_id = c.id) FROM cycles c"
            " JOIN subscriptions s ON s.id = c.subscription_id",
        ):
            before = self.months.get((name, month), "open")
            if before != status:
                assert (before, status) == ("missed", "paid") or before == "open"
                self.months[name, month] = status
            if status == "paid":
                payment = self.sandbox.ledger.by_imp_uid(imp_uid)
                assert payment is not None
                assert payment.status is Status.PAID
                assert (payment.customer_uid, _month(payment)) == (name, month)
            for merchant_uid, state in (attempts or {}).items():
                if merchant_uid in ours:
                    # Charged: known by now, or still an open question.
                    assert state in ("approved", "sending", "unknown")
                elif state == "approved":
                    raise AssertionError(f"{merchant_uid} is approved and was never paid")

    def paid(self, origin: Origin) -> list[Payment]:
        found = self.sandbox.ledger.payments
        return [one for one in found if one.status is Status.PAID and one.origin is origin]

    def come_to_rest(self) -> None:
        """No more faults: within hours nothing is open that could be known (I8, I12)."""
        self.sandbox.mood = mood({})
        for name in self.rows:
            change(self.sandbox, name, LineChange(script=[]))
        self.messages.clear()
        for _ in range(10):
            self.a_good_minute()
            self.clock.move(minutes=10)
        self.model_book_and_ledger_agree()
        assert broken(self.book, self.policy) == []
        assert (
            query(self.book, "SELECT id FROM attempts WHERE status IN ('sending', 'unknown')") == []
        )
        ours = {(one.customer_uid, _month(one)) for one in self.paid(Origin.AGAIN)}
        paid = {key for key, status in self.months.items() if status == "paid"}
        assert ours <= paid


async def _no_sleep(_: float) -> None:
    """The clock stands while a use case runs."""


def _month(payment: Payment) -> date:
    return datetime.fromtimestamp(payment.paid_at, SEOUL).date().replace(day=1)


def run(database_url: str, examples: int, steps: int) -> None:
    engine = create_book_engine(database_url)

    class Here(Machine):
        pass

    Here.engine = engine
    enrolled(Book(engine, MovedClock(START).read), billing_policy(Settings.load()))
    try:
        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                # A failure tells its few steps; making them fewer takes minutes.
                phases=[Phase.generate] if steps < 50 else [Phase.generate, Phase.shrink],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        engine.dispose()


def test_any_order_of_anything(database_url: str) -> None:
    run(database_url, 12, 25)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_any_order_of_anything_for_long(database_url: str) -> None:
    run(database_url, 400, 50)
