"""Figures for whoever watches, to the row and to the moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import pytest

from billing.domain.policy import BillingPolicy
from billing.store import events, gauges
from billing.store.gauges import Duration, Told
from billing.store.session import Book
from tests.builders import execute, query, rows_read
from tests.conftest import MovedClock
from tests.plant import numbered_apart, one_more, paid, plant, refund, settled

MOMENT = timedelta(microseconds=1)
DAY = timedelta(days=1)


@pytest.fixture
def kept(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> Book:
    """Subscribers 1 to 3 with open cycles 11 to 13, which close a day apart, and due attempts 21 to
    23, which are ready; 4 is due later. Nothing guards the book any more."""
    numbered_apart(book, make_policy(), "2026-10-18", "2026-10-19", "2026-10-20", "2026-10-28")
    execute(book, "UPDATE attempts SET planned_at = :now, ready_at = :now", now=clock.now)
    execute(book, "UPDATE cycles SET closes_at = :now", now=clock.now + 2 * DAY)
    return book


def planted(book: Book, *statements: str) -> None:
    with book.transaction() as tx:
        plant(tx, tx.now, statements)


def waiting(book: Book, clock: MovedClock) -> dict[str, Any]:
    """Every figure that is not nought."""
    with book.transaction() as tx:
        found = asdict(gauges.waiting(tx.session, clock.now, DAY))
    return {name: value for name, value in found.items() if value}


USUAL = {"due": 3, "ready": 3, "open": 3}


def test_what_waits_of_attempts(kept: Book, clock: MovedClock) -> None:
    assert waiting(kept, clock) == USUAL
    execute(kept, "UPDATE attempts SET ready_at = :at WHERE id = 22", at=clock.now + MOMENT)
    execute(kept, "UPDATE attempts SET planned_at = :at WHERE id = 22", at=clock.now - 3 * DAY)
    execute(kept, "UPDATE attempts SET planned_at = :at WHERE id = 21", at=clock.now - DAY)
    execute(kept, "UPDATE attempts SET dispatched_at = :at WHERE id = 21", at=clock.now)
    expected = {**USUAL, "ready": 2, "oldest_ready_seconds": 86400.0, "outstanding": 1}
    assert waiting(kept, clock) == expected
    # What is no longer due is neither ready nor the oldest, though it was both.
    planted(kept, "UPDATE attempts SET status = 'sending' WHERE id = 21")
    expected = {"due": 2, "ready": 1, "open": 3, "outstanding": 1, "sending": 1}
    assert waiting(kept, clock) == expected
    planted(kept, "UPDATE attempts SET status = 'unknown' WHERE id = 21")
    assert waiting(kept, clock) == {"due": 2, "ready": 1, "open": 3, "unknown": 1}
    planted(kept, settled(21, "approved"))
    assert waiting(kept, clock) == {"due": 2, "ready": 1, "open": 3}


def test_what_waits_of_months(kept: Book, clock: MovedClock) -> None:
    closing = {11: clock.now, 12: clock.now + MOMENT, 13: clock.now + DAY}
    for cycle, at in closing.items():
        execute(kept, "UPDATE cycles SET closes_at = :at WHERE id = :id", at=at, id=cycle)
    assert waiting(kept, clock) == {**USUAL, "closing_soon": 2}
    execute(kept, "UPDATE cycles SET closes_at = :at WHERE id = 13", at=clock.now + DAY + MOMENT)
    planted(kept, "UPDATE cycles SET held = 'unconfirmed' WHERE id IN (12, 13)")
    # What waits for a person is not what a worker should have taken long ago.
    execute(kept, "UPDATE attempts SET planned_at = :at WHERE id = 23", at=clock.now - DAY)
    assert waiting(kept, clock) == {**USUAL, "ready": 1, "closing_soon": 1, "held": 2}
    planted(kept, paid(12, 22))
    assert waiting(kept, clock) == {**USUAL, "ready": 2, "open": 2, "held": 1}


def test_what_should_have_been_opened(kept: Book, clock: MovedClock) -> None:
    due = "UPDATE subscriptions SET next_due_at = :at WHERE id = :id"
    execute(kept, due, at=clock.now, id=3)
    assert waiting(kept, clock) == USUAL
    execute(kept, due, at=clock.now - DAY, id=2)
    execute(kept, due, at=clock.now - 2 * DAY, id=1)
    execute(kept, "UPDATE subscriptions SET status = 'paused' WHERE id = 1")
    assert waiting(kept, clock) == {**USUAL, "oldest_unopened_seconds": 86400.0}


def test_what_else_waits(kept: Book, clock: MovedClock) -> None:
    notice = (
        "INSERT INTO notices (subscription_id, kind, data, created_at, next_try_at, give_up_at,"
        " delivered_at, dead_at) VALUES (1, 'x', '{}', :now, :now, :now, "
    )
    webhook = (
        "INSERT INTO webhooks (imp_uid, received_at, look_at, looked_at, outcome)"
        " VALUES ('imp', :now, :now, "
    )
    differs = (
        "INSERT INTO ledger_differences (key, kind, at, first_seen_at, last_seen_at, resolved_at)"
    )
    planted(
        kept,
        f"{notice} NULL, NULL)",
        *[f"{notice} :now, NULL)"] * 4,
        *[f"{notice} NULL, :now)"] * 2,
        f"{webhook} NULL, NULL)",
        *[f"{webhook} :now, 'agrees')"] * 2,
        f"{differs} VALUES ('1', 'double', :now, :now, :now, NULL)",
        *(f"{differs} VALUES ('{key}', 'double', :now, :now, :now, :now)" for key in (2, 3)),
        *(refund(21, status) for status in ("requested", "sending", "unknown", "done", "refused")),
    )
    others = {"differences": 1, "refunds": 3, "notices": 1, "dead_notices": 2, "webhooks": 1}
    assert waiting(kept, clock) == {**USUAL, **others}


def event(
    kind: str, *, cycle: int = 0, attempt: int = 0, data: str = "{}", alarm: bool = False
) -> str:
    return (
        "INSERT INTO events (at, kind, cycle_id, attempt_id, data, alarm) VALUES (:now,"
        f" '{kind}', nullif({cycle}, 0), nullif({attempt}, 0), '{data}', {alarm})"
    )


def newest(book: Book) -> int:
    return int(query(book, "SELECT max(id) FROM events")[0][0])


def test_what_lines_tell_of(kept: Book) -> None:
    before = newest(kept)
    planted(
        kept,
        event("cycle.paid", cycle=11),
        event("cycle.paid", cycle=12),
        event("cycle.opened", cycle=13),
        event("attempt.declined", cycle=13, data='{"class": "not_today"}'),
        event("attempt.declined", data='{"class": "again_soon"}', alarm=True),
        event("attempt.declined", data='{"class": "again_soon"}'),
        event("cycle.paid", cycle=13),
    )

    def told(after: int, up_to: int) -> set[Told]:
        with kept.transaction() as tx:
            found = gauges.told(tx.session, after, up_to)
        assert len(set(found)) == len(found)
        return set(found)

    assert told(before, before + 6) == {
        Told("cycle.paid", "", False, 2, 1001 + 1002),
        Told("cycle.opened", "", False, 1, 0),
        Told("attempt.declined", "not_today", False, 1, 0),
        Told("attempt.declined", "again_soon", True, 1, 0),
        Told("attempt.declined", "again_soon", False, 1, 0),
    }
    assert told(before + 1, before + 2) == {Told("cycle.paid", "", False, 1, 1002)}
    assert told(before + 7, before + 9) == set()


def test_what_was_told_lately_is_found_without_reading_all_that_ever_was(
    kept: Book, clock: MovedClock
) -> None:
    """Each alarm lies on a page of its own: of the 100,000 of a big book that takes a second, and
    from a cold disk longer than a statement may."""
    at = clock.now
    long_ago = "INSERT INTO events (at, kind, data, alarm) SELECT :at, 'a', '{}', true"
    execute(kept, f"{long_ago} FROM generate_series(1, 6000)", at=at - 2 * DAY)
    now = "INSERT INTO events (at, kind, data, alarm) SELECT :at, 'a', to_jsonb(g), true"
    execute(kept, f"{now} FROM generate_series(1, 600) g", at=at)
    execute(kept, "INSERT INTO events (at, kind, data) VALUES (:at, 'a', '0')", at=at)
    planted(kept, event("b", alarm=True))
    execute(kept, "ANALYZE events")
    with kept.transaction() as tx:
        before = rows_read(tx)
        found = events.told_lately(tx.session, "a", at + DAY, DAY)
        assert sorted(found) == list(range(1, 601))
        assert events.told_lately(tx.session, "a", at + DAY + MOMENT, DAY) == []
        assert (rows_read(tx) - before)["events"] <= 2500


@pytest.mark.parametrize(("days", "lately"), [(-2, False), (-1, True), (1, True), (2, False)])
def test_what_was_told_in_a_leap_of_the_clock_silences_nothing_until_then(
    kept: Book, clock: MovedClock, days: int, lately: bool
) -> None:
    told = "INSERT INTO events (at, kind, subscription_id, data, alarm)"
    execute(kept, f"{told} VALUES (:at, 'a', 1, '7', true)", at=clock.now + days * DAY)
    with kept.transaction() as tx:
        assert events.told_lately(tx.session, "a", clock.now, DAY) == [7] * lately
        assert events.was_told_of(tx.session, 1, "a", clock.now, DAY) is lately


def test_alarms_are_counted_from_the_newest_on_as_far_as_they_are_recent(
    kept: Book, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alarms(since: datetime) -> dict[str, int]:
        with kept.transaction() as tx:
            return gauges.alarms(tx.session, since, clock.now)

    began = clock.now
    for number in range(8):
        clock.move_to(began + timedelta(seconds=number))
        planted(kept, event("ab"[number % 2], alarm=True), event("c"))
    # Seconds 0, 2, 4, 6 told "a", the others "b".
    assert alarms(began - MOMENT) == {"a": 4, "b": 4}
    assert alarms(began) == {"a": 3, "b": 4}
    for at_once in (1, 2, 3, 4, 5):
        monkeypatch.setattr(gauges, "ALARMS_AT_ONCE", at_once)
        assert alarms(began - MOMENT) == {"a": 4, "b": 4}
        assert alarms(began + timedelta(seconds=3)) == {"a": 2, "b": 2}
        assert alarms(clock.now) == {}
    # At most so many are looked at.
    monkeypatch.setattr(gauges, "ALARMS_AT_ONCE", 2)
    monkeypatch.setattr(gauges, "MOST_ALARMS", 4)
    assert alarms(began - MOMENT) == {"a": 2, "b": 2}
    # Nothing recent among so many: what lies before is not read.
    execute(kept, "UPDATE events SET at = :at WHERE alarm", at=began)
    execute(
        kept,
        "UPDATE events SET at = :at WHERE id = (SELECT min(id) FROM events WHERE alarm)",
        at=clock.now,
    )
    monkeypatch.setattr(gauges, "MOST_ALARMS", 100)
    assert alarms(began) == {}
    monkeypatch.setattr(gauges, "ALARMS_AT_ONCE", 8)
    assert alarms(began) == {"a": 1}


def test_an_alarm_that_was_told_in_a_leap_of_the_clock_is_not_recent_until_then(
    kept: Book, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it hide those before it, however many there are."""
    monkeypatch.setattr(gauges, "ALARMS_AT_ONCE", 2)
    planted(kept, event("a", alarm=True))
    right = clock.now
    clock.move_to(right + 40 * DAY)
    planted(kept, *(event("b", alarm=True) for _ in range(4)))
    clock.move_to(right)
    with kept.transaction() as tx:
        assert gauges.alarms(tx.session, tx.now - MOMENT, tx.now + MOMENT) == {"a": 1}


