"""Two of anything at once: every row is won by exactly one, on a real PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from billing.domain.money import Won
from billing.domain.outcome import Approved, Declined, NotSent, Outcome
from billing.domain.policy import BillingPolicy
from billing.services.answer import Answer
from billing.services.change_status import (
    Changed,
    cancel,
    found_one,
    live_of,
    open_cycle_of,
    pause,
)
from billing.services.close_cycles import close_cycles
from billing.services.dispatch import dispatch
from billing.services.fence import fenced
from billing.services.hold import release, stop
from billing.services.open_cycles import open_cycles
from billing.services.record import record
from billing.store import attempts, health, installation, refunds
from billing.store.session import Book, Transaction
from tests.builders import a_refund, a_row, enrolled, execute, query
from tests.conftest import MovedClock

COUNT = 600
Change = Callable[[Book, BillingPolicy, str], Changed]


class Queue:
    """Remembers what was sent, from any thread."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def charge(self, attempt_ids: Sequence[int]) -> None:
        self.sent.extend(attempt_ids)

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        raise AssertionError("nothing is unknown here")

    def charges_waiting(self) -> int:
        return 0

    def dispatch_soon(self) -> None:
        """Nobody listens."""


def together(*steps: Callable[[], object]) -> None:
    """Run all at once, from one starting signal; an exception of any is this test's."""
    barrier, errors = threading.Barrier(len(steps)), list[BaseException]()

    def run(step: Callable[[], object]) -> None:
        barrier.wait()
        try:
            step()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    """All at once: no canaries first."""
    return make_policy(canary_charges=0)


@pytest.fixture
def many(book: Book, policy: BillingPolicy) -> Book:
    """More subscribers than one batch, all due now."""
    assert enrolled(book, policy, *(a_row(number) for number in range(COUNT))).added == COUNT
    return book


def test_two_openers_open_each_once(many: Book, policy: BillingPolicy) -> None:
    opened: list[int] = []
    together(*[lambda: opened.append(open_cycles(many, policy))] * 3)
    assert sum(opened) == COUNT
    assert query(many, "SELECT count(*), count(DISTINCT subscription_id) FROM cycles") == [
        (COUNT, COUNT)
    ]
    assert query(many, "SELECT count(*) FROM events WHERE kind = 'cycle.opened'") == [(COUNT,)]
    assert query(many, "SELECT DISTINCT next_cycle FROM subscriptions") == [(2,)]


def test_two_dispatchers_hand_out_each_once(many: Book, policy: BillingPolicy) -> None:
    open_cycles(many, policy)
    queue = Queue()
    together(*[lambda: dispatch(many, queue, policy)] * 3)
    assert len(queue.sent) == COUNT
    assert set(Counter(queue.sent).values()) == {1}


def test_two_closers_end_each_once(many: Book, policy: BillingPolicy, clock: MovedClock) -> None:
    open_cycles(many, policy)
    clock.move(days=10)
    ended: list[int] = []
    together(*[lambda: ended.append(close_cycles(many, policy))] * 3)
    assert sum(ended) == COUNT
    told = "SELECT kind, count(*), count(DISTINCT subscription_id) FROM events"
    kinds = " WHERE kind IN ('cycle.missed', 'subscription.suspended') GROUP BY 1 ORDER BY 1"
    assert query(many, told + kinds) == [
        ("cycle.missed", COUNT, COUNT),
        ("subscription.suspended", COUNT, COUNT),
    ]


