"""Every tick asks "what is due?", and reads only that: seen in PostgreSQL's own plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text, update

from benchmarks.big_book import NOW, fill, undone
from billing.domain.policy import BillingPolicy
from billing.services import close_cycles, dispatch, inquire, open_cycles
from billing.store import attempts, gauges, ledger
from billing.store.session import Book, Transaction, create_book_engine
from billing.store.tables import Attempt
from tests.builders import query, rows_read

COUNT = 50_000
TABLES = frozenset({"subscriptions", "cycles", "attempts"})
Step = Callable[[Transaction, BillingPolicy], object]

pytestmark = pytest.mark.timeout(300)


@dataclass
class Reading:
    """What the queries of a step read: rows by table, and tables that were read whole."""

    tables: frozenset[str] = TABLES
    rows: Counter[str] = field(default_factory=Counter)
    whole: set[str] = field(default_factory=set)

    def add(self, node: dict[str, Any]) -> None:
        table = node.get("Relation Name")
        if table in self.tables:
            read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            self.rows[table] += int(read * node["Actual Loops"])
            if node["Node Type"] == "Seq Scan":
                self.whole.add(table)
        for part in node.get("Plans", []):
            self.add(part)


class Watched:
    """A book of many subscribers whose queries are explained as they are made."""

    def __init__(self, url: str) -> None:
        self.engine = create_book_engine(url)
        self.book = Book(self.engine, lambda _: NOW)
        self._reading: Reading | None = None
        event.listen(self.engine, "before_cursor_execute", self._explain)

    def reading(
        self, step: Step, policy: BillingPolicy, tables: frozenset[str] = TABLES
    ) -> Reading:
        """Run a step, and tell what its queries read."""
        self._reading = reading = Reading(tables)
        self.book.run(lambda tx: step(tx, policy))
        self._reading = None
        return reading

    def _explain(
        self, connection: Any, _: Any, statement: str, parameters: Any, *__: object
    ) -> None:
        if self._reading is None or not statement.lstrip().startswith("SELECT"):
            return
        # In the transaction of the query itself, so it sees and locks the same rows.
        with connection.connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            self._reading.add(cursor.fetchone()[0][0]["Plan"])


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    """All at once: no canaries first."""
    return make_policy(canary_charges=0)


@pytest.fixture
def watched(database_url: str) -> Iterator[Watched]:
    fill(database_url, COUNT)
    made = Watched(database_url)
    with made.engine.begin() as connection:
        for table in TABLES:
            # Undone steps leave dead rows: statistics of those, taken at a moment of the
            # background's own choice, are not what a book is like.
            connection.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = false)"))
    yield made
    made.engine.dispose()


def test_each_step_reads_only_what_is_due(watched: Watched, policy: BillingPolicy) -> None:
    """One test for all steps, since the book takes seconds to make."""

    def count(of: str) -> int:
        return int(query(watched.book, f"SELECT count(*) FROM {of}")[0][0])

    due_now = count("subscriptions WHERE status = 'active' AND next_due_at <= '2026-11-20 01:00Z'")
    waiting = count("attempts WHERE status = 'due'")
    unknown = count("attempts WHERE status = 'unknown'")
    over = count("cycles WHERE status = 'open' AND closes_at <= '2026-11-20 01:00Z'")
    soon = count(
        "cycles WHERE status = 'open' AND closes_at > '2026-11-20 01:00Z'"
        " AND closes_at <= '2026-11-21 01:00Z'"
    )
    assert due_now > open_cycles.BATCH
    assert min(waiting, unknown, over, soon) > 0
    paid = count("cycles WHERE status = 'paid'")

    def reads(step: Step, at_most: dict[str, int]) -> None:
        found = watched.reading(step, policy)
        assert found.whole == set(), f"{step} reads a table whole"
        for table, rows in found.rows.items():
            assert rows <= at_most.get(table, 0), f"{step} reads {rows} rows of {table}"

    open_now = count("cycles WHERE status = 'open'")
    live_now = count("attempts WHERE status IN ('due', 'sending', 'unknown')")
    reads(
        lambda tx, policy: gauges.waiting(tx.session, tx.now, policy.closing_soon),
        {"attempts": 5 * live_now, "cycles": 3 * open_now, "subscriptions": 1},
    )
    # Whether there is anything to do: the ticks look before they compare the clocks.
    reads(lambda tx, _: open_cycles.anything_opens(tx), {"subscriptions": due_now, "cycles": 1})
    reads(
        close_cycles.anything_ends,
        {"cycles": open_now, "subscriptions": over, "attempts": over},
    )
    batch = open_cycles.BATCH
    # All that is due at most; in a larger book only a batch of it (benchmarks/due_scan.py).
    reads(open_cycles._open_batch, {"subscriptions": due_now, "cycles": due_now})
    assert count("attempts WHERE status = 'due'") == waiting + batch
    # Open months whose attempt waits are read, too: never one of the many that are paid.
    live = waiting + batch + unknown + over
    canaries = replace(policy, canaries=5)
    reads(
        lambda tx, _: dispatch._hand_out(tx, canaries),
        {"attempts": unknown + live, **{table: live for table in ("cycles", "subscriptions")}},
    )
    watched.book.run(lambda tx: tx.session.execute(update(Attempt).values(dispatched_at=None)))
    reads(dispatch._hand_out, {"attempts": live, "cycles": live, "subscriptions": live})
    assert count("attempts WHERE dispatched_at IS NOT NULL") == batch
    # Again: all that is outstanding is counted, and none of it handed out.
    reads(dispatch._hand_out, {"attempts": 2 * live, "cycles": live, "subscriptions": live})
    reads(
        lambda tx, _: attempts.take_to_ask(tx.session, tx.now, tx.now, inquire.BATCH),
        {"attempts": unknown},
    )
    reads(inquire._give_up_on_expired, {"attempts": 0})
    # Each with its attempts, for the notice that tells of the last refusal.
    reads(close_cycles._warn_closing_soon, {"cycles": live, "attempts": live})
    assert count("cycles WHERE closing_soon_at IS NOT NULL") == soon
    # Each cycle that ends is looked up with its subscription, and its attempts, twice.
    reads(close_cycles._close_batch, {"cycles": live, "subscriptions": over, "attempts": 2 * over})
    assert count("cycles WHERE status = 'missed'") == over
    reads(close_cycles._skip_paused, {"subscriptions": 0, "cycles": 0})
    # The keys to ask about: those that are due within the week, counted up to some and then read;
    # in order, so that what is due on the day at the edge is read before it is sorted.
    soon = count("subscriptions WHERE status = 'active' AND next_due_at < '2026-11-25 00:00Z'")
    part = ledger.Share(NOW.replace(day=25, hour=0), [3])
    for few, read in ((1000, soon), (COUNT // 3, COUNT // 3 + COUNT // 28)):
        reads(
            lambda tx, _, few=few: ledger.keys_to_ask(tx.session, part, few, COUNT),
            {"subscriptions": min(few + 1, soon) + read},
        )
    assert live < paid / 10, "what is live is little beside what is done"


def test_alarms_of_the_last_hour_are_read_and_no_others(
    database_url: str, policy: BillingPolicy
) -> None:
    """One line in twenty is an alarm, each minute; at the end two that were written out of order,
    as by transactions that took long."""
    made = Watched(database_url)
    made.book.run(
        lambda tx: tx.session.execute(
            text(
                "INSERT INTO events (at, kind, alarm) SELECT CAST(:now AS timestamptz)"
                " - (100000 - n) * interval '3 seconds',"
                " 'kind.' || n % 40, n % 20 = 0 FROM generate_series(1, 100000) n"
                " UNION ALL SELECT CAST(:now AS timestamptz) - interval '2 hours', 'late', true"
                " UNION ALL SELECT CAST(:now AS timestamptz), 'last', true"
            ),
            {"now": NOW},
        )
    )
    hour, found = timedelta(hours=1), {}
    reading = made.reading(
        lambda tx, _: found.update(gauges.alarms(tx.session, tx.now - hour, tx.now)),
        policy,
        frozenset({"events"}),
    )
    # The hour's sixty, of two kinds, and the last; not the one that is old already.
    assert found == {"kind.0": 30, "kind.20": 30, "last": 1}
    # A portion with them, and one that shows that there are no more.
    assert reading.rows["events"] == 2 * gauges.ALARMS_AT_ONCE
    assert reading.whole == set()
    # Through many portions, up to the most; and a book that ends within one.
    months = made.book.run(lambda tx: gauges.alarms(tx.session, tx.now - 2000 * hour, tx.now))
    assert sum(months.values()) == 5002
    made.engine.dispose()


def test_the_watch_can_see_a_table_read_whole(watched: Watched, policy: BillingPolicy) -> None:
    def careless(tx: Transaction, _: BillingPolicy) -> object:
        return tx.session.execute(
            open_cycles.select(open_cycles.Subscription).where(
                open_cycles.Subscription.order_name == "another"
            )
        ).all()

    found = watched.reading(careless, policy)
    assert found.whole == {"subscriptions"}
    assert found.rows["subscriptions"] == COUNT


STEPS: tuple[Step, ...] = (
    open_cycles._open_batch,
    dispatch._hand_out,
    lambda tx, _: attempts.take_to_ask(tx.session, tx.now, tx.now, inquire.BATCH),
    inquire._give_up_on_expired,
    close_cycles._warn_closing_soon,
    close_cycles._close_batch,
    close_cycles._skip_paused,
)
# How often a statement runs until it is prepared, and has a plan that is kept.
OFTEN = 8


def counted(watched: Watched, step: Step, policy: BillingPolicy) -> Counter[str]:
    """How many rows of each table a step reads, its writing included; nothing of it is kept."""
    with undone(watched.book) as tx:
        before = rows_read(tx)
        step(tx, policy)
        tx.session.flush()
        read = rows_read(tx) - before
    return Counter({table: read[table] for table in TABLES})


def test_no_plan_that_is_kept_reads_more(
    watched: Watched, make_policy: Callable[..., BillingPolicy]
) -> None:
    """What a worker really does after a while, by PostgreSQL's own counters: EXPLAIN above knows
    the parameters, a plan that is kept for any parameters cannot use an index of one status."""
    whole = {table: query(watched.book, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}
    for step in STEPS:
        for _ in range(OFTEN):
            read = counted(watched, step, make_policy(canary_charges=5))
        for table, rows in read.items():
            assert rows < whole[table] / 5, f"{step} reads {rows} of {whole[table]} {table}"
