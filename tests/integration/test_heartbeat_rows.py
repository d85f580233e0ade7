"""Who was seen working, to the moment."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from billing.store import heartbeats
from billing.store.heartbeats import SEEN_WITHIN
from billing.store.session import Book
from tests.builders import execute, waits
from tests.conftest import MovedClock

MOMENT = timedelta(microseconds=1)
NAME = "maewol.reconciling"


def seen(book: Book) -> dict[str, datetime]:
    return book.run(lambda tx: heartbeats.seen(tx.session))


def beat(book: Book, name: str, now: datetime) -> None:
    book.run(lambda tx: heartbeats.beat(tx.session, name, now))


def test_the_names_that_stand_in_every_book() -> None:
    """One of another release must know them."""
    assert heartbeats.RECONCILED == "maewol.tick.reconcile"
    assert heartbeats.RECONCILING == NAME


def test_the_newest_sign_of_life_of_each(book: Book, clock: MovedClock) -> None:
    before = seen(book)
    beat(book, "b", clock.now)
    beat(book, "a", clock.now)
    beat(book, "b", clock.now + MOMENT)
    assert [*seen(book)] == sorted([*before, "a", "b"])
    assert seen(book) == {**before, "a": clock.now, "b": clock.now + MOMENT}


@pytest.mark.parametrize(
    ("ago", "free"),
    [
        (SEEN_WITHIN, False),
        (SEEN_WITHIN + MOMENT, True),
        (-SEEN_WITHIN, False),
        (-SEEN_WITHIN - MOMENT, True),
    ],
)
def test_who_was_seen_lately_is_still_it(
    book: Book, clock: MovedClock, ago: timedelta, *, free: bool
) -> None:
    beat(book, "another", clock.now - ago)
    beat(book, NAME, clock.now - ago)
    assert book.run(lambda tx: heartbeats.take(tx.session, NAME, clock.now)) is free
    assert seen(book)[NAME] == (clock.now if free else clock.now - ago)
    assert seen(book)["another"] == clock.now - ago


@pytest.mark.parametrize(
    ("moved", "mine"),
    [
        (SEEN_WITHIN - MOMENT, True),
        (SEEN_WITHIN, False),
        (-SEEN_WITHIN + MOMENT, True),
        (-SEEN_WITHIN, False),
    ],
)
def test_it_is_mine_until_another_can_have_taken_it(
    book: Book, clock: MovedClock, moved: timedelta, *, mine: bool
) -> None:
    """A commit whose answer was lost may have written a moment that I do not know."""
    last, later = clock.now, clock.now + 2 * SEEN_WITHIN
    for name in (NAME, "another"):
        beat(book, name, last + moved)
    assert book.run(lambda tx: heartbeats.keep(tx.session, NAME, last, later)) is mine
    assert seen(book)[NAME] == (later if mine else last + moved)
    beat(book, NAME, last + moved)
    book.run(lambda tx: heartbeats.leave(tx.session, NAME, last))
    assert (NAME in seen(book)) is not mine
    assert seen(book)["another"] == last + moved


def test_hosts_of_long_ago_are_forgotten(book: Book, clock: MovedClock) -> None:
    execute(book, "DELETE FROM heartbeats")
    for name in ("charge@old", "ticks@old", "maewol.tick.open"):
        beat(book, name, clock.now - MOMENT)
    beat(book, "charge@new", clock.now)
    assert book.run(lambda tx: heartbeats.forget_hosts(tx.session, clock.now)) == 2
    assert [*seen(book)] == ["charge@new", "maewol.tick.open"]
    assert [name for name in seen(book) if heartbeats.is_tick(name)] == ["maewol.tick.open"]


def test_what_only_asks_whether_it_could_waits_for_nobody(book: Book, clock: MovedClock) -> None:
    beat(book, NAME, clock.now)
    with book.transaction() as tx:
        assert heartbeats.keep(tx.session, NAME, clock.now, clock.now)
        assert not waits(book, lambda other: heartbeats.can_be_kept(other.session))
    with book.snapshot() as reading, pytest.raises(Exception, match="read-only"):
        heartbeats.can_be_kept(reading.session)
