"""Years go by: old events move into files, every fact holds before, after and in between, and what
was moved can be proven."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from copy import copy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from billing.bootstrap import billing_policy
from billing.domain.calendar import SEOUL
from billing.domain.errors import ArchiveDamaged, InvalidInput, InvalidSetting
from billing.domain.policy import BillingPolicy
from billing.embedded import Servers
from billing.sandbox import NewCustomer, register
from billing.services import archive_events
from billing.services.archive_events import archive_next, remove_archived, verify
from billing.services.explain import why
from billing.services.invariants import broken
from billing.services.prune import Pruned, prune, would_prune
from billing.settings import Settings
from billing.store import heartbeats, installation
from billing.store.session import Book, create_book_engine
from tests.builders import enrolled, execute, plain, query
from tests.conftest import MovedClock, a_database
from tests.lived_in import live
from tests.world import World

MONTHS = 3
LATER = datetime(2027, 3, 10, 10, 0, tzinfo=SEOUL)
OLD = datetime(2026, 12, 1, tzinfo=SEOUL)
ALWAYS = lambda: True  # noqa: E731


@pytest.fixture(scope="module")
def lived(servers: Servers, _template: str) -> Iterator[World]:
    """Two months of a small shop, then months in which nobody looked after it."""
    with a_database(servers, _template) as url:
        clock = MovedClock()
        book = Book(create_book_engine(url), clock.read)
        shop = live(book, billing_policy(Settings.load()), clock)
        for moment in (clock.now, LATER):
            clock.move_to(moment)
            for _ in range(4):
                shop.tick()
                clock.move(minutes=2)
        assert broken(book, shop.policy) == []
        book.close()
        yield shop


@pytest.fixture
def database_url(servers: Servers, lived: World) -> Iterator[str]:
    """A copy of that book for each test."""
    name = make_url(str(lived.book._engine.url)).database
    with a_database(servers, str(name)) as url:
        yield url


@pytest.fixture
def world(lived: World, database_url: str) -> Iterator[World]:
    """The shop on a copy of its book; the gateway is the same for all."""
    lived.clock.move_to(LATER + timedelta(minutes=8))
    shop = copy(lived)
    shop.book = Book(create_book_engine(database_url), lived.clock.read)
    # The fence sees that it is a copy; here it is the book.
    shop.book.run(
        lambda tx: installation.accept(tx.session, installation.identity(tx.session, None))
    )
    yield shop
    shop.book.close()


def packed(folder: Path) -> str:
    """The text of every archive."""
    return "".join(
        gzip.decompress(path.read_bytes()).decode() for path in sorted(folder.glob("maewol*"))
    )


def count(world: World, where: str = "true") -> int:
    return int(query(world.book, f"SELECT count(*) FROM events WHERE {where}")[0][0])


def lines(world: World) -> dict[int, str]:
    """Every event of the book as it was sealed."""
    rows = query(world.book, "SELECT id, kind, at::text, data::text FROM events ORDER BY id")
    return {row[0]: "|".join(map(str, row[1:])) for row in rows}


def facts(world: World) -> list[tuple[Any, ...]]:
    """What people and the gateway's ledger ask the book for."""
    cycles = query(world.book, "SELECT * FROM cycles ORDER BY id")
    attempts = query(world.book, "SELECT * FROM attempts ORDER BY id")
    return [*cycles, *attempts, *query(world.book, "SELECT * FROM subscriptions ORDER BY id")]


def test_old_events_move_into_files_and_every_fact_holds(world: World, tmp_path: Path) -> None:
    before, stays = lines(world), facts(world)
    told = why(world.book, world.policy, "recovered-late", 1)
    old = would_prune(world.book, world.policy, MONTHS)
    assert 200 < old < len(before)

    done = prune(world.book, world.policy, MONTHS, tmp_path)

    assert done.archived == old
    kept = count(world, f"at < '{OLD.isoformat()}'")
    assert kept == count(world, f"kind LIKE 'subscription.%' AND at < '{OLD.isoformat()}'") > 0
    left = lines(world)
    assert len(left) == len(before) - done.removed
    assert left.items() <= before.items()
    assert facts(world) == stays
    assert why(world.book, world.policy, "recovered-late", 1) == told
    assert broken(world.book, world.policy) == []
    assert verify(world.book, tmp_path) == []
    # Nothing that left is lost: the files hold every line.
    text = packed(tmp_path)
    assert all(f"\n{number}|" in text for number in before.keys() - left.keys())
    # And again does nothing.
    again = prune(world.book, world.policy, MONTHS, tmp_path)
    assert (again.archived, again.removed) == (0, 0)


