"""What all senders share about the merchant's system, to the moment."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from billing.domain.delivery import LONGEST_RETRY_AFTER
from billing.store import receiver
from billing.store.session import Book
from tests.builders import execute, query, waits
from tests.conftest import MovedClock

MOMENT = timedelta(microseconds=1)
LEASE = timedelta(minutes=1)
WIDTH = 20
# As docs/notices.md has them.
DOWN, A_FEW = 5, 5
TOLD_AFTER, TOLD_AGAIN_AFTER = timedelta(hours=1), timedelta(days=1)


def room(book: Book, now: datetime, mine: datetime | None = None, width: int = WIDTH) -> int:
    with book.transaction() as tx:
        return receiver.room(tx.session, now, LEASE, width, mine)


def noted(book: Book, now: datetime, **told: Any) -> timedelta | None:
    usual: dict[str, Any] = {"answered": 0, "unanswered": 0, "delivered": 0}
    with book.transaction() as tx:
        given = {**usual, "problem": None, "pause": None, **told}
        return receiver.note(tx.session, now, **given)


def put(book: Book, **values: Any) -> None:
    changes = ", ".join(f"{name} = :{name}" for name in values)
    execute(book, f"UPDATE receiver SET {changes}", **values)


def row(book: Book, *columns: str) -> tuple[Any, ...]:
    (found,) = query(book, f"SELECT {', '.join(columns)} FROM receiver")
    return found


# -- one round at a time --------------------------------------------------------------------------


def test_a_round_is_taken_kept_and_left(book: Book, clock: MovedClock) -> None:
    now = clock.now
    until = now + LEASE
    assert room(book, now) == WIDTH
    assert row(book, "round_until") == (until,)
    assert room(book, now) == 0, "another sender has it"
    assert room(book, now + MOMENT, mine=until) == WIDTH
    assert row(book, "round_until") == (until + MOMENT,)
    for mine, left in ((until, until + MOMENT), (until + MOMENT, None)):
        with book.transaction() as tx:
            receiver.leave(tx.session, mine)
        assert row(book, "round_until") == (left,)


@pytest.mark.parametrize(
    ("column", "ahead", "free"),
    [
        ("round_until", timedelta(0), True),
        ("round_until", MOMENT, False),
        ("round_until", LEASE, False),
        ("round_until", LEASE + MOMENT, True),
        ("pause_until", timedelta(0), True),
        ("pause_until", MOMENT, False),
        ("pause_until", LONGEST_RETRY_AFTER, False),
        ("pause_until", LONGEST_RETRY_AFTER + MOMENT, True),
    ],
)
def test_nobody_waits_longer_than_anything_of_ours(
    book: Book, clock: MovedClock, column: str, ahead: timedelta, *, free: bool
) -> None:
    put(book, **{column: clock.now + ahead})
    assert room(book, clock.now) == (WIDTH if free else 0)


def test_who_is_down_is_asked_with_a_few(book: Book, clock: MovedClock) -> None:
    put(book, unanswered=DOWN - 1)
    assert room(book, clock.now) == WIDTH
    put(book, unanswered=DOWN, round_until=None)
    assert room(book, clock.now) == A_FEW
    put(book, round_until=None)
    assert room(book, clock.now, width=A_FEW - 1) == A_FEW - 1


def test_it_is_read_anew_when_it_is_locked(book: Book, clock: MovedClock) -> None:
    with book.transaction() as tx:
        # Held, as a session forgets what nobody holds.
        seen = receiver.read(tx.session)
        put(book, unanswered=7)
        assert receiver.deaths_are_news(tx.session, clock.now)
        assert seen.unanswered == 7
        assert waits(book, lambda other: receiver.deaths_are_news(other.session, clock.now))


# -- whether it answers ---------------------------------------------------------------------------


def test_tries_in_a_row_without_an_answer_are_counted(book: Book, clock: MovedClock) -> None:
    state = ("unanswered", "unanswered_since", "tried_at", "problem", "delivered_at")
    first = clock.now
    assert noted(book, first, unanswered=2, problem="away") is None
    assert row(book, *state) == (2, first, first, "away", None)
    later = first + LEASE
    noted(book, later, unanswered=3)
    assert row(book, *state) == (5, first, later, None, None)
    noted(book, later)
    assert row(book, *state)[:2] == (5, first), "of nothing nothing is learnt"
    noted(book, first - LEASE, unanswered=1)
    assert row(book, *state)[:2] == (6, first - LEASE), "by a clock that leapt back"
    noted(book, later, answered=1, unanswered=4, delivered=1)
    assert row(book, *state) == (0, None, later, None, later)
    noted(book, later + LEASE, answered=1)
    assert row(book, "delivered_at") == (later,)


def test_patience_that_was_asked_for_is_bounded_and_ends_with_an_answer(
    book: Book, clock: MovedClock
) -> None:
    noted(book, clock.now, unanswered=1, pause=LEASE)
    assert row(book, "pause_until") == (clock.now + LEASE,)
    noted(book, clock.now, unanswered=1)
    assert row(book, "pause_until") == (clock.now + LEASE,)
    noted(book, clock.now, answered=1)
    assert row(book, "pause_until") == (None,)
    noted(book, clock.now, answered=1, pause=LONGEST_RETRY_AFTER + LEASE)
    assert row(book, "pause_until") == (clock.now + LONGEST_RETRY_AFTER,)


def test_an_outage_is_told_once_after_an_hour(book: Book, clock: MovedClock) -> None:
    began = clock.now
    noted(book, began, unanswered=DOWN)
    assert noted(book, began + TOLD_AFTER - MOMENT, unanswered=1) is None
    assert noted(book, began + TOLD_AFTER, unanswered=1) == TOLD_AFTER
    assert row(book, "down_told_at") == (began + TOLD_AFTER,)
    assert noted(book, began + 2 * TOLD_AFTER, unanswered=1) is None
    noted(book, began + 2 * TOLD_AFTER, answered=1)
    assert row(book, "down_told_at") == (None,)
    again = began + 3 * TOLD_AFTER
    noted(book, again, unanswered=DOWN - 1)
    assert noted(book, again + TOLD_AFTER) is None, "not down yet"
    assert noted(book, again + 2 * TOLD_AFTER, unanswered=1) == 2 * TOLD_AFTER


def test_deaths_are_news_once_a_day_and_after_something_came_through(
    book: Book, clock: MovedClock
) -> None:
    def news(now: datetime) -> bool:
        with book.transaction() as tx:
            return receiver.deaths_are_news(tx.session, now)

    first = clock.now
    assert news(first)
    assert row(book, "dead_told_at") == (first,)
    next_day = first + TOLD_AGAIN_AFTER
    assert not news(first)
    assert not news(next_day), "it is the same outage"
    put(book, delivered_at=first)
    assert not news(next_day)
    put(book, delivered_at=first + MOMENT)
    assert not news(next_day - MOMENT)
    assert news(next_day)
    assert row(book, "dead_told_at") == (next_day,)
    # Told by a clock that was ahead, it silences nothing.
    assert news(first)
    assert row(book, "dead_told_at") == (first,)
