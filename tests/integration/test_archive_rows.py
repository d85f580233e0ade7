"""What the book says of archives, to the row: which seals an archive may take, which lines leave
and which stay, and what shows an archive that is not whole."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.domain.policy import BillingPolicy
from billing.services.invariants import as_seen
from billing.store import archives, events
from billing.store.session import Book
from billing.store.tables import EventArchive, EventSeal
from tests.builders import a_row, as_owner, enrolled, query, sealed
from tests.conftest import MovedClock

PER_SEAL = 3


@pytest.fixture
def sealed_at(book: Book, policy: BillingPolicy, clock: MovedClock) -> list[datetime]:
    """Five seals with an enrolment and two other lines each: events 1 to 3, 4 to 6, and so on."""
    moments = []
    for number in range(1, 6):
        enrolled(book, policy, a_row(number))
        with book.transaction() as tx:
            for kind in ("charging.held", "charging.released"):
                events.add(tx.session, at=tx.now, kind=kind)
        clock.move(minutes=2)
        assert sealed(book) == PER_SEAL
        moments.append(clock.now)
    return moments


def archive(
    session: Session, number: int, first: int, last: int, older_than: datetime
) -> EventArchive:
    """An archive of some seals, as `archive_events` notes it."""
    seals = session.get_one(EventSeal, first), session.get_one(EventSeal, last)
    after, up_to = seals[0].after_id, seals[1].up_to_id
    made = EventArchive(
        number=number,
        first_seal=first,
        last_seal=last,
        after_id=after,
        up_to_id=up_to,
        events=up_to - after,
        older_than=older_than,
        file=f"{number}.gz",
        file_digest=bytes(32),
        kept_digest=archives.kept_digest(session, after, up_to),
        archived_at=older_than,
    )
    session.add(made)
    session.flush()
    return made


def two_archives(session: Session, sealed_at: list[datetime]) -> tuple[EventArchive, EventArchive]:
    """Seals 1 and 2 in the first, 3 and 4 in the second."""
    first = archive(session, 1, 1, 2, sealed_at[1] + timedelta(seconds=1))
    return first, archive(session, 2, 3, 4, sealed_at[3] + timedelta(seconds=1))


def test_an_archive_takes_seals_from_the_oldest_on_and_never_the_newest(
    book: Book, sealed_at: list[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(session: Session, older_than: datetime) -> list[int]:
        found = [one.number for one in archives.archivable(session, older_than)]
        assert archives.count_archivable(session, older_than) == PER_SEAL * len(found)
        return found

    ages = timedelta(days=4000)
    with book.transaction() as tx:
        assert taken(tx.session, sealed_at[0]) == []
        assert taken(tx.session, sealed_at[0] + timedelta(microseconds=1)) == [1]
        assert taken(tx.session, sealed_at[2]) == [1, 2]
        assert taken(tx.session, sealed_at[4] + ages) == [1, 2, 3, 4]
        archive(tx.session, 1, 1, 1, sealed_at[4])
        archive(tx.session, 2, 2, 2, sealed_at[4])
        assert taken(tx.session, sealed_at[4] + ages) == [3, 4]
        assert taken(tx.session, sealed_at[3]) == [3]
        monkeypatch.setattr(archives, "_MOST_SEALS", 1)
        assert [one.number for one in archives.archivable(tx.session, sealed_at[4] + ages)] == [3]


def test_a_book_without_seals_has_nothing_to_archive(book: Book, clock: MovedClock) -> None:
    with book.transaction() as tx:
        assert archives.archivable(tx.session, clock.now) == []
        assert archives.count_archivable(tx.session, clock.now) == 0
        assert archives.newest(tx.session) is None
        assert archives.seal_before(tx.session, 1) is None


def test_lines_are_those_of_the_range_in_order(book: Book, sealed_at: list[datetime]) -> None:
    with book.transaction() as tx, as_owner(tx):
        # Stored in another order than the one they were numbered in.
        tx.session.execute(text("SET LOCAL session_replication_role = replica"))
        tx.session.execute(text("UPDATE events SET data = data WHERE id = 4"))
        rows = archives.lines(tx.session, 3, 7)
        digest = archives.kept_digest(tx.session, 3, 7)
    assert [row.id for row in rows] == [4, 5, 6, 7]
    assert [row.at for row in rows[:3]] == [sealed_at[1] - timedelta(minutes=2)] * 3
    assert rows[1].line == f"5|{rows[1].at:%Y-%m-%d %H:%M:%S.%f}|charging.held|0|0|0|f|{{}}"
    kept = "\n".join(row.line for row in rows if "|subscription.enrolled|" in row.line)
    assert kept.count("\n") == 1
    assert digest == hashlib.sha256(kept.encode()).digest()


def test_of_a_range_without_lines_that_stay_the_digest_is_that_of_nothing(
    book: Book, sealed_at: list[datetime]
) -> None:
    with book.transaction() as tx:
        for after, up_to in ((4, 6), (100, 101)):
            assert archives.kept_digest(tx.session, after, up_to) == hashlib.sha256(b"").digest()


def test_what_tells_of_no_subscription_leaves_from_the_oldest_on(
    book: Book, sealed_at: list[datetime]
) -> None:
    with book.transaction() as tx, as_owner(tx):
        _, second = two_archives(tx.session, sealed_at)
        tx.session.execute(text("SET LOCAL session_replication_role = replica"))
        tx.session.execute(text("UPDATE events SET data = data WHERE id = 8"))
        left = "SELECT array_agg(id ORDER BY id) FROM events"
        assert archives.remove(tx.session, second, 3) == 3
        assert tx.session.execute(text(left)).scalar_one() == [*range(1, 8), 10, 12, 13, 14, 15]
        assert archives.remove(tx.session, second, 3) == 1
        assert archives.remove(tx.session, second, 3) == 0
        assert tx.session.execute(text(left)).scalar_one() == [*range(1, 8), 10, 13, 14, 15]


def test_a_removal_passes_over_what_somebody_else_holds(
    book: Book, sealed_at: list[datetime]
) -> None:
    with book.transaction() as tx:
        two_archives(tx.session, sealed_at)
    with book.transaction() as other, book.transaction() as tx:
        other.session.execute(text("SELECT FROM events WHERE id = 2 FOR SHARE"))
        tx.session.execute(text("SET LOCAL lock_timeout = '1s'"))
        first = tx.session.get_one(EventArchive, 1)
        assert archives.remove(tx.session, first, 1) == 1
        assert archives.remove(tx.session, first, 9) == 2


def test_it_is_known_which_archives_still_have_events_in_the_book(
    book: Book, clock: MovedClock, sealed_at: list[datetime]
) -> None:
    with book.transaction() as tx, as_owner(tx):
        two_archives(tx.session, sealed_at)
        # Stored in another order than the one they were numbered in.
        tx.session.execute(text("SET LOCAL session_replication_role = replica"))
        tx.session.execute(text("UPDATE event_archives SET file = file WHERE number = 1"))
        assert [one.number for one in archives.every(tx.session)] == [1, 2]
        assert [one.number for one in archives.unfinished(tx.session)] == [1, 2]
        newest, before = archives.newest(tx.session), archives.seal_before(tx.session, 3)
        assert newest is not None
        assert before is not None
        assert (newest.number, before.number) == (2, 2)
    for _ in range(2):
        # What is written down stays: the database would refuse another moment.
        with book.transaction() as tx:
            archives.removed(tx.session, 1, tx.now)
        clock.move(minutes=1)
    assert query(book, "SELECT number, removed_at FROM event_archives ORDER BY number") == [
        (1, clock.now - timedelta(minutes=2)),
        (2, None),
    ]
    with book.transaction() as tx:
        assert [one.number for one in archives.unfinished(tx.session)] == [2]
        assert len(archives.every(tx.session)) == 2


def test_one_at_a_time(book: Book) -> None:
    with book.transaction() as one, book.transaction() as another:
        assert archives.only_archiver(one.session) is True
        assert archives.only_archiver(another.session) is False


CHANGES = [
    ("", [], []),
    # An archive that does not begin where the one before ended.
    ("UPDATE event_archives SET number = 3 WHERE number = 2", [3], []),
    ("DELETE FROM event_archives WHERE number = 1", [2], []),
    ("UPDATE event_archives SET first_seal = 2, after_id = 3 WHERE number = 1", [1], []),
    # One that is not of the seals it names.
    ("UPDATE event_archives SET after_id = -5 WHERE number = 1", [1], []),
    ("UPDATE event_archives SET up_to_id = 5 WHERE number = 1", [1], []),
    ("DELETE FROM event_seals WHERE number = 3", [2], [4]),
    ("DELETE FROM event_seals WHERE number = 4", [2], [5]),
    # A line that stays was changed; one of another archive; one that may go (its seal is in the
    # file), and one that no archive has.
    ("UPDATE events SET data = '{}' WHERE id = 1", [1], []),
    ("UPDATE events SET data = '{}' WHERE id = 7", [2], []),
    ("UPDATE events SET data = '{\"new\": 1}' WHERE id = 2", [], []),
    ("UPDATE events SET data = '{\"new\": 1}' WHERE id = 14", [], [5]),
    # One that was emptied, and is not empty; one line is enough.
    ("UPDATE event_archives SET removed_at = archived_at WHERE number = 2", [2], []),
    (
        "DELETE FROM events WHERE id IN (8, 9, 11);"
        " UPDATE event_archives SET removed_at = archived_at WHERE number = 2",
        [2],
        [],
    ),
    (
        "DELETE FROM events WHERE id IN (8, 9, 11, 12);"
        " UPDATE event_archives SET removed_at = archived_at WHERE number = 2",
        [],
        [],
    ),
]


@pytest.mark.parametrize(("changes", "of_archives", "of_seals"), CHANGES)
def test_what_is_not_whole_is_named(
    book: Book,
    policy: BillingPolicy,
    sealed_at: list[datetime],
    changes: str,
    of_archives: list[int],
    of_seals: list[int],
) -> None:
    with book.transaction() as tx, as_owner(tx):
        two_archives(tx.session, sealed_at)
        tx.session.execute(text("SET LOCAL session_replication_role = replica"))
        for one in changes.split(";"):
            if one:
                tx.session.execute(text(one))
        found = {one.name: sorted(one.rows) for one in as_seen(tx, policy)}
    assert found["I7 archives are whole"] == of_archives
    assert found["I7 nothing was edited"] == of_seals


def test_facts_are_proven_for_cycles_opened_since_the_newest_archive(
    book: Book, sealed_at: list[datetime]
) -> None:
    def proven(session: Session) -> list[int]:
        """Of five cycles, one opened at the moment of each seal."""
        cycles = "unnest(CAST(:opened AS timestamptz[])) WITH ORDINALITY c(opened_at, number)"
        query = f"SELECT c.number FROM {cycles} WHERE {archives.NOT_YET}"
        return sorted(session.execute(text(query), {"opened": sealed_at}).scalars())

    with book.transaction() as tx:
        assert proven(tx.session) == [1, 2, 3, 4, 5]
        archive(tx.session, 1, 1, 1, sealed_at[1])
        assert proven(tx.session) == [2, 3, 4, 5]
        archive(tx.session, 2, 2, 2, sealed_at[3] - timedelta(microseconds=1))
        assert proven(tx.session) == [4, 5]
