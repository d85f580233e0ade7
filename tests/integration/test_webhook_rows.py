"""Webhooks in the book, to the row: what is kept of a flood, what is taken when, what may go."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from billing.domain.policy import BillingPolicy
from billing.domain.webhook import Announcement, WebhookOutcome
from billing.store import webhooks
from billing.store.session import Book
from billing.store.waiting import LONGEST_WAIT
from billing.store.webhooks import Waiting
from tests.builders import execute, query
from tests.conftest import MovedClock
from tests.plant import numbered_apart, paid, plant, settled

MOMENT = timedelta(microseconds=1)
NOVEMBER = date(2026, 11, 1)


@pytest.fixture
def kept(book: Book, make_policy: Callable[..., BillingPolicy]) -> Book:
    """Subscribers 1 to 3 with November's cycles 11 to 13 and due attempts 21 to 23. Nothing but the
    webhooks' own table guards the book any more."""
    numbered_apart(book, make_policy(), "2026-10-18", "2026-10-19", "2026-10-20", "2026-10-28")
    execute(book, "UPDATE attempts SET merchant_uid = 'ours-' || id")
    return book


def keep(
    book: Book, clock: MovedClock, imp_uid: str, name: str | None = None, status: str | None = None
) -> bool:
    with book.transaction() as tx:
        return webhooks.keep(tx.session, clock.now, Announcement(imp_uid, name, status))


def rows(book: Book, columns: str) -> list[tuple[Any, ...]]:
    return query(book, f"SELECT {columns} FROM webhooks ORDER BY id")


def test_what_comes_twice_is_counted_and_kept_once(kept: Book, clock: MovedClock) -> None:
    first = clock.now
    assert keep(kept, clock, "imp_1", None, "paid")
    assert keep(kept, clock, "imp_2", "b", "paid")
    clock.move(seconds=1)
    assert keep(kept, clock, "imp_1", "a", "paid")
    assert keep(kept, clock, "imp_2", "c", "cancelled")
    columns = "imp_uid, merchant_uid, claimed_status, times, received_at, look_at"
    assert rows(kept, columns) == [
        ("imp_1", "a", "paid", 2, first, first),
        ("imp_2", "b", None, 2, first, first),
    ]
    execute(kept, "UPDATE webhooks SET looked_at = :now, outcome = 'agrees'", now=clock.now)
    assert keep(kept, clock, "imp_1", "a", "cancelled")
    assert rows(kept, "imp_uid, claimed_status, times")[2:] == [("imp_1", "cancelled", 1)]


