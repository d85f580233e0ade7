"""Of many ticks workers one at a time makes the reconciliation."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from billing.services.alone import alone
from billing.store import heartbeats
from billing.store.heartbeats import RECONCILING, SEEN_WITHIN
from billing.store.session import Book, Transaction
from tests.builders import as_owner, execute
from tests.conftest import MovedClock


def due(_: Transaction) -> bool:
    return True


def row(book: Book) -> datetime | None:
    return book.run(lambda tx: heartbeats.seen(tx.session).get(RECONCILING))


def test_one_at_a_time_and_the_next_at_once(book: Book) -> None:
    with alone(book, due) as ours:
        assert ours
        with alone(book, due) as theirs:
            assert not theirs
        assert row(book), "who could not begin has not ended the other"
    assert row(book) is None
    with alone(book, due) as ours:
        assert ours


def test_what_is_not_due_is_not_begun(book: Book) -> None:
    with alone(book, lambda _: False) as ours:
        assert not ours
        assert row(book) is None


def test_the_next_may_begin_after_one_that_broke(book: Book) -> None:
    with pytest.raises(RuntimeError, match="the gateway"), alone(book, due):
        raise RuntimeError("the gateway")
    assert row(book) is None


@pytest.mark.parametrize(
    ("ago", "free"),
    [
        (timedelta(0), False),
        (SEEN_WITHIN, False),
        (SEEN_WITHIN + timedelta(seconds=1), True),
        (-SEEN_WITHIN, False),
        (-SEEN_WITHIN - timedelta(seconds=1), True),
    ],
)
def test_who_died_with_it_has_lost_it_after_a_while(
    book: Book, clock: MovedClock, ago: timedelta, *, free: bool
) -> None:
    """Nor may a clock that ran ahead keep everybody from it."""
    book.run(lambda tx: heartbeats.beat(tx.session, RECONCILING, clock.now - ago))
    with alone(book, due) as ours:
        assert ours is free


def test_of_many_at_once_one_begins(book: Book) -> None:
    begun, start, all_asked = list[bool](), threading.Barrier(8), threading.Barrier(8)

    def begin() -> None:
        start.wait(20)
        with alone(book, due) as ours:
            begun.append(ours)
            all_asked.wait(20)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(begun) == [False] * 7 + [True]


def test_it_is_told_as_long_as_it_lasts(book: Book, clock: MovedClock) -> None:
    seen = threading.Event()
    with alone(book, due, every=0.01):
        clock.move_to(clock.now + timedelta(hours=3))
        while row(book) != clock.now:
            assert not seen.wait(0.01)
        with alone(book, due) as theirs:
            assert not theirs


def test_the_last_line_is_written_before_it_is_left(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be told once more by who has left it, and nobody could begin for a while."""
    telling, kept, done = threading.Event(), heartbeats.keep, list[str]()

    def slowly(*given: Any) -> bool:
        telling.set()
        threading.Event().wait(0.1)
        done.append("told")
        return kept(*given)

    def leave(*_: object) -> None:
        done.append("left")

    monkeypatch.setattr(heartbeats, "keep", slowly)
    monkeypatch.setattr(heartbeats, "leave", leave)
    before = set(threading.enumerate())
    with alone(book, due, every=0.01):
        (teller,) = set(threading.enumerate()) - before
        assert teller.daemon, "a process that ends is not kept from it"
        assert telling.wait(10)
    assert done[-1] == "left"
    threading.Event().wait(0.2)
    assert done[-1] == "left"


def test_who_lost_it_does_not_end_who_has_it_now(book: Book, clock: MovedClock) -> None:
    """It could not write for too long; another began, and must stay the only one."""
    with alone(book, due, every=0.01) as first:
        execute(book, "ALTER TABLE heartbeats RENAME TO gone")
        threading.Event().wait(0.05)
        clock.move(seconds=SEEN_WITHIN.total_seconds() + 1)
        with book.transaction() as tx, as_owner(tx):
            tx.session.execute(text("ALTER TABLE gone RENAME TO heartbeats"))
            assert heartbeats.take(tx.session, RECONCILING, tx.now)
        taken = clock.now
        clock.move(seconds=30)
        threading.Event().wait(0.1)
        assert row(book) == taken, "it is not told by who has lost it"
    assert first
    assert row(book) == taken
    with alone(book, due) as third:
        assert not third


def test_a_database_that_cannot_be_written_for_a_while_ends_nothing(
    book: Book, clock: MovedClock
) -> None:
    with capture_logs() as lines, alone(book, due, every=0.01) as ours:
        execute(book, "ALTER TABLE heartbeats RENAME TO gone")
        threading.Event().wait(0.1)
        execute(book, "ALTER TABLE gone RENAME TO heartbeats")
        clock.move_to(clock.now + timedelta(seconds=90))
        while row(book) != clock.now:
            threading.Event().wait(0.01)
    assert ours
    assert row(book) is None
    assert lines[0] == {
        "event": "heartbeat not written",
        "error": "ProgrammingError",
        "log_level": "warning",
    }
