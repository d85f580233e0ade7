"""What goes into one file of an archive, to the seal; and what is believed of a file that is there:
a small book of five seals, with three events each."""

from __future__ import annotations

import errno
import gzip
import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from billing.domain.archive import SealedRun
from billing.domain.errors import ArchiveDamaged, InvalidInput
from billing.domain.policy import BillingPolicy
from billing.services import archive_events
from billing.services.archive_events import archive_next, remove_archived, verify
from billing.store import archives, events
from billing.store.session import Book
from tests.builders import a_row, enrolled, execute, query, sealed
from tests.conftest import MovedClock

AROUND = "SET LOCAL session_replication_role = replica; "
LATER = datetime(2032, 1, 1, tzinfo=UTC)
FIRST, SECOND = "maewol-events-000001.txt.gz", "maewol-events-000002.txt.gz"


def a_seal(
    book: Book, policy: BillingPolicy, clock: MovedClock, number: int, at: datetime | None = None
) -> None:
    """An enrolment, which stays in the book, and two lines that may go; the first is of `at`."""
    enrolled(book, policy, a_row(number))
    with book.transaction() as tx:
        events.add(tx.session, at=at or tx.now, kind="charging.held")
        events.add(tx.session, at=tx.now, kind="charging.released")
    clock.move(minutes=2)
    assert sealed(book) == 3


@pytest.fixture
def five(book: Book, policy: BillingPolicy, clock: MovedClock) -> Book:
    """Five seals of one morning; the newest is never archived."""
    for number in range(1, 6):
        a_seal(book, policy, clock, number)
    return book


def files(book: Book) -> list[tuple[Any, ...]]:
    """Which seals are in which file."""
    return query(book, "SELECT file, first_seal, last_seal FROM event_archives ORDER BY number")


# -- what goes into a file ----------------------------------------------------------------------


def test_a_file_is_noted_with_all_that_it_holds(
    five: Book, clock: MovedClock, tmp_path: Path
) -> None:
    assert archive_next(five, tmp_path, LATER) == 12
    assert query(
        five,
        "SELECT number, first_seal, last_seal, after_id, up_to_id, events, older_than, file,"
        " archived_at, removed_at, octet_length(file_digest) FROM event_archives",
    ) == [(1, 1, 4, 0, 12, 12, LATER, FIRST, clock.now, None, 32)]
    assert archive_next(five, tmp_path, LATER) == 0, "and nothing twice"
    assert [path.name for path in tmp_path.iterdir()] == [FIRST], "no rough copy stays"


@pytest.mark.parametrize(
    ("most", "seals"),
    [(2, [(1, 1), (2, 2), (3, 3), (4, 4)]), (5, [(1, 1), (2, 2), (3, 3), (4, 4)]),
     (6, [(1, 2), (3, 4)]), (9, [(1, 3), (4, 4)])],
)  # fmt: skip
def test_a_file_is_full_at_so_many_events(
    five: Book,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    seals: list[tuple[int, int]],
) -> None:
    """A seal that is larger than a file has one of its own; each file follows the one before."""
    monkeypatch.setattr(archive_events, "FILE_EVENTS", most)
    while archive_next(five, tmp_path, LATER):
        pass
    assert [row[1:] for row in files(five)] == seals
    assert verify(five, tmp_path) == []


def test_a_file_is_of_one_month_in_korea(
    book: Book, policy: BillingPolicy, clock: MovedClock, tmp_path: Path
) -> None:
    """So that a file which was left behind is the same whenever it is made: seals of the last
    second of November, of the first of December, and of December a year later."""
    midnight = datetime(2026, 11, 30, 15, tzinfo=UTC)
    sealing = timedelta(minutes=2)
    for number, at in enumerate((midnight - timedelta(seconds=1), midnight + sealing), start=1):
        clock.move_to(at - sealing)
        a_seal(book, policy, clock, number)
    clock.move_to(midnight + timedelta(days=366))
    for number in (3, 4):
        a_seal(book, policy, clock, number)
    while archive_next(book, tmp_path, LATER):
        pass
    assert [row[1:] for row in files(book)] == [(1, 1), (2, 2), (3, 3)]


def test_only_so_many_events_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [SealedRun(number, 0, 0, size, b"") for number, size in enumerate((3, 3, 1, 9, 1))]
    monkeypatch.setattr(archive_events, "READ_EVENTS", 6)
    groups = [[one.events for one in group] for group in archive_events._groups(runs)]
    assert groups == [[3, 3], [1], [9], [1]]