def test_how_long_attempts_took_from_their_claim_to_their_record(kept: Book) -> None:
    seconds = {31: 0.05, 32: 0.1, 33: 0.2, 34: 299.0, 35: 300.0, 36: -5.0}
    before = newest(kept)
    planted(
        kept,
        *(one_more(attempt, 11, "approved") for attempt in (*seconds, 37, 38)),
        *(event("attempt.approved", attempt=attempt) for attempt in (31, 32, 33)),
        *(event("attempt.declined", attempt=attempt) for attempt in (34, 35)),
        event("attempt.unknown", attempt=35),
        event("attempt.approved", attempt=37),
        event("attempt.approved", attempt=36),
        event("attempt.approved", attempt=38),
        "UPDATE attempts SET sent_at = NULL WHERE id = 37",
    )
    for attempt, took in seconds.items():
        execute(
            kept,
            "UPDATE attempts SET sent_at = e.at - make_interval(secs => :took) FROM events e"
            " WHERE e.attempt_id = attempts.id AND attempts.id = :id",
            took=took,
            id=attempt,
        )

    def durations(after: int, up_to: int) -> list[tuple[int, int, float]]:
        with kept.transaction() as tx:
            found: list[Duration] = list(gauges.durations(tx.session, after, up_to))
        return sorted((one.number, one.attempts, round(one.seconds, 3)) for one in found)

    assert durations(before, before + 7) == [
        (0, 1, 0.05),
        (1, 2, 0.3),
        (9, 1, 299.0),
        (10, 1, 300.0),
    ]
    assert durations(before + 1, before + 2) == [(1, 1, 0.1)]
    assert durations(before + 7, before + 8) == [(0, 1, 0.0)], "a clock that jumped back"


@pytest.mark.parametrize(
    ("number", "end"),
    list(enumerate((0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0))),
)
def test_the_classes_that_watchers_count_in(kept: Book, number: int, end: float) -> None:
    """Whoever draws them over months relies on their ends."""
    before = newest(kept)
    planted(kept, one_more(31, 11, "approved"), *[event("attempt.approved", attempt=31)] * 2)
    took = "UPDATE events SET at = a.sent_at + make_interval(secs => :took) FROM attempts a"
    for line, seconds in enumerate((end - 0.001, end), before + 1):
        execute(kept, f"{took} WHERE a.id = 31 AND events.id = :line", took=seconds, line=line)
    with kept.transaction() as tx:
        found = gauges.durations(tx.session, before, before + 2)
    assert sorted((one.number, one.attempts) for one in found) == [(number, 1), (number + 1, 1)]