def test_a_flood_of_others_keeps_out_neither_ours_nor_what_waits_already(
    kept: Book, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MOST_WAITING", 2)
    assert keep(kept, clock, "other-0")
    execute(kept, "UPDATE webhooks SET looked_at = :now, outcome = 'stranger'", now=clock.now)
    assert [keep(kept, clock, f"other-{number}") for number in (1, 2, 3)] == [True, True, False]
    assert keep(kept, clock, "other-1"), "it is counted, not kept"
    assert not keep(kept, clock, "other-0"), "that one was looked at, and does not wait"
    assert not keep(kept, clock, "other-4", "theirs")
    assert keep(kept, clock, "other-5", "ours-21")
    assert keep(kept, clock, "other-6", "ours-22")
    assert not keep(kept, clock, "other-7", "ours-23"), "a flood of ours has an end, too"
    assert [uid for (uid,) in rows(kept, "imp_uid")] == [
        f"other-{number}" for number in (0, 1, 2, 5, 6)
    ]


def test_what_says_what_the_book_knows_is_ended_unseen(kept: Book, clock: MovedClock) -> None:
    with kept.transaction() as tx:
        of_cycles = [(11, 21, "paid"), (12, 22, "paid"), (13, 23, "refunded")]
        for cycle, attempt, status in of_cycles:
            plant(tx, tx.now, (settled(attempt, "approved"), paid(cycle, attempt, status)))
    for number, status in ((21, "paid"), (22, "cancelled"), (23, "paid"), (24, "paid")):
        keep(kept, clock, f"imp_{number}", None, status)

    def settle(most: int = 9) -> int:
        with kept.transaction() as tx:
            return webhooks.settle_agreeing(tx.session, clock.now, most)

    assert settle() == 1
    expected = [("imp_21", clock.now, "agrees"), *((f"imp_{n}", None, None) for n in (22, 23, 24))]
    assert rows(kept, "imp_uid, looked_at, outcome") == expected
    clock.move(seconds=1)
    assert settle() == 0
    assert rows(kept, "imp_uid, looked_at, outcome") == expected
    keep(kept, clock, "imp_21", None, "paid")
    execute(kept, "UPDATE webhooks SET claimed_status = 'paid' WHERE imp_uid = 'imp_22'")
    assert settle(most=1) == 1
    with kept.transaction() as other:
        plant(other, other.now, ["SELECT FROM webhooks WHERE looked_at IS NULL FOR UPDATE"])
        assert settle() == 0, "somebody else has it in hand"
    with kept.transaction() as other:
        plant(other, other.now, ["SELECT FROM cycles FOR UPDATE"])
        assert settle() == 1, "a month that is worked on is only read"


def test_what_is_due_is_taken_ours_first_and_put_off(kept: Book, clock: MovedClock) -> None:
    again = clock.now + timedelta(minutes=1)

    def take(ours: int, others: int, at: datetime = clock.now) -> list[str]:
        with kept.transaction() as tx:
            due = webhooks.any_due(tx.session, at)
            found = webhooks.take(tx.session, at, again, ours, others)
        assert due == bool(found) or not ours + others
        return [one.imp_uid for one in found]

    assert take(9, 9) == []
    for number, name in enumerate((None, "theirs", "ours-21", "ours-22", None)):
        keep(kept, clock, f"imp_{number}", name)
    # The later ones have waited longer; one is not due yet, one was looked at.
    execute(kept, "UPDATE webhooks SET look_at = look_at - interval '1 s' WHERE imp_uid = 'imp_3'")
    execute(kept, "UPDATE webhooks SET look_at = look_at - interval '1 s' WHERE imp_uid = 'imp_1'")
    execute(
        kept,
        "UPDATE webhooks SET looked_at = :at, outcome = 'agrees' WHERE imp_uid = 'imp_4'",
        at=clock.now,
    )
    assert take(0, 0, clock.now - timedelta(seconds=1) - MOMENT) == []
    with kept.transaction() as other:
        plant(other, other.now, ["SELECT FROM webhooks WHERE imp_uid = 'imp_3' FOR UPDATE"])
        assert take(1, 1) == ["imp_2", "imp_1"], "what somebody has in hand is passed over"
    assert take(1, 1) == ["imp_3", "imp_0"]
    assert take(9, 9) == [], "they are put off"
    assert take(9, 9, again - MOMENT) == []
    assert take(9, 2, again) == ["imp_2", "imp_3", "imp_0", "imp_1"]
    assert rows(kept, "looks") == [(0,)] * 5


def test_what_a_clock_far_ahead_put_off_is_taken_now(kept: Book, clock: MovedClock) -> None:
    keep(kept, clock, "imp_1")
    keep(kept, clock, "imp_2")
    later = clock.now + LONGEST_WAIT
    execute(kept, "UPDATE webhooks SET look_at = :at", at=later)
    with kept.transaction() as tx:
        assert not webhooks.any_due(tx.session, clock.now)
        assert webhooks.take(tx.session, clock.now, later, 9, 9) == []
    execute(kept, "UPDATE webhooks SET look_at = :at WHERE imp_uid = 'imp_2'", at=later + MOMENT)
    with kept.transaction() as tx:
        assert webhooks.any_due(tx.session, clock.now)
        taken = webhooks.take(tx.session, clock.now, later, 9, 9)
    assert [one.imp_uid for one in taken] == ["imp_2"]


def test_looks_are_counted_and_an_end_is_written_once(kept: Book, clock: MovedClock) -> None:
    keep(kept, clock, "imp_1")
    keep(kept, clock, "imp_2")
    later = clock.now + timedelta(minutes=1)
    with kept.transaction() as tx:
        webhooks.put_off(tx.session, 1, later)
    state = "look_at, looks, looked_at, outcome"
    assert rows(kept, state) == [(later, 1, None, None), (clock.now, 0, None, None)]
    with kept.transaction() as tx:
        (taken,) = webhooks.take(tx.session, later, later, 0, 1)[:1]
        assert taken == Waiting(2, "imp_2", 0, 1)
        first = Waiting(1, "imp_1", 1, 1)
        assert webhooks.take(tx.session, later, later, 0, 2)[0] == first
        assert webhooks.finish(tx.session, clock.now, first, WebhookOutcome.COUNTED)
    # Ended once: a later look changes nothing of it.
    with kept.transaction() as tx:
        assert webhooks.finish(tx.session, later, first, WebhookOutcome.STRANGER) is False
        webhooks.put_off(tx.session, 1, clock.now)
        webhooks.give_back(tx.session, clock.now, [1])
    assert rows(kept, state) == [
        (later, 1, clock.now, "counted"),
        (later, 0, None, None),
    ]


def test_what_is_announced_again_since_it_was_taken_does_not_end(
    kept: Book, clock: MovedClock
) -> None:
    keep(kept, clock, "imp_1")
    keep(kept, clock, "imp_2")
    later = clock.now + timedelta(minutes=5)
    with kept.transaction() as tx:
        one, _ = webhooks.take(tx.session, clock.now, later, 0, 2)
    keep(kept, clock, "imp_1")
    clock.move(seconds=1)
    with kept.transaction() as tx:
        assert not webhooks.finish(tx.session, clock.now, one, WebhookOutcome.AGREES)
    assert rows(kept, "look_at, times, looked_at, outcome") == [
        (clock.now, 2, None, None),
        (later, 1, None, None),
    ]


@pytest.mark.parametrize("status", ["sending", "unknown"])
def test_the_attempt_whose_request_may_be_on_its_way(kept: Book, status: str) -> None:
    def live(name: str, subscription: int | None, month: date = NOVEMBER) -> int | None:
        with kept.transaction() as tx:
            found = webhooks.live_attempt(tx.session, name, subscription, month)
            return None if found is None else found.id

    assert live("ours-21", 1) is None, "it is due, and was not sent"
    execute(kept, f"UPDATE attempts SET status = '{status}' WHERE id IN (21, 22)")
    assert live("ours-21", None) == 21
    assert live("ours-21", 2) == 21, "its name says more than its month"
    assert live("theirs", None) is None
    assert live("theirs", 2) == 22
    assert live("theirs", 3) is None
    assert live("theirs", 2, date(2026, 12, 1)) is None


def test_the_old_ones_go_those_of_no_interest_sooner(kept: Book, clock: MovedClock) -> None:
    month, day = timedelta(days=30), timedelta(days=1)
    ages = [
        # How long ago it came, what became of it, and whether it may go.
        (month, "counted", False),
        (month + MOMENT, "counted", True),
        (month + MOMENT, None, False),
        (day - MOMENT, "stranger", False),
        (day, "stranger", True),
        (day, "not_found", True),
        (day, "agrees", False),
        (2 * day, "stranger", True),
        # Beyond the day that is looked through: it goes with the others, after a month.
        (2 * day + MOMENT, "stranger", False),
    ]
    for number, (age, outcome, _) in enumerate(ages):
        execute(
            kept,
            "INSERT INTO webhooks (imp_uid, received_at, look_at, looked_at, outcome) VALUES (:uid,"
            " :at, :at, CASE WHEN CAST(:outcome AS text) IS NULL THEN NULL ELSE CAST(:at AS"
            " timestamptz) END, :outcome)",
            uid=str(number),
            at=clock.now - age,
            outcome=outcome,
        )

    def prune(most: int) -> int:
        with kept.transaction() as tx:
            return webhooks.prune(tx.session, clock.now, month, day, most)

    going = sum(goes for _, _, goes in ages)
    assert prune(1) == 2
    assert prune(9) == going - 2
    assert prune(9) == 0
    stays = [(str(number),) for number, (_, _, goes) in enumerate(ages) if not goes]
    assert rows(kept, "imp_uid") == stays
