"""What a step reads hangs on no statistics.

After a crash PostgreSQL has forgotten what changed, and analyses a table when it changes again:
attempts soon, subscriptions perhaps never. What it then believes of one table beside another must
not make it read a book once for each of its rows: a charge that takes seconds outlives its lease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import combinations

import pytest
from sqlalchemy import text

from benchmarks.big_book import NOW, undone
from billing.domain.money import Won
from billing.domain.outcome import Approved, Declined, Outcome, Unknown
from billing.domain.policy import BillingPolicy
from billing.services import close_cycles, invariants, open_cycles
from billing.services.answer import Answer
from billing.services.dispatch import dispatch
from billing.services.inquire import find_unknown
from billing.services.look_at_webhooks import waiting
from billing.services.measure import measure
from billing.services.notify import find_due
from billing.services.outlook import outlook
from billing.services.record import record
from billing.services.refund import open_now
from billing.services.report import report
from billing.store import attempts, events, notices, views, webhooks
from billing.store.session import Book, Transaction, by_index, create_book_engine
from billing.store.tables import Base
from tests.builders import a_row, enrolled, execute, query, rows_read
from tests.conftest import MovedClock

# Of each kind of thing that something is to be done about.
EACH = 100
TABLES = ("subscriptions", "cycles", "attempts")
# How often a step of charging may read a row.
A_ROW = 10
# Tables of one row are read more often than that.
OF_ONE_ROW = 50

pytestmark = pytest.mark.timeout(300)


class Queue:
    """Nobody listens."""

    def charge(self, attempt_ids: Sequence[int]) -> None: ...

    def inquire(self, attempt_ids: Sequence[int]) -> None: ...

    def notify(self, notice_ids: Sequence[int]) -> None: ...

    def charges_waiting(self) -> int:
        return 0

    def dispatch_soon(self) -> None: ...

    def notify_soon(self) -> None: ...


class Undone(Book):
    """A book in which nothing that a step does is kept, and which tells what it read."""

    read: Counter[str]

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with undone(super()) as tx:
            before = rows_read(tx)
            yield tx
            events.write(tx.session)
            tx.session.flush()
            self.read += rows_read(tx) - before

    @contextmanager
    def snapshot(self, *, staging: bool = False) -> Iterator[Transaction]:
        with super().snapshot(staging=staging) as tx:
            before = rows_read(tx)
            yield tx
            self.read += rows_read(tx) - before


Step = Callable[[Undone, BillingPolicy], object]


def in_one(step: Callable[[Transaction, BillingPolicy], object]) -> Step:
    return lambda book, policy: book.run(lambda tx: step(tx, policy))


def _claimed(tx: Transaction, policy: BillingPolicy) -> object:
    by_index(tx.session)
    ids = _ids(tx, "due", 50)
    return attempts.claim(tx.session, ids, tx.now, tx.now + policy.lease)


def _asked(tx: Transaction, _: BillingPolicy) -> object:
    return attempts.open_questions(tx.session, _ids(tx, "unknown", 50))


def _recorded(learnt: Callable[[int], Outcome]) -> Step:
    def step(tx: Transaction, policy: BillingPolicy) -> object:
        ids = _ids(tx, "sending", 50)
        return record(tx, policy, [Answer(one, 1, learnt(one)) for one in ids])

    return in_one(step)


def _ids(tx: Transaction, status: str, most: int) -> list[int]:
    """Some attempts, as a message would name them."""
    statement = text("SELECT id FROM attempts WHERE status = :status ORDER BY id DESC LIMIT :most")
    return list(tx.session.execute(statement, {"status": status, "most": most}).scalars())


CHARGING: dict[str, Step] = {
    "dispatch": lambda book, policy: dispatch(book, Queue(), policy),
    "claim": in_one(_claimed),
    "approve": _recorded(lambda one: Approved(f"imp_{one}", Won(1000 + one), NOW)),
    "decline": _recorded(lambda _: Declined("[0031] limit")),
    "decline for good": _recorded(lambda _: Declined("[0011] no such line")),
    "not answered": _recorded(lambda _: Unknown("no answer")),
    "inquire": lambda book, policy: find_unknown(book, Queue(), policy),
    "ask": in_one(_asked),
    "anything opens": in_one(lambda tx, _: open_cycles.anything_opens(tx)),
    "anything ends": in_one(close_cycles.anything_ends),
    "webhooks": lambda book, _: waiting(book),
    "take webhooks": in_one(lambda tx, _: webhooks.take(tx.session, tx.now, tx.now, 50, 50)),
    "refunds": lambda book, _: open_now(book),
    "metrics": lambda book, policy: measure(book, policy, 0, 10_000),
}
# Where nothing is known they may read a small book once for each of a kind: in one of some
# thousands the planner's guesses differ, and they do not (EACH = 450, once).
OTHERS: dict[str, Step] = {
    "open": open_cycles.open_cycles,
    "close": close_cycles.close_cycles,
    "notices": lambda book, policy: find_due(book, Queue(), policy, wanted=True),
    "claim notices": in_one(
        lambda tx, policy: notices.claim(tx.session, range(10_000), tx.now, policy.lease, 50)
    ),
    "check": invariants.broken,
    "status": in_one(
        lambda tx, policy: views.status(tx.session, tx.now, policy.closing_soon, policy.plan.zone)
    ),
    "forecast": lambda book, policy: outlook(book, policy, 60),
    "report": lambda book, policy: report(book, policy, date(2026, 11, 1)),
}


@pytest.fixture
def undone_book(
    book: Book, database_url: str, clock: MovedClock, make_policy: Callable[..., BillingPolicy]
) -> Iterator[Undone]:
    """Something to do for every step, and much of it at once."""
    assert clock.now == NOW
    policy = make_policy()
    for table in Base.metadata.tables:
        execute(book, f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    enrolled(book, policy, *(a_row(number) for number in range(7 * EACH)))
    assert open_cycles.open_cycles(book, policy) == 7 * EACH
    enrolled(book, policy, *(a_row(number) for number in range(7 * EACH, 8 * EACH)))
    long_ago = "2026-10-05T14:30:00+09:00"
    enrolled(book, policy, *(a_row(number, long_ago) for number in range(8 * EACH, 9 * EACH)))
    for statement in STATES:
        execute(book, statement, now=NOW, each=EACH)
    engine = create_book_engine(database_url)
    yield Undone(engine, clock.read)
    engine.dispose()


# By sevenths of the months that are open.
STATES = (
    "UPDATE subscriptions SET status = 'paused', next_closes_at = :now - interval '1 day'"
    " WHERE id > 8 * :each",
    "UPDATE attempts SET status = 'sending', fence = 1, sent_at = :now - interval '9 minutes',"
    " dispatched_at = :now - interval '9 minutes', lease_until = :now - interval '5 minutes'"
    " WHERE id % 7 = 1",
    "UPDATE attempts SET status = 'unknown', fence = 1, sent_at = :now - interval '9 minutes',"
    " provable_at = :now - interval '5 minutes', ask_at = :now - interval '5 minutes'"
    " WHERE id % 7 = 2",
    "UPDATE attempts SET closes_at = :now - interval '1 hour' WHERE id % 7 = 3",
    "UPDATE cycles SET closes_at = :now - interval '1 hour' WHERE id % 7 = 3",
    "UPDATE attempts SET closes_at = :now + interval '9 hours', status = 'declined',"
    " decline_class = 'not_today', sent_at = :now - interval '1 day',"
    " settled_at = :now - interval '1 day' WHERE id % 7 = 4",
    "INSERT INTO attempts (cycle_id, number, merchant_uid, status, closes_at, planned_at, ready_at)"
    " SELECT cycle_id, 2, merchant_uid || '2', 'due', closes_at, :now, :now - interval '1 minute'"
    " FROM attempts WHERE id % 7 = 4",
    "UPDATE cycles SET closes_at = :now + interval '9 hours',"
    " last_start_at = :now + interval '8 hours' WHERE id % 7 = 4",
    "UPDATE attempts SET status = 'declined', decline_class = 'gone', fence = 1,"
    " sent_at = :now - interval '9 minutes', settled_at = :now - interval '5 minutes'"
    " WHERE id % 7 = 5 AND number = 1",
    "UPDATE cycles SET held = 'unconfirmed' WHERE id % 7 = 5",
    "UPDATE attempts SET status = 'sending', fence = 1, sent_at = :now,"
    " dispatched_at = :now, lease_until = :now + interval '5 minutes'"
    " WHERE id % 7 = 6 AND number = 1",
    "INSERT INTO notices (subscription_id, kind, data, created_at, next_try_at, give_up_at)"
    " SELECT s.id, 'cycle.missed', '{}', :now - interval '1 hour', :now - interval '1 hour',"
    " :now + interval '1 day' FROM subscriptions s, generate_series(1, 2)",
    "INSERT INTO webhooks (imp_uid, merchant_uid, claimed_status, received_at, look_at)"
    " SELECT 'imp_' || id, merchant_uid, 'paid', :now, :now FROM attempts",
    "INSERT INTO refunds (subscription_id, imp_uid, merchant_uid, amount, breaks_chain, refund_by,"
    " reason, status, requested_at) SELECT id, 'old_' || id, 'by-hand-' || id, amount, false,"
    " :now + interval '1 day', 'asked for', 'requested', :now FROM subscriptions",
)
FORGET = (
    "DELETE FROM pg_statistic WHERE starelid IN (SELECT oid FROM pg_class WHERE relname IN"
    " ('subscriptions', 'cycles', 'attempts', 'events', 'notices', 'webhooks', 'refunds'))",
    "UPDATE pg_class SET reltuples = -1, relpages = 0, relallvisible = 0"
    " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')",
)


# One after the other: each set of known tables, the same book.
def test_charging_reads_no_more_for_what_is_known_of_some_tables(
    undone_book: Undone, book: Book, make_policy: Callable[..., BillingPolicy]
) -> None:
    policy = make_policy(charge_cron="* * * * *", canary_charges=0)
    there = {
        table: query(book, f"SELECT count(*) FROM {table}")[0][0] for table in Base.metadata.tables
    }
    too_much = []
    for known in (some for size in range(4) for some in combinations(TABLES, size)):
        for statement in FORGET:
            execute(book, statement)
        for table in known:
            execute(book, f"ANALYZE {table}")
        for name, step in {**CHARGING, **OTHERS}.items():
            undone_book.read = Counter()
            step(undone_book, policy)
            at_most = A_ROW if name in CHARGING else 2 * EACH
            too_much += [
                f"{name}, {known} known: {rows} of {table}"
                for table, rows in undone_book.read.items()
                if rows > at_most * there.get(table, 0) + OF_ONE_ROW
            ]
    assert not too_much