def test_the_book_goes_on_charging_after_it(world: World, tmp_path: Path) -> None:
    prune(world.book, world.policy, MONTHS, tmp_path)
    paid_at = datetime(2027, 3, 20, 14, 30, tzinfo=SEOUL)
    world.clock.move_to(paid_at + timedelta(days=1))
    newcomer = NewCustomer(customer_uid="newcomer", amount=9900, name="plan", paid_at=paid_at)
    register(world.sandbox, [newcomer])
    enrolled(world.book, world.policy, f"newcomer,9900,plan,{paid_at.isoformat()},,")
    for month in (4, 5, 6, 7, 8):
        world.clock.move_to(datetime(2027, month, 20, 10, 0, tzinfo=SEOUL))
        world.run(every=timedelta(minutes=2), times=5)
    numbers = query(
        world.book,
        "SELECT c.number FROM cycles c JOIN subscriptions s ON s.id = c.subscription_id"
        " WHERE s.customer_uid = 'newcomer' AND c.status = 'paid' ORDER BY 1",
    )
    assert numbers == [(1,), (2,), (3,), (4,), (5,)]
    assert broken(world.book, world.policy) == []

    assert prune(world.book, world.policy, MONTHS, tmp_path).archived > 0
    assert broken(world.book, world.policy) == []
    assert verify(world.book, tmp_path) == []
    assert count(world, "kind = 'cycle.paid' AND at < '2027-05-01'") == 0


class Killed(Exception):
    """The process ended here."""


STEPS = ("write", "note", "one removal", "all removed")


