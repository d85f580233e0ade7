"""Sealed events: whoever goes around the database's own refusal is seen."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from billing.domain.policy import BillingPolicy
from billing.services import seal_events as service
from billing.services.check import check
from billing.services.invariants import broken
from billing.services.seal_events import seal_events
from billing.store import archives, attempts, events, seals
from billing.store.session import Book
from tests.builders import a_row, as_owner, enrolled, execute, query, sealed
from tests.conftest import MovedClock

FACT = "I7 nothing was edited"


@pytest.fixture
def _sealed(book: Book, policy: BillingPolicy, clock: MovedClock) -> None:
    """Twelve events under three seals."""
    for number in range(12):
        enrolled(book, policy, a_row(number))
        if number % 4 == 3:
            clock.move(minutes=2)
            assert sealed(book) == 4


def names(book: Book, policy: BillingPolicy) -> list[str]:
    return [one.name for one in broken(book, policy)]


@pytest.mark.usefixtures("_sealed")
def test_what_was_not_touched_fits(book: Book, policy: BillingPolicy) -> None:
    assert query(book, "SELECT number, events FROM event_seals ORDER BY number") == [
        (1, 4),
        (2, 4),
        (3, 4),
    ]
    assert names(book, policy) == []


@pytest.mark.usefixtures("_sealed")
@pytest.mark.parametrize(
    ("statement", "seals_broken"),
    [
        ("UPDATE events SET data = '{\"first_cycle\": 9}' WHERE id = 6", [2]),
        ("UPDATE events SET at = at + interval '1 microsecond' WHERE id = 1", [1]),
        ("UPDATE events SET alarm = true WHERE id = 12", [3]),
        ("DELETE FROM events WHERE id = 7", [2]),
        (
            "DELETE FROM events WHERE id = 5; INSERT INTO events (id, at, kind)"
            " OVERRIDING SYSTEM VALUE VALUES (5, now(), 'subscription.enrolled')",
            [2],
        ),
        ("UPDATE event_seals SET digest = sha256('x') WHERE number = 1", [1, 2]),
        ("DELETE FROM event_seals WHERE number = 2", [3]),
        # The same events under the same digest, said to be more, or to begin elsewhere.
        ("UPDATE event_seals SET events = 5 WHERE number = 2", [2]),
        ("UPDATE event_seals SET after_id = -5 WHERE number = 1", [1]),
    ],
    ids=[
        "data",
        "moment",
        "alarm",
        "deleted",
        "replaced",
        "seal changed",
        "seal deleted",
        "count changed",
        "first moved",
    ],
)
def test_an_edit_behind_our_back_is_named(
    book: Book, policy: BillingPolicy, statement: str, seals_broken: list[int]
) -> None:
    with book.transaction() as tx, as_owner(tx):
        # A superuser can do this; the daemons' role cannot.
        tx.session.execute(text("SET LOCAL session_replication_role = replica"))
        for part in statement.split(";"):
            tx.session.execute(text(part))
    found = {one.name: one.rows for one in broken(book, policy)}
    assert sorted(found[FACT]) == seals_broken


@pytest.mark.usefixtures("_sealed")
@pytest.mark.parametrize("statement", ["UPDATE event_seals SET events = 5", "DELETE FROM events"])
def test_the_database_itself_refuses(book: Book, statement: str) -> None:
    with pytest.raises(IntegrityError):
        execute(book, statement)


def test_the_newest_minute_is_not_sealed_yet(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    enrolled(book, policy, a_row(1))
    clock.move(seconds=59)
    assert [seal_events(book) for _ in range(3)] == [0, 0, 0]
    clock.move(seconds=1)
    assert (sealed(book), seal_events(book)) == (1, 0)


def test_what_is_too_young_stays_out_of_the_seal_that_is_made_beside_it(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    enrolled(book, policy, a_row(1))
    clock.move(minutes=2)
    enrolled(book, policy, a_row(2))
    assert sealed(book) == 1
    assert names(book, policy) == []


def test_more_than_one_run_holds_is_sealed_in_several(
    book: Book, policy: BillingPolicy, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seals, "BATCH", 2)
    enrolled(book, policy, *(a_row(number) for number in range(5)))
    clock.move(minutes=2)
    # By one tick: on a day of many charges it would be hours behind with one for each.
    with monkeypatch.context() as one_tick:
        one_tick.setattr(service, "MOST_RUNS", 2)
        assert sealed(book) == 4
    assert seal_events(book) == 1, "of what was final then none waits for another minute"
    assert query(book, "SELECT number, events FROM event_seals ORDER BY number") == [
        (1, 2),
        (2, 2),
        (3, 1),
    ]
    assert names(book, policy) == []


def test_who_began_after_it_was_noted_is_not_waited_for(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """Whoever has no number yet when a run is noted writes no event of that run."""
    enrolled(book, policy, a_row(1))
    clock.move(minutes=2)
    with book.transaction() as tx:
        later = tx.session.execute(text("SELECT pg_current_xact_id()::text::bigint")).scalar_one()
        execute(
            book, "UPDATE installation SET seal_up_to = 1, seal_once_past = :later", later=later
        )
        assert sealed(book) == 1


def test_an_event_that_commits_late_is_waited_for(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """Numbers are given out before transactions commit: a lower one may come after a higher."""
    first_is_in, may_commit = threading.Event(), threading.Event()

    def slowly() -> None:
        with book.transaction() as tx:
            events.add(tx.session, at=tx.now, kind="charging.released")
            events.write(tx.session)
            first_is_in.set()
            assert may_commit.wait(30)

    late = threading.Thread(target=slowly)
    late.start()
    assert first_is_in.wait(30)
    enrolled(book, policy, a_row(1))
    clock.move(minutes=2)
    assert [seal_events(book) for _ in range(3)] == [0, 0, 0]
    may_commit.set()
    late.join()
    assert sealed(book) == 2
    assert query(book, "SELECT min(id), max(id) FROM events") == [(1, 2)]
    assert names(book, policy) == []


def test_a_database_that_counts_transactions_anew_does_not_wait_for_ever(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    enrolled(book, policy, a_row(1))
    clock.move(minutes=2)
    execute(book, "UPDATE installation SET seal_up_to = 1, seal_once_past = 9000000000000")
    assert sealed(book) == 1


def test_only_one_seals_at_a_time(book: Book, policy: BillingPolicy, clock: MovedClock) -> None:
    enrolled(book, policy, a_row(1))
    clock.move(minutes=2)
    seal_events(book)
    with book.transaction() as tx:
        assert seals.only_sealer(tx.session)
        assert seal_events(book) == 0
    assert sealed(book) == 1


def test_who_seals_who_archives_and_who_dispatches_do_not_keep_each_other_off(book: Book) -> None:
    with book.transaction() as one, book.transaction() as another, book.transaction() as third:
        assert seals.only_sealer(one.session)
        assert archives.only_archiver(another.session)
        third.session.execute(text("SET LOCAL lock_timeout = '1s'"))
        attempts.one_dispatcher(third.session)


@pytest.mark.usefixtures("_sealed")
def test_a_broken_fact_is_alarmed_once_a_day(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    assert check(book, policy) == 0
    execute(book, "UPDATE subscriptions SET status = 'cancelled' WHERE id = 3")
    for _ in range(3):
        assert check(book, policy) == 1
    alarms = "SELECT data->>'name', data->'rows' FROM events WHERE kind = 'invariant.broken'"
    assert query(book, alarms) == [("I7 the events rebuild the subscriptions", [3])]
    clock.now += timedelta(days=1, seconds=1)
    check(book, policy)
    assert ("I7 the events rebuild the subscriptions", [3]) in query(book, alarms)[1:]