def test_two_claimers_of_the_same_ids_win_each_once(
    many: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    open_cycles(many, policy)
    ids = [one for (one,) in query(many, "SELECT id FROM attempts")]
    won: list[tuple[int, int]] = []

    def claim(mine: Sequence[int]) -> None:
        for start in range(0, len(mine), 50):
            with many.transaction() as tx:
                until = clock.now + timedelta(minutes=2)
                claims = attempts.claim(tx.session, mine[start : start + 50], clock.now, until)
            won.extend((one.attempt_id, one.fence) for one in claims)

    # The same messages in the same order, in the opposite order, and from the middle on.
    middle = ids[COUNT // 2 :] + ids[: COUNT // 2]
    together(lambda: claim(ids), lambda: claim(ids[::-1]), lambda: claim(middle))
    assert sorted(won) == [(one, 1) for one in sorted(ids)]
    assert query(many, "SELECT DISTINCT status, fence FROM attempts") == [("sending", 1)]


@pytest.mark.parametrize("change", [pause, cancel])
def test_a_claim_never_commits_after_the_change(
    many: Book, policy: BillingPolicy, clock: MovedClock, change: Change
) -> None:
    """Many customers change while their charges are claimed, batch by batch: each attempt was
    either claimed before the change committed, or withdrawn by it."""
    open_cycles(many, policy)
    rows = query(
        many,
        "SELECT a.id, s.customer_uid FROM attempts a JOIN cycles c ON c.id = a.cycle_id JOIN"
        " subscriptions s ON s.id = c.subscription_id ORDER BY a.id",
    )
    ids = [attempt_id for attempt_id, _ in rows]
    begun, turned = threading.Event(), threading.Event()
    won: set[int] = set()
    early: dict[int, str] = {}

    def claim() -> None:
        for start in range(0, COUNT, 20):
            if start == COUNT - 20:
                turned.wait(30)
            with many.transaction() as tx:
                until = clock.now + timedelta(minutes=2)
                claims = attempts.claim(tx.session, ids[start : start + 20], clock.now, until)
            won.update(one.attempt_id for one in claims)
            begun.set()

    def change_some() -> None:
        begun.wait(30)
        # One that is claimed for sure, one that is not for sure, and then whatever comes.
        for attempt_id, uid in [rows[0], rows[-1], *rows[6:-6:6]]:
            change(many, policy, uid)
            found = query(many, "SELECT status FROM attempts WHERE id = :id", id=attempt_id)
            early[attempt_id] = found[0][0]
            if attempt_id == ids[-1]:
                turned.set()

    together(claim, change_some)
    assert (early[ids[0]], early[ids[-1]]) == ("sending", "withdrawn")
    for attempt_id, status in query(many, "SELECT id, status FROM attempts"):
        # What was so when the change had committed is so for ever: no claim came after it.
        assert status == early.get(attempt_id, "sending")
        assert (attempt_id in won) == (status == "sending")


@pytest.mark.parametrize("change", [pause, cancel])
@pytest.mark.parametrize(
    ("answer", "status"),
    [(NotSent("refused at the door"), "withdrawn"), (Declined("시스템 오류"), "declined")],
)
def test_what_was_in_flight_is_recorded_and_nothing_follows(
    book: Book,
    policy: BillingPolicy,
    clock: MovedClock,
    change: Change,
    answer: Outcome,
    status: str,
) -> None:
    """The change and the answer arrive at once, in whichever order the locks decide."""
    enrolled(book, policy, *(a_row(number) for number in range(20)))
    open_cycles(book, policy)
    ids = [one for (one,) in query(book, "SELECT id FROM attempts ORDER BY id")]
    with book.transaction() as tx:
        claims = attempts.claim(tx.session, ids, clock.now, clock.now + timedelta(minutes=2))
    customers = {one.attempt_id: one.request.customer_uid for one in claims}

    def answers() -> None:
        for attempt_id in ids:
            book.run(lambda tx, it=attempt_id: record(tx, policy, [Answer(it, 1, answer)]))

    def changes() -> None:
        for attempt_id in reversed(ids):
            change(book, policy, customers[attempt_id])

    together(answers, changes)
    first = query(book, "SELECT DISTINCT status FROM attempts WHERE number = 1")
    assert first == [(status,)]
    # Where the answer came first, a retry was planned, and the change withdrew it.
    live = "SELECT count(*) FROM attempts WHERE status IN ('due', 'sending', 'unknown')"
    assert query(book, live) == [(0,)]


class Workers(Queue):
    """Claims whatever is sent at the moment it arrives."""

    def __init__(self, book: Book, policy: BillingPolicy) -> None:
        super().__init__()
        self._book, self._policy = book, policy

    def charge(self, attempt_ids: Sequence[int]) -> None:
        won = self._book.run(
            lambda tx: attempts.claim(tx.session, attempt_ids, tx.now, tx.now + self._policy.lease)
        )
        self.sent.extend(claim.attempt_id for claim in won)


def test_a_dispatcher_does_not_stand_in_the_way_of_claims(
    many: Book, policy: BillingPolicy
) -> None:
    """A second dispatcher that reads while the first one commits locks rows that it then does not
    hand out; a claim passes over locked rows, and these would wait until they count as lost."""
    open_cycles(many, policy)
    workers = Workers(many, policy)
    for rounds in range(1, 21):
        together(*[lambda: dispatch(many, workers, policy)] * 4)
        assert len(workers.sent) == rounds * COUNT
        execute(many, "UPDATE attempts SET status = 'due', dispatched_at = NULL")


def test_a_deadlock_ends_one_of_two_and_that_one_is_made_again(many: Book) -> None:
    """A real one: each has the row that the other wants."""
    met, runs = threading.Barrier(2), Counter[int]()

    def step(name: int, rows: tuple[int, int]) -> Callable[[Transaction], None]:
        def both(tx: Transaction) -> None:
            runs[name] += 1
            for place, row in enumerate(rows):
                if place == 1 and runs[name] == 1:
                    met.wait(10)
                tx.session.execute(
                    text("UPDATE subscriptions SET next_cycle = next_cycle + 1 WHERE id = :id"),
                    {"id": row},
                )

        return both

    together(
        lambda: many.run(step(1, (1, 2))),
        lambda: many.run(step(2, (2, 1))),
    )
    assert sorted(runs.values()) == [1, 2]
    changed = "SELECT DISTINCT next_cycle FROM subscriptions WHERE id IN (1, 2)"
    assert query(many, changed) == [(3,)], "each step was done once"


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "told",
    [
        Approved("imp_1", Won(9900), datetime(2026, 11, 20, 1, tzinfo=UTC)),
        NotSent("refused at the door"),
    ],
)
def test_an_answer_waits_for_whoever_has_the_customer_and_holds_nothing_meanwhile(
    book: Book, policy: BillingPolicy, clock: MovedClock, told: Outcome
) -> None:
    """All take a customer's rows in one order, so that none of them has to be made again."""
    enrolled(book, policy, a_row(1))
    open_cycles(book, policy)
    with book.transaction() as tx:
        (claim,) = attempts.claim(tx.session, [1], clock.now, clock.now + timedelta(minutes=2))

    def record_it(tx: Transaction) -> None:
        record(tx, policy, [Answer(1, claim.fence, told)])

    with ThreadPoolExecutor(1) as other:
        with book.transaction() as pausing:
            subscription = found_one(pausing, claim.request.customer_uid)
            recorded = other.submit(book.run, record_it, tries=1)
            _until_one_waits(book)
            cycle = open_cycle_of(pausing, subscription)
            assert cycle is not None
            assert live_of(pausing, cycle) is not None
        recorded.result(timeout=20)


@pytest.mark.timeout(30)
def test_a_refund_waits_for_whoever_has_the_customer_and_holds_nothing_meanwhile(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """An answer that finds the payment given back wants the refund, and a refund that is done the
    customer's rows."""
    enrolled(book, policy, a_row(1))
    open_cycles(book, policy)
    a_refund(book, "imp_1")
    ((refund_id,),) = query(book, "SELECT id FROM refunds")

    def end_it(tx: Transaction) -> None:
        refund = refunds.standing(tx.session, "imp_1")
        assert refund is not None
        refunds.with_cycle(tx.session, refund)

    with ThreadPoolExecutor(1) as other:
        with book.transaction() as recording:
            attempts.lock_with_cycle(recording.session, [1])
            ended = other.submit(book.run, end_it, tries=1)
            _until_one_waits(book)
            assert refunds.standing(recording.session, "imp_1") is not None
            refunds.locked(recording.session, refund_id)
        ended.result(timeout=20)


@pytest.mark.timeout(30)
def test_a_release_and_a_hold_at_once_wait_for_each_other(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    _while_the_brake_holds(book, monkeypatch, lambda: release(book, policy))
    assert query(book, "SELECT hold_reason FROM installation") == [(None,)]


@pytest.mark.timeout(30)
def test_a_book_that_lost_events_and_a_hold_at_once_wait_for_each_other(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with book.transaction() as tx:
        here = installation.identity(tx.session, policy.store).database
        fenced(tx, policy, {})
    assert here is not None
    seen = {here: 1000}
    _while_the_brake_holds(book, monkeypatch, lambda: book.run(lambda tx: fenced(tx, policy, seen)))
    assert query(book, "SELECT system_identifier FROM installation") == [("nowhere",)]


def _while_the_brake_holds(
    book: Book, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]
) -> None:
    """Work that begins in the middle of a hold waits for its end; neither is made again."""
    made_again: list[float] = []
    monkeypatch.setattr(book, "_pause", made_again.append)
    with ThreadPoolExecutor(1) as other:
        with book.transaction() as braking:
            health.note_skew(braking.session, braking.now, timedelta(0))
            working = other.submit(work)
            _until_one_waits(book)
            stop(braking, "the brake")
        working.result(timeout=20)
    assert made_again == []


def _until_one_waits(book: Book) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while query(book, f"{waiting} AND datname = current_database()") == [(0,)]:
        time.sleep(0.01)


def test_a_transaction_whose_rows_another_changed_is_made_again(many: Book) -> None:
    """A real serialization failure (SQLSTATE 40001)."""
    runs: list[str] = []

    def step(tx: Transaction) -> None:
        tx.session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        found = tx.session.execute(text("SELECT order_name FROM subscriptions WHERE id = 1"))
        assert found.scalar_one()
        if not runs:
            execute(many, "UPDATE subscriptions SET next_cycle = next_cycle + 1 WHERE id = 1")
        runs.append("begun")
        tx.session.execute(text("UPDATE subscriptions SET next_cycle = 9 WHERE id = 1"))

    many.run(step)
    assert len(runs) == 2
    assert query(many, "SELECT next_cycle FROM subscriptions WHERE id = 1") == [(9,)]