@pytest.mark.parametrize("step", STEPS)
def test_killed_in_the_middle_it_goes_on_from_there(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = lines(world)
    old = would_prune(world.book, world.policy, MONTHS)
    monkeypatch.setattr(archive_events, "REMOVE_EVENTS", 25)
    with monkeypatch.context() as dying:
        _die(dying, step)
        with pytest.raises(Killed):
            prune(world.book, world.policy, MONTHS, tmp_path)
    assert broken(world.book, world.policy) == []
    world.tick()

    prune(world.book, world.policy, MONTHS, tmp_path)

    assert broken(world.book, world.policy) == []
    assert verify(world.book, tmp_path) == []
    assert query(world.book, "SELECT sum(events) FROM event_archives") == [(old,)]
    assert query(world.book, "SELECT count(*) FROM event_archives WHERE removed_at IS NULL") == [
        (0,)
    ]
    text = packed(tmp_path)
    assert all(f"\n{number}|" in text for number in before.keys() - lines(world).keys())


def _die(dying: pytest.MonkeyPatch, step: str) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    match step:
        case "write":
            dying.setattr(archive_events.os, "fsync", killed)
        case "note":
            dying.setattr(archive_events, "_note", killed)
        case "one removal":
            calls = iter(range(3))
            real = archive_events.archives.remove

            def some(*given: Any) -> int:
                if next(calls, None) is None:
                    raise Killed
                return real(*given)

            dying.setattr(archive_events.archives, "remove", some)
        case _:
            dying.setattr(archive_events.archives, "removed", killed)


def test_two_at_once_do_it_once(world: World, tmp_path: Path) -> None:
    """The other is at it: whoever comes second leaves everything to it."""
    with world.book.transaction() as tx:
        assert archive_events.archives.only_archiver(tx.session)
        done = prune(world.book, world.policy, MONTHS, tmp_path)
        assert (done.archived, done.removed) == (0, 0)
    assert prune(world.book, world.policy, MONTHS, tmp_path).archived > 0


def test_nothing_waits_for_a_removal_and_no_removal_waits(
    world: World, database_url: str, tmp_path: Path
) -> None:
    """A row that somebody else has in hand is passed over, and taken the next time."""
    while archive_next(world.book, tmp_path, OLD):
        pass
    with psycopg.connect(plain(database_url)) as other:
        busy = other.execute(
            "SELECT id FROM events WHERE kind = 'attempt.sending' ORDER BY id LIMIT 1 FOR SHARE"
        ).fetchone()
        assert busy is not None
        remove_archived(world.book, tmp_path, ALWAYS)
        assert count(world, f"id = {busy[0]}") == 1
        assert broken(world.book, world.policy) != [], "said to be empty, and is not"


def test_the_database_lets_nothing_go_that_no_file_holds(world: World, tmp_path: Path) -> None:
    with pytest.raises(DBAPIError, match="only ever added"):
        execute(world.book, "DELETE FROM events WHERE id = 1")
    prune(world.book, world.policy, MONTHS, tmp_path)
    for which in (
        "SELECT max(id) FROM events",
        "SELECT min(id) FROM events WHERE kind = 'subscription.enrolled'",
    ):
        with pytest.raises(DBAPIError, match="only ever added"):
            execute(world.book, f"DELETE FROM events WHERE id = ({which})")
    for statement in (
        "DELETE FROM event_archives",
        "UPDATE event_archives SET up_to_id = up_to_id + 1",
        "UPDATE event_archives SET removed_at = NULL",
    ):
        with pytest.raises(DBAPIError, match="only ever added"):
            execute(world.book, statement)


@pytest.mark.parametrize(
    ("statement", "fact"),
    [
        (
            "UPDATE events SET data = '{}' WHERE id ="
            " (SELECT min(id) FROM events WHERE kind = 'subscription.enrolled')",
            "I7 archives are whole",
        ),
        (
            "INSERT INTO events (id, at, kind) OVERRIDING SYSTEM VALUE"
            " SELECT after_id + 1, older_than, 'attempt.approved' FROM event_archives"
            " WHERE number = 2 AND NOT EXISTS (SELECT FROM events WHERE id = after_id + 1)",
            "I7 archives are whole",
        ),
        (
            "UPDATE events SET alarm = NOT alarm"
            " WHERE id = (SELECT max(up_to_id) FROM event_seals)",
            "I7 nothing was edited",
        ),
        ("DELETE FROM event_archives WHERE number = 1", "I7 archives are whole"),
        ("UPDATE event_archives SET last_seal = last_seal - 1", "I7 archives are whole"),
    ],
    ids=["a line that stayed", "a line that was put back", "a line after it", "no archive", "less"],
)
def test_an_edit_behind_the_back_shows_after_it(
    world: World, tmp_path: Path, statement: str, fact: str
) -> None:
    prune(world.book, world.policy, MONTHS, tmp_path)
    execute(
        world.book,
        f"SET LOCAL session_replication_role = replica; {statement}",
    )
    assert fact in [one.name for one in broken(world.book, world.policy)]


def test_a_file_that_was_touched_is_found_and_nothing_goes_on_its_word(
    world: World, tmp_path: Path
) -> None:
    assert archive_next(world.book, tmp_path, OLD)
    events = count(world)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    text = gzip.decompress(whole)

    for damaged in (
        whole[:-9],
        gzip.compress(text.replace(b"attempt.approved", b"attempt.declined", 1)),
        b"",
    ):
        path.write_bytes(damaged)
        with pytest.raises(ArchiveDamaged, match="was changed"):
            remove_archived(world.book, tmp_path, ALWAYS)
        assert [name for name, _ in verify(world.book, tmp_path)] == [path.name]
    path.unlink()
    with pytest.raises(ArchiveDamaged, match="not in the folder"):
        prune(world.book, world.policy, MONTHS, tmp_path)
    assert count(world) == events

    path.write_bytes(whole)
    assert verify(world.book, tmp_path) == []
    assert remove_archived(world.book, tmp_path, ALWAYS) > 0


def test_a_file_in_the_way_is_not_written_over(world: World, tmp_path: Path) -> None:
    path = tmp_path / "maewol-events-000001.txt.gz"
    with gzip.open(path, "wt") as file:
        file.write("Maewol events 1\nprevious: \n")
    with pytest.raises(ArchiveDamaged):
        prune(world.book, world.policy, MONTHS, tmp_path)
    assert query(world.book, "SELECT count(*) FROM event_archives") == [(0,)]


def test_events_that_were_edited_do_not_get_into_a_file(world: World, tmp_path: Path) -> None:
    execute(
        world.book,
        "SET LOCAL session_replication_role = replica;"
        " UPDATE events SET data = '{\"edited\": 1}' WHERE id = 90",
    )
    with pytest.raises(ArchiveDamaged, match="not those it sealed"):
        prune(world.book, world.policy, MONTHS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_checked_with_nothing_but_itself(world: World, tmp_path: Path) -> None:
    """As docs/adr/0012-retention.md says: the digests follow from the text alone."""
    assert archive_next(world.book, tmp_path, OLD)
    rows = packed(tmp_path).splitlines()
    digest, waiting, seals = bytes.fromhex(rows[1].removeprefix("previous: ")), list[str](), 0
    expected: bytes | None = None
    for row in [*rows[2:], "seal"]:
        if not row.startswith("seal"):
            waiting.append(row)
            continue
        if expected is not None:
            digest = hashlib.sha256(digest + "\n".join(waiting).encode()).digest()
            assert digest == expected
            seals += 1
        waiting = []
        expected = bytes.fromhex(row.rpartition(" ")[2]) if row != "seal" else None
    assert seals == query(world.book, "SELECT last_seal FROM event_archives")[0][0]


def test_without_a_folder_or_with_zero_months_every_event_stays(
    world: World, tmp_path: Path
) -> None:
    events = count(world)
    assert prune(world.book, world.policy, MONTHS, None).archived == 0
    assert prune(world.book, world.policy, 0, tmp_path).archived == 0
    assert would_prune(world.book, world.policy, 0) == 0
    assert count(world) == events
    with pytest.raises(InvalidInput, match="no archives"):
        verify(world.book, tmp_path)


def test_a_book_that_nobody_used_for_years_keeps_its_newest_event(
    world: World, tmp_path: Path
) -> None:
    """The fence compares the newest number with what was seen: it must never fall."""
    world.clock.move(days=2000)
    newest = query(world.book, "SELECT max(id) FROM events")[0][0]
    prune(world.book, world.policy, MONTHS, tmp_path)
    assert query(world.book, "SELECT max(id) FROM events") == [(newest,)]
    assert broken(world.book, world.policy) == []


def test_hosts_that_are_gone_are_forgotten_and_ticks_are_not(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    def beat(name: str) -> None:
        book.run(lambda tx: heartbeats.beat(tx.session, name, tx.now))

    for name in ("maewol.charge@old-pod", "maewol.tick.reconcile"):
        beat(name)
    clock.move(days=31)
    beat("maewol.charge@new-pod")
    assert prune(book, policy, 0, None).hosts > 0
    names = [row[0] for row in query(book, "SELECT name FROM heartbeats")]
    assert [name for name in names if "@" in name] == ["maewol.charge@new-pod"]
    assert "maewol.tick.reconcile" in names


def test_by_a_clock_that_is_far_off_nothing_is_old_enough(world: World, tmp_path: Path) -> None:
    """Two years ahead for one tick: what an archive takes, no rule and no fact sees again."""
    world.book.run(lambda tx: heartbeats.beat(tx.session, "maewol.charge@pod", tx.now))
    before = lines(world)
    world.clock.move(days=730)
    note = "UPDATE gateway_health SET clock_skew = :skew, skew_checked_at = :now"
    execute(world.book, note, skew=timedelta(days=-730), now=world.clock.now)
    assert prune(world.book, world.policy, MONTHS, tmp_path) == Pruned(0, 0, 0)
    assert would_prune(world.book, world.policy, MONTHS) == 0
    assert lines(world) == before
    assert list(tmp_path.iterdir()) == []
    execute(world.book, note, skew=timedelta(0), now=world.clock.now)
    assert would_prune(world.book, world.policy, MONTHS) > 0
    assert prune(world.book, world.policy, MONTHS, None).hosts > 0


@pytest.mark.parametrize("months", [1, 2])
def test_a_retention_that_cuts_into_open_questions_is_refused(months: int) -> None:
    with pytest.raises(InvalidSetting, match="RETENTION_MONTHS"):
        Settings.load(retention_months=months)
    assert Settings.load(retention_months=0).retention_months == 0


def test_it_stops_when_its_time_is_over(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_events, "REMOVE_EVENTS", 10)
    turns = iter([True] * 6)
    done = prune(world.book, world.policy, MONTHS, tmp_path, going_on=lambda: next(turns, False))
    assert 0 < done.removed < done.archived
    assert broken(world.book, world.policy) == []
