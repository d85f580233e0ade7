"""The event log and the outbox: what is written when, and what is found again of alarms."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import text

from billing.domain.delivery import TRIED_FOR
from billing.domain.notice import Resumed
from billing.store import events
from billing.store.session import Book, Transaction
from tests.builders import as_owner, query
from tests.conftest import MovedClock

MOMENT = timedelta(microseconds=1)
DAY = timedelta(days=1)


def told(book: Book, *alarms: tuple[str, datetime, int], alarm: bool = True) -> None:
    """A line of each: its kind, its moment, and the subscription that it tells of."""
    with book.transaction() as tx:
        for kind, at, number in alarms:
            data = {"seconds": number}
            events.add(tx.session, at=at, kind=kind, subscription_id=number, data=data, alarm=alarm)


def lately(book: Book, clock: MovedClock, kind: str = "clock.skewed") -> list[Any]:
    with book.transaction() as tx:
        return [one["seconds"] for one in events.told_lately(tx.session, kind, clock.now, DAY)]


# -- writing --------------------------------------------------------------------------------------


def test_lines_and_notices_are_written_in_their_order_as_the_transaction_ends(
    book: Book, clock: MovedClock
) -> None:
    later = clock.now + DAY
    with book.transaction() as tx:
        events.add(tx.session, at=later, kind="clock.skewed", alarm=True)
        events.add(
            tx.session,
            at=clock.now,
            kind="cycle.opened",
            subscription_id=1,
            cycle_id=2,
            attempt_id=lambda: 3,
            data={"won": 9900},
        )
        events.notify(tx.session, at=later, subscription_id=1, news=Resumed(before="b"))
        events.notify(tx.session, at=clock.now, subscription_id=None, news=Resumed(before="a"))
        for table in ("events", "notices"):
            assert tx.session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0
    assert query(
        book,
        "SELECT at, kind, subscription_id, cycle_id, attempt_id, data, alarm FROM events"
        " ORDER BY id",
    ) == [
        (later, "clock.skewed", None, None, None, {}, True),
        (clock.now, "cycle.opened", 1, 2, 3, {"won": 9900}, False),
    ]
    assert query(
        book,
        "SELECT subscription_id, kind, data, created_at, next_try_at, give_up_at, tries"
        " FROM notices ORDER BY id",
    ) == [
        (1, "subscription.resumed", {"before": "b"}, later, later, later + TRIED_FOR, 0),
        (
            None,
            "subscription.resumed",
            {"before": "a"},
            clock.now,
            clock.now,
            clock.now + TRIED_FOR,
            0,
        ),
    ]


def test_an_attempt_is_written_before_the_line_asks_for_its_id(book: Book) -> None:
    flushed: list[int] = []
    with book.transaction() as tx, patch.object(tx.session, "flush", lambda: flushed.append(1)):
        events.add(tx.session, at=tx.now, kind="clock.skewed", attempt_id=lambda: len(flushed))
        events.write(tx.session)
        assert not tx.session.info.get("events"), "what was written is not written again"
    assert query(book, "SELECT attempt_id FROM events") == [(1,)]


def test_the_newest_number_counts_archived_events_too(book: Book) -> None:
    def newest() -> int:
        with book.transaction() as tx:
            return events.newest(tx.session)

    assert newest() == 0
    with book.transaction() as tx:
        events.add(tx.session, at=tx.now, kind="clock.skewed")
    ((number,),) = query(book, "SELECT id FROM events")
    assert newest() == number
    with book.transaction() as tx, as_owner(tx):
        tx.session.execute(text("ALTER TABLE event_seals DISABLE TRIGGER ALL"))
        tx.session.execute(
            text(
                "INSERT INTO event_seals (number, after_id, up_to_id, events, digest, sealed_at)"
                " VALUES (1, 0, :up_to, 1, decode(repeat('ab', 32), 'hex'), now())"
            ),
            {"up_to": number + 7},
        )
    assert newest() == number + 7


# -- finding again --------------------------------------------------------------------------------


def test_an_alarm_was_told_lately_from_either_side(book: Book, clock: MovedClock) -> None:
    now = clock.now
    told(
        book,
        ("clock.skewed", now - DAY - MOMENT, 1),
        ("clock.skewed", now - DAY, 2),
        ("gateway.down", now, 3),
        ("clock.skewed", now + DAY, 4),
        ("clock.skewed", now + DAY + MOMENT, 5),
    )
    told(book, ("clock.skewed", now, 6), alarm=False)
    assert sorted(lately(book, clock)) == [2, 4]
    assert lately(book, clock, "receiver.down") == []


def test_alarms_are_read_until_none_of_so_many_is_recent(book: Book, clock: MovedClock) -> None:
    now = clock.now
    told(
        book,
        ("clock.skewed", now, 1),
        *[("clock.skewed", now - 2 * DAY, 0)] * 2,
        ("clock.skewed", now - DAY, 2),
    )
    told(book, ("clock.skewed", now, 3), ("gateway.down", now, 4), ("clock.skewed", now, 5))
    with patch.object(events, "_ALARMS_AT_ONCE", 2):
        # The page with the second one's old neighbour is read, and the page before is not.
        assert sorted(lately(book, clock)) == [2, 3, 5]
    with patch.object(events, "_ALARMS_AT_ONCE", 7):
        assert sorted(lately(book, clock)) == [1, 2, 3, 5]
    # Another kind at the very edge is recent, too: those before it may be.
    told(book, ("gateway.down", now - DAY, 6))
    with patch.object(events, "_ALARMS_AT_ONCE", 1):
        assert sorted(lately(book, clock)) == [2, 3, 5]


def test_an_alarm_is_not_told_again_within_its_time(book: Book, clock: MovedClock) -> None:
    def alarm() -> None:
        with book.transaction() as tx:
            events.alarm_unless_told(
                tx.session, at=tx.now, kind="clock.skewed", data={"seconds": 1}, within=DAY
            )

    alarm()
    clock.move_to(clock.now + DAY)
    alarm()
    assert query(book, "SELECT kind, data, alarm FROM events") == [
        ("clock.skewed", {"seconds": 1}, True)
    ]
    clock.move_to(clock.now + MOMENT)
    alarm()
    assert query(book, "SELECT count(*) FROM events WHERE at = :at", at=clock.now) == [(1,)]


def test_whether_an_alarm_told_of_a_subscription(book: Book, clock: MovedClock) -> None:
    def was_told(number: int, kind: str = "clock.skewed") -> bool:
        with book.transaction() as tx:
            return events.was_told_of(tx.session, number, kind, clock.now, DAY)

    now = clock.now
    told(
        book,
        ("clock.skewed", now - DAY - MOMENT, 1),
        ("clock.skewed", now - DAY, 2),
        ("clock.skewed", now + DAY, 3),
        ("clock.skewed", now + DAY + MOMENT, 4),
        ("gateway.down", now, 5),
    )
    told(book, ("clock.skewed", now, 6), alarm=False)
    assert [number for number in range(8) if was_told(number)] == [2, 3]
    assert was_told(5, "gateway.down")


def test_whether_all_was_ever_held_for_a_reason(book: Book, clock: MovedClock) -> None:
    def was_held(why: str) -> bool:
        return book.run(lambda tx: events.was_held_for(tx.session, why))

    def line(tx: Transaction, kind: str, why: str, *, alarm: bool = True) -> None:
        events.add(tx.session, at=tx.now, kind=kind, data={"why": why}, alarm=alarm)

    with book.transaction() as tx:
        line(tx, "charging.held", "first")
        line(tx, "charging.held", "second")
        line(tx, "charging.released", "third")
        line(tx, "charging.held", "fourth", alarm=False)
    assert [why for why in ("first", "second", "third", "fourth") if was_held(why)] == [
        "first",
        "second",
    ]


@pytest.mark.parametrize("kind", ["resumed", "suspended", "cancelled"])
def test_who_was_paused_at_a_moment(book: Book, clock: MovedClock, kind: str) -> None:
    """By the last line of a status that was written then; the order of lines decides."""
    at = clock.now

    def line(subscription_id: int | None, what: str, moment: datetime) -> None:
        with book.transaction() as tx:
            events.add(
                tx.session,
                at=moment,
                kind=f"subscription.{what}",
                subscription_id=subscription_id,
            )

    line(1, "paused", at)
    line(1, kind, at + MOMENT)
    line(2, "paused", at + MOMENT)
    line(3, "paused", at - DAY)
    line(3, kind, at)
    line(4, kind, at)
    line(4, "paused", at)
    line(4, "forgotten", at)
    line(5, "paused", at)
    line(None, "paused", at)
    with book.transaction() as tx:
        found = events.paused_then(tx.session, dict.fromkeys((1, 2, 3, 4, 6), at))
        assert found == {1, 4}
        assert events.paused_then(tx.session, {1: at, 2: at + MOMENT}) == {1, 2}
