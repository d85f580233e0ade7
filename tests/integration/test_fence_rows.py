"""Which book this is: what it remembers of its place, and what counts as another place."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from billing.store import installation
from billing.store.installation import Identity
from billing.store.session import Book
from tests.builders import execute, query, waits

HOME = Identity("cluster/1", "00000001", "store")
NOWHERE = Identity(None, None, None)
MOVED = "this book was moved or restored to another database"
BACK = "the database went back in time, or failed over"
SOLD = "this book was used with another store at the gateway"


def fence(book: Book, here: Identity) -> str | None:
    with book.transaction() as tx:
        return installation.fence(tx.session, here)


def known(book: Book) -> Identity:
    ((database, timeline, store),) = query(
        book, "SELECT system_identifier, timeline, imp_key_fingerprint FROM installation"
    )
    return Identity(database, timeline, store)


def test_the_first_who_asks_sets_the_fence(book: Book) -> None:
    assert known(book) == NOWHERE
    assert fence(book, HOME) is None
    assert known(book) == HOME
    assert fence(book, HOME) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"store": "another"}, SOLD),
        ({"database": "cluster/2"}, MOVED),
        ({"timeline": "00000002"}, BACK),
        # The worst is named.
        ({"database": "cluster/2", "timeline": "00000002"}, MOVED),
        ({"store": "another", "database": "cluster/2"}, SOLD),
    ],
)
def test_another_place_is_named_and_never_remembered(
    book: Book, changes: dict[str, str], problem: str
) -> None:
    fence(book, HOME)
    for _ in range(2):
        assert fence(book, replace(HOME, **changes)) == problem
        assert known(book) == HOME


@pytest.mark.parametrize("hidden", ["database", "timeline", "store"])
def test_what_cannot_be_told_is_no_change_and_is_learned_later(book: Book, hidden: str) -> None:
    partly = replace(HOME, **{hidden: None})
    assert fence(book, partly) is None
    assert known(book) == partly
    assert fence(book, HOME) is None
    assert known(book) == HOME
    assert fence(book, partly) is None
    assert known(book) == HOME, "what is known stays"


def test_a_person_sets_it_anew(book: Book) -> None:
    fence(book, HOME)
    elsewhere = Identity("cluster/2", "00000003", None)
    with book.transaction() as tx:
        installation.accept(tx.session, elsewhere)
    assert known(book) == elsewhere


PROMOTED = replace(HOME, timeline="00000002")


@pytest.mark.parametrize(
    ("here", "is_promoted"),
    [
        (PROMOTED, True),
        (HOME, False),
        (replace(PROMOTED, database="cluster/2"), False),
        (replace(PROMOTED, store="another"), False),
        (replace(HOME, timeline=None), False),
    ],
)
def test_a_promoted_standby_differs_in_its_timeline_alone(
    book: Book, here: Identity, is_promoted: bool
) -> None:
    fence(book, HOME)
    with book.transaction() as tx:
        assert installation.promoted(tx.session, here) == is_promoted
        assert installation.failed_over(tx.session, here) == is_promoted
    assert known(book) == (here if is_promoted else HOME)
    with book.transaction() as tx:
        assert not installation.failed_over(tx.session, here), "moved once"


def test_without_a_timeline_of_before_nobody_was_promoted(book: Book) -> None:
    fence(book, replace(HOME, timeline=None))
    with book.transaction() as tx:
        assert not installation.promoted(tx.session, PROMOTED)


def test_one_worker_of_all_moves_the_fence_after_a_failover(book: Book) -> None:
    fence(book, HOME)
    with book.transaction() as late:
        assert installation.promoted(late.session, PROMOTED)
        with book.transaction() as first:
            assert installation.failed_over(first.session, PROMOTED)
            assert waits(book, lambda tx: installation.failed_over(tx.session, PROMOTED))
        assert not installation.failed_over(late.session, PROMOTED), "seen after the lock"


def test_a_book_that_is_nowhere_is_moved_wherever_it_is(book: Book) -> None:
    fence(book, HOME)
    with book.transaction() as tx:
        installation.be_nowhere(tx.session)
    assert known(book) == replace(HOME, database="nowhere")
    assert [fence(book, HOME), fence(book, PROMOTED)] == [MOVED, MOVED]
    with book.transaction() as tx:
        installation.accept(tx.session, HOME)
    assert fence(book, HOME) is None


def test_where_it_is_can_be_read_and_the_store_is_as_given(book: Book) -> None:
    with book.transaction() as tx:
        here = installation.identity(tx.session, "store")
        number = tx.session.execute(
            text("SELECT oid FROM pg_database WHERE datname = current_database()")
        ).scalar_one()
        cluster = tx.session.execute(
            text("SELECT system_identifier FROM pg_control_system()")
        ).scalar_one()
    assert here == Identity(f"{cluster}/{number}", "00000001", "store")


def test_where_it_cannot_be_read_the_transaction_goes_on(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = book._engine
    readable = installation._READABLE
    readable.discard(engine)
    hidden = text("SELECT hidden FROM nowhere")
    with monkeypatch.context() as hiding, book.transaction() as tx:
        hiding.setattr(installation, "_WHERE", hidden)
        assert installation.identity(tx.session, "store") == Identity(None, None, "store")
        assert tx.session.execute(text("SELECT 1")).scalar_one() == 1
        assert engine not in readable
    with book.transaction() as tx:
        assert installation.identity(tx.session, None).database is not None
        assert engine in readable
    # Readable once, it is read without a savepoint; a failure is one, and is not trusted again.
    monkeypatch.setattr(installation, "_WHERE", hidden)
    with pytest.raises(DBAPIError), book.transaction() as tx:
        installation.identity(tx.session, None)
    assert engine not in readable
    with book.transaction() as tx:
        assert installation.identity(tx.session, None) == NOWHERE


def test_the_key_is_made_once(book: Book) -> None:
    def never() -> bytes:
        raise AssertionError("there is one")

    with book.transaction() as tx:
        assert installation.stored_key(tx.session) == b""
        assert installation.key(tx.session, lambda: b"k" * 32) == b"k" * 32
        assert installation.stored_key(tx.session) == b"k" * 32
    with book.transaction() as tx:
        assert installation.stored_key(tx.session) == b"k" * 32
        assert installation.key(tx.session, never) == b"k" * 32
        assert not waits(book, lambda other: installation.key(other.session, never))


def test_a_key_that_another_made_meanwhile_is_taken(book: Book) -> None:
    with book.transaction() as late:
        assert installation.stored_key(late.session) == b""
        with book.transaction() as first:
            installation.key(first.session, lambda: b"k" * 32)
            assert waits(book, lambda tx: installation.key(tx.session, lambda: b"j" * 32))
        assert installation.key(late.session, lambda: b"j" * 32) == b"k" * 32


def test_how_far_the_next_months_are_planned_by_some_settings(book: Book) -> None:
    def state(settings: str) -> tuple[bool, int | None]:
        with book.transaction() as tx:
            is_by = installation.is_coming_by(tx.session, settings)
            return is_by, installation.coming_up_to(tx.session, settings)

    def note(settings: str, up_to: int | None) -> None:
        with book.transaction() as tx:
            installation.note_coming(tx.session, settings, up_to)

    assert state("a") == (False, 0)
    note("a", 7)
    assert (state("a"), state("b")) == ((False, 7), (False, 0))
    note("a", None)
    assert (state("a"), state("b")) == ((True, None), (False, 0))
    note("b", 3)
    assert (state("a"), state("b")) == ((False, 0), (False, 3))
    with book.transaction() as tx:
        assert installation.coming_up_to(tx.session, "b") == 3
        assert state("b") == (False, None), "another is at it"


def test_how_far_is_read_anew_where_it_is_locked(book: Book) -> None:
    with book.transaction() as tx:
        assert not installation.is_coming_by(tx.session, "a")
        execute(book, "UPDATE installation SET coming_by = 'a', coming_up_to = 7")
        assert installation.coming_up_to(tx.session, "a") == 7