def test_read_in_several_steps_it_is_the_same_file(
    five: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same events make the same file, byte by byte: no time and no name is in it."""
    plan = five.run(lambda tx: archive_events._plan(tx, LATER))
    assert plan is not None
    made = []
    for name, at_once in (("a", 5_000), ("b", 6), ("c", 1)):
        monkeypatch.setattr(archive_events, "READ_EVENTS", at_once)
        archive_events._write_whole(tmp_path / name, archive_events._text(five, plan))
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1] == made[2]
    assert made[0][3:8] == bytes(5)
    text = gzip.decompress(made[0]).decode().splitlines()
    assert text[:2] == ["Maewol events 1", "previous: "]
    assert [row.split("|")[0] for row in text[3:6]] == ["1", "2", "3"]


@pytest.mark.parametrize(("later", "taken"), [(0, 0), (1, 6)])
def test_a_seal_with_an_event_that_is_too_young_stays(
    book: Book, policy: BillingPolicy, clock: MovedClock, tmp_path: Path, later: int, taken: int
) -> None:
    """By a clock that was ahead for a moment: somebody may still ask for it."""
    young = clock.now + timedelta(days=1)
    for number, at in ((1, None), (2, young), (3, None)):
        a_seal(book, policy, clock, number, at=at)
    older_than = young + timedelta(microseconds=later)
    if taken:
        assert archive_next(book, tmp_path, older_than) == taken
        return
    with pytest.raises(ArchiveDamaged, match=r"seal 1.*too young to go"):
        archive_next(book, tmp_path, older_than)
    assert list(tmp_path.iterdir()) == []


def test_events_that_are_not_those_that_were_sealed_are_named_by_their_seal(
    five: Book, tmp_path: Path
) -> None:
    execute(five, AROUND + "DELETE FROM events WHERE id = 8")
    with pytest.raises(ArchiveDamaged, match=r"seal 3.*not those it sealed"):
        archive_next(five, tmp_path, LATER)


def test_that_a_file_before_is_noted_hides_nothing_of_the_next(
    five: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the note of this very file says that another process was quicker."""
    monkeypatch.setattr(archive_events, "FILE_EVENTS", 6)
    assert archive_next(five, tmp_path, LATER) == 6
    execute(five, AROUND + "DELETE FROM events WHERE id = 8")
    with pytest.raises(ArchiveDamaged, match=r"seal 3.*not those it sealed"):
        archive_next(five, tmp_path, LATER)


# -- what is believed of a file -----------------------------------------------------------------


def left_behind(five: Book, folder: Path) -> Path:
    """As by a process that died before it could note its file."""
    plan = five.run(lambda tx: archive_events._plan(tx, LATER))
    assert plan is not None
    archive_events._write_whole(folder / FIRST, archive_events._text(five, plan))
    return folder / FIRST


def test_a_file_that_was_left_behind_is_taken(five: Book, tmp_path: Path) -> None:
    before = left_behind(five, tmp_path).read_bytes()
    assert archive_next(five, tmp_path, LATER) == 12
    assert (tmp_path / FIRST).read_bytes() == before
    assert verify(five, tmp_path) == []


def test_a_file_that_was_left_behind_and_damaged_is_not(five: Book, tmp_path: Path) -> None:
    """Cut, with a byte turned in the midst of what is packed, or no archive: all is told as that,
    whatever the one who unpacks it says."""
    path = left_behind(five, tmp_path)
    whole = path.read_bytes()
    turned = bytearray(whole)
    turned[10] ^= 0xFF
    text = gzip.compress(b"Maewol events 1\nprevious: \n")
    for damaged in (whole[:-9], bytes(turned), b"", b"no archive", text):
        path.write_bytes(damaged)
        with pytest.raises(ArchiveDamaged, match="cannot be trusted") as refused:
            archive_next(five, tmp_path, LATER)
        assert FIRST in str(refused.value)
    assert files(five) == []


def test_another_books_file_is_not_taken(
    five: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole in itself, and of fewer seals than this one would be."""
    with monkeypatch.context() as smaller:
        smaller.setattr(archive_events, "FILE_EVENTS", 6)
        left_behind(five, tmp_path)
    with pytest.raises(ArchiveDamaged, match="is there already and holds something else"):
        archive_next(five, tmp_path, LATER)


def test_a_file_is_whole_or_not_there(
    five: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(archive_events.os, "fsync", full)
        with pytest.raises(OSError, match="no space left"):
            archive_next(five, tmp_path / "new" / "folder", LATER)
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    with pytest.raises(FileExistsError):
        archive_events._write_whole(left_behind(five, tmp_path), iter(["other"]))
    assert archive_next(five, tmp_path, LATER) == 12


def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_its_name_is(
    five: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then may the book say that events are in it: what is removed must be somewhere."""
    seen: list[tuple[int, bool]] = []

    def synced(handle: int) -> None:
        assert files(five) == []
        seen.append((os.fstat(handle).st_size, (tmp_path / FIRST).exists()))

    monkeypatch.setattr(archive_events.os, "fsync", synced)
    assert archive_next(five, tmp_path, LATER) == 12
    assert seen[0] == ((tmp_path / FIRST).stat().st_size, False)
    assert [named for _, named in seen[1:]] == [True]


def test_of_two_who_archive_the_same_one_notes_it(five: Book, tmp_path: Path) -> None:
    plan = five.run(lambda tx: archive_events._plan(tx, LATER))
    assert plan is not None
    assert archive_next(five, tmp_path, LATER) == 12
    noted = five.run(lambda tx: archive_events._note(tx, plan, FIRST, b""))
    assert (noted, len(files(five))) == (0, 1)


@pytest.mark.parametrize("removed", [False, True])
def test_who_was_slower_over_the_same_file_leaves_it_to_the_other(
    five: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    """The daily tick and a person at once: neither is an error."""
    as_ever = archive_events._text

    def meanwhile(book: Book, plan: Any) -> Any:
        monkeypatch.setattr(archive_events, "_text", as_ever)
        assert archive_next(book, tmp_path, LATER) == 12
        if removed:
            assert remove_archived(book, tmp_path, lambda: True) == 8
        yield from as_ever(book, plan)

    monkeypatch.setattr(archive_events, "_text", meanwhile)
    assert archive_next(five, tmp_path, LATER) == 0
    assert files(five) == [(FIRST, 1, 4)]
    assert verify(five, tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [FIRST]


def test_while_somebody_else_archives_nothing_is_begun_noted_or_removed(
    five: Book, tmp_path: Path
) -> None:
    plan = five.run(lambda tx: archive_events._plan(tx, LATER))
    assert plan is not None
    with five.transaction() as other:
        assert archives.only_archiver(other.session)
        assert five.run(lambda tx: archive_events._plan(tx, LATER)) is None
        assert five.run(lambda tx: archive_events._note(tx, plan, FIRST, b"")) == 0
    assert archive_next(five, tmp_path, LATER) == 12
    with five.transaction() as other:
        assert archives.only_archiver(other.session)
        assert remove_archived(five, tmp_path, lambda: True) == 0
    assert query(five, "SELECT removed_at FROM event_archives") == [(None,)]


# -- what leaves the book -----------------------------------------------------------------------


def test_what_may_go_goes_in_steps_and_what_stays_stays(
    five: Book, clock: MovedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_events, "FILE_EVENTS", 6)
    monkeypatch.setattr(archive_events, "REMOVE_EVENTS", 3)
    while archive_next(five, tmp_path, LATER):
        pass
    asked = iter((True, True, False))
    # When its time is over no other file is even read.
    away = (tmp_path / SECOND).rename(tmp_path / "away")
    assert remove_archived(five, tmp_path, lambda: next(asked, False)) == 3
    away.rename(tmp_path / SECOND)
    assert query(five, "SELECT removed_at FROM event_archives ORDER BY number") == 2 * [(None,)]
    assert remove_archived(five, tmp_path, lambda: True) == 5
    assert remove_archived(five, tmp_path, lambda: True) == 0
    done = query(five, "SELECT removed_at FROM event_archives")
    assert done == 2 * [(clock.now,)]
    assert query(five, "SELECT id FROM events ORDER BY id") == [
        (number,) for number in (1, 4, 7, 10, 13, 14, 15)
    ]


def test_nothing_leaves_the_book_on_the_word_of_a_file_that_was_touched(
    five: Book, tmp_path: Path
) -> None:
    assert archive_next(five, tmp_path, LATER) == 12
    path = tmp_path / FIRST
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArchiveDamaged, match="was changed"):
        remove_archived(five, tmp_path, lambda: True)
    assert query(five, "SELECT count(*) FROM events") == [(15,)]


# -- verify -------------------------------------------------------------------------------------


def test_each_file_is_told_with_what_is_wrong_with_it(
    five: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_events, "FILE_EVENTS", 3)
    while archive_next(five, tmp_path, LATER):
        pass
    assert verify(five, tmp_path) == []
    (tmp_path / FIRST).unlink()
    (tmp_path / SECOND).write_bytes(b"no archive")
    third, fourth = (row[0] for row in files(five)[2:])
    change = partial(execute, five)
    change(AROUND + "UPDATE event_seals SET digest = sha256('x') WHERE number = 3")
    # The book's word of a file that is none: believed of the file itself only.
    (tmp_path / fourth).write_bytes(b"none either")
    digest = archive_events._file_digest(tmp_path / fourth).hex()
    change(AROUND + f"UPDATE event_archives SET file_digest = '\\x{digest}' WHERE number = 4")
    problems = verify(five, tmp_path)
    assert problems[:3] == [
        (FIRST, "is not in the folder"),
        (SECOND, "was changed since it was written"),
        (third, "its seals are not those of this book"),
    ]
    ((name, problem),) = problems[3:]
    assert name == fourth
    assert problem.startswith("cannot be trusted")


def test_a_file_whose_seal_is_not_in_the_book_is_told(five: Book, tmp_path: Path) -> None:
    assert archive_next(five, tmp_path, LATER) == 12
    execute(five, AROUND + "DELETE FROM event_seals WHERE number = 4")
    assert verify(five, tmp_path) == [(FIRST, "its seals are not those of this book")]


def test_a_book_without_archives_has_nothing_to_verify(book: Book, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="this book has no archives") as refused:
        verify(book, tmp_path)
    assert (refused.value.field, refused.value.value) == ("folder", str(tmp_path))
    assert refused.value.remedy == "Nothing to verify"
