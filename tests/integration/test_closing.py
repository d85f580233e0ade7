"""How a month ends without a payment: at which moment, with which verdict, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from billing.domain.policy import BillingPolicy
from billing.services import close_cycles as closing
from billing.services.change_status import cancel, pause
from billing.services.close_cycles import anything_ends, close_cycles
from billing.services.hold import hold
from billing.services.open_cycles import open_ahead, open_cycles
from billing.store.session import Book
from tests.builders import execute, query, subscribed
from tests.conftest import MovedClock

MOMENT = timedelta(microseconds=1)
SENDING = "status = 'sending', sent_at = planned_at, lease_until = planned_at"
UNKNOWN = "status = 'unknown', sent_at = planned_at"
DECLINED = "status = 'declined', decline_class = 'x', settled_at = planned_at"


@pytest.fixture
def opened(book: Book, policy: BillingPolicy) -> Book:
    """One subscriber with an open month and its first attempt due."""
    subscribed(book, policy)
    assert open_cycles(book, policy) == 1
    return book


def closes(book: Book) -> datetime:
    """When the first month closes, open already or not."""
    found = query(book, "SELECT closes_at FROM cycles ORDER BY id LIMIT 1") or query(
        book, "SELECT next_closes_at FROM subscriptions ORDER BY id LIMIT 1"
    )
    moment: datetime = found[0][0]
    return moment


def months(book: Book) -> list[tuple[Any, ...]]:
    return query(book, "SELECT status, reason FROM cycles ORDER BY id")


def people(book: Book) -> list[tuple[Any, ...]]:
    return query(book, "SELECT status, status_reason FROM subscriptions ORDER BY id")


def something_ends(book: Book, policy: BillingPolicy) -> bool:
    return book.run(lambda tx: anything_ends(tx, policy))


def lines(book: Book, kind: str) -> list[tuple[Any, ...]]:
    return query(
        book,
        "SELECT at, subscription_id, cycle_id, attempt_id, data, alarm FROM events"
        " WHERE kind = :kind ORDER BY id",
        kind=kind,
    )


def notices(book: Book, kind: str) -> list[tuple[Any, ...]]:
    """Whom a notice is about, and what it tells."""
    return query(
        book, "SELECT subscription_id, data FROM notices WHERE kind = :kind ORDER BY id", kind=kind
    )


# -- when ---------------------------------------------------------------------------------------


def test_a_month_ends_at_the_moment_it_closes(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    clock.move_to(closes(opened) - MOMENT)
    # Only warned of.
    assert close_cycles(opened, policy) == 0
    assert not something_ends(opened, policy)
    assert months(opened) == [("open", None)]
    clock.move(microseconds=1)
    assert something_ends(opened, policy)
    assert close_cycles(opened, policy) == 1
    assert months(opened) == [("missed", "not_attempted")]
    assert not something_ends(opened, policy)
    assert close_cycles(opened, policy) == 0


@pytest.mark.parametrize("live", [SENDING, UNKNOWN])
def test_what_may_have_been_charged_keeps_its_own_month_open_for_two_days(
    book: Book, policy: BillingPolicy, clock: MovedClock, live: str
) -> None:
    subscribed(book, policy, 2)
    assert open_cycles(book, policy) == 2
    execute(book, f"UPDATE attempts SET {live} WHERE cycle_id = 1")
    end = closes(book)
    clock.move_to(end)
    assert close_cycles(book, policy) == 1
    assert months(book) == [("open", None), ("missed", "not_attempted")]
    clock.move_to(end + timedelta(hours=48) - MOMENT)
    assert not something_ends(book, policy)
    assert close_cycles(book, policy) == 0
    clock.move(microseconds=1)
    assert something_ends(book, policy)
    assert close_cycles(book, policy) == 1
    assert months(book)[0] == ("missed", "unproven")
    # Its answer may still come, and counts then: it is not withdrawn.
    assert query(book, "SELECT status, settled_at FROM attempts WHERE cycle_id = 1") == [
        (live.split("'")[1], None)
    ]
    assert [attempt for _, _, _, attempt, _, _ in lines(book, "attempt.withdrawn")] == [2]


def test_more_than_a_batch_ends_at_once_and_all_are_counted(
    book: Book, policy: BillingPolicy, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Months that were open, and paused ones that passed."""
    monkeypatch.setattr(closing, "BATCH", 2)
    subscribed(book, policy, 8)
    for number in (6, 7, 8):
        pause(book, policy, f"customer-{number}")
    assert open_cycles(book, policy) == 5
    clock.move_to(closes(book))
    assert close_cycles(book, policy) == 8
    assert months(book) == [("missed", "not_attempted")] * 5 + [("skipped", "paused")] * 3
    assert people(book) == [("suspended", "chain_broken")] * 8


def test_months_that_close_together_end_in_the_order_in_which_they_were_opened(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    subscribed(book, policy, 3)
    for who in (3, 1):
        book.run(lambda tx, who=who: open_ahead(tx, policy, who, date(2026, 11, 1)))
    assert open_cycles(book, policy) == 1
    clock.move_to(closes(book))
    assert close_cycles(book, policy) == 3
    assert [about for _, about, *_ in lines(book, "cycle.missed")] == [3, 1, 2]


@pytest.mark.timeout(20)
def test_whom_somebody_works_on_keeps_nobody_waiting(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    subscribed(book, policy, 4)
    for number in (3, 4):
        pause(book, policy, f"customer-{number}")
    assert open_cycles(book, policy) == 2
    end = closes(book)
    with book.transaction() as tx:
        # Also its month, which is all that the warning locks.
        tx.session.execute(text("SELECT 1 FROM subscriptions WHERE id IN (1, 3) FOR UPDATE"))
        tx.session.execute(text("SELECT 1 FROM cycles WHERE subscription_id = 1 FOR UPDATE"))
        clock.move_to(end - timedelta(hours=1))
        assert close_cycles(book, policy) == 0
        assert [about for about, _ in notices(book, "payment.closing_soon")] == [2]
        clock.move_to(end)
        assert close_cycles(book, policy) == 2
    assert people(book) == [
        ("active", None),
        ("suspended", "chain_broken"),
        ("paused", None),
        ("suspended", "chain_broken"),
    ]
    assert close_cycles(book, policy) == 2


# -- why ----------------------------------------------------------------------------------------

VERDICTS = [
    # What is true of the subscription, of its month, and of its attempt; how the month ends.
    ({}, "missed", "not_attempted"),
    ({"attempt": DECLINED}, "missed", "declined"),
    ({"hold": True}, "missed", "held"),
    # Declined before it was held: more is known of it than that.
    ({"hold": True, "attempt": DECLINED}, "missed", "declined"),
    ({"held": "contradiction"}, "missed", "held"),
    ({"held": "contradiction", "attempt": DECLINED}, "missed", "held"),
    # What waits for its decline to be confirmed was declined, not held.
    ({"hold": True, "held": "unconfirmed", "attempt": DECLINED}, "missed", "declined"),
    ({"held": "contradiction", "attempt": UNKNOWN}, "missed", "unproven"),
    ({"paused": True}, "skipped", "paused"),
    ({"paused": True, "held": "contradiction"}, "skipped", "paused"),
    ({"paused": True, "attempt": DECLINED}, "skipped", "paused"),
    ({"paused": True, "attempt": UNKNOWN}, "missed", "unproven"),
    ({"status": "cancelled", "attempt": DECLINED}, "skipped", "cancelled"),
    ({"status": "cancelled", "held": "contradiction"}, "skipped", "cancelled"),
    ({"paused": True, "status": "cancelled"}, "skipped", "cancelled"),
    ({"status": "cancelled", "attempt": UNKNOWN}, "missed", "unproven"),
]


@pytest.mark.parametrize(("true", "status", "reason"), VERDICTS)
def test_a_month_says_why_it_was_not_paid(
    opened: Book,
    policy: BillingPolicy,
    clock: MovedClock,
    true: dict[str, Any],
    status: str,
    reason: str,
) -> None:
    end = closes(opened)
    if "attempt" in true:
        execute(opened, f"UPDATE attempts SET {true['attempt']}")
    if "paused" in true:
        pause(opened, policy, "customer-1")
    if "held" in true:
        execute(opened, "UPDATE cycles SET held = :why", why=true["held"])
    if "status" in true:
        execute(opened, "UPDATE subscriptions SET status = :status", status=true["status"])
    if "hold" in true:
        hold(opened, "a drill")
    clock.move_to(end + timedelta(hours=48))
    assert close_cycles(opened, policy) == 1
    assert months(opened) == [(status, reason)]


@pytest.mark.parametrize(
    ("status", "why"), [("suspended", "key_invalid"), ("cancelled", None), ("cancelled", "old")]
)
def test_whoever_is_not_charged_any_more_stays_what_he_is(
    opened: Book, policy: BillingPolicy, clock: MovedClock, status: str, why: str | None
) -> None:
    """The month ends; that it broke the chain is no news of one who has ended already."""
    execute(opened, "UPDATE subscriptions SET status = :s, status_reason = :w", s=status, w=why)
    clock.move_to(closes(opened))
    assert close_cycles(opened, policy) == 1
    assert people(opened) == [(status, why)]
    assert lines(opened, "subscription.suspended") == []
    assert notices(opened, "subscription.suspended") == []


# -- what is told -------------------------------------------------------------------------------


def test_a_missed_month_is_told_with_all_that_follows(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    execute(opened, "UPDATE attempts SET dispatched_at = planned_at")
    clock.move_to(closes(opened) + timedelta(minutes=1))
    assert close_cycles(opened, policy) == 1
    assert query(opened, "SELECT settled_at FROM cycles") == [(clock.now,)]
    assert query(opened, "SELECT status, settled_at, dispatched_at FROM attempts") == [
        ("withdrawn", clock.now, None)
    ]
    assert lines(opened, "attempt.withdrawn") == [
        (clock.now, 1, 1, 1, {"why": "the window closed"}, False)
    ]
    assert lines(opened, "cycle.missed") == [
        (clock.now, 1, 1, None, {"reason": "not_attempted", "cycle": 1}, True)
    ]
    assert lines(opened, "subscription.suspended") == [
        (clock.now, 1, None, None, {"reason": "chain_broken"}, False)
    ]
    ((about, told),) = notices(opened, "payment.missed")
    assert (about, told["reason"], told["month"]) == (1, "not_attempted", "2026-11")
    ((about, told),) = notices(opened, "subscription.suspended")
    assert (about, told["reason"]) == (1, "chain_broken")


def test_a_declined_attempt_is_not_withdrawn(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    execute(opened, f"UPDATE attempts SET {DECLINED}")
    before = query(opened, "SELECT status, settled_at FROM attempts")
    clock.move_to(closes(opened))
    assert close_cycles(opened, policy) == 1
    assert query(opened, "SELECT status, settled_at FROM attempts") == before
    assert lines(opened, "attempt.withdrawn") == []


# -- paused, and never opened -------------------------------------------------------------------


@pytest.fixture
def paused(book: Book, policy: BillingPolicy, clock: MovedClock) -> Book:
    """One who was paused before his month began."""
    clock.move(days=-10)
    subscribed(book, policy)
    pause(book, policy, "customer-1")
    return book


def test_a_paused_month_is_skipped_at_the_moment_it_closes(
    paused: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    end = closes(paused)
    clock.move_to(end - MOMENT)
    assert not something_ends(paused, policy)
    assert close_cycles(paused, policy) == 0
    assert months(paused) == []
    clock.move_to(end)
    assert something_ends(paused, policy)
    assert close_cycles(paused, policy) == 1
    assert not something_ends(paused, policy)
    assert query(
        paused, "SELECT number, status, reason, opened_at, closes_at, settled_at FROM cycles"
    ) == [(1, "skipped", "paused", end, end, end)]
    # Nobody's fault, so no alarm.
    assert lines(paused, "cycle.skipped") == [
        (end, 1, 1, None, {"reason": "paused", "cycle": 1}, False)
    ]
    ((about, told),) = notices(paused, "payment.skipped")
    assert (about, told["reason"], told["month"]) == (1, "paused", "2026-11")
    assert people(paused) == [("suspended", "chain_broken")]
    assert query(
        paused, "SELECT next_cycle, next_closes_at > :end FROM subscriptions", end=end
    ) == [(2, True)]


def test_only_who_is_paused_is_skipped_without_a_month(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """An active one whose window has passed is opened first, so that its month is judged."""
    subscribed(book, policy)
    clock.move_to(closes(book) + timedelta(days=1))
    assert not something_ends(book, policy)
    assert close_cycles(book, policy) == 0
    assert months(book) == []


def test_a_month_still_open_is_judged_before_the_next_is_skipped(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """Nothing looked at this book for two months."""
    execute(opened, f"UPDATE attempts SET {UNKNOWN}")
    pause(opened, policy, "customer-1")
    ((following,),) = query(opened, "SELECT next_closes_at FROM subscriptions")
    clock.move_to(following)
    assert close_cycles(opened, policy) == 1
    assert months(opened) == [("missed", "unproven")]
    assert query(opened, "SELECT next_cycle FROM subscriptions") == [(2,)]


@pytest.mark.timeout(20)
def test_while_somebody_works_on_the_open_month_the_next_is_not_skipped(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """Two months of one subscription are never open at once, not for a moment either."""
    pause(opened, policy, "customer-1")
    ((following,),) = query(opened, "SELECT next_closes_at FROM subscriptions")
    clock.move_to(following)
    with opened.transaction() as tx:
        tx.session.execute(text("SELECT 1 FROM cycles FOR UPDATE"))
        assert close_cycles(opened, policy) == 0
    assert months(opened) == [("open", None)]
    assert close_cycles(opened, policy) == 1
    assert months(opened) == [("skipped", "paused")]


def test_a_window_made_larger_moves_the_end_of_a_paused_month(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """The end as it was planned passes, and nothing has ended; so nothing is counted either."""
    clock.move(days=-10)
    narrow, wide = make_policy(window_days=0), make_policy()
    subscribed(book, narrow, 2)
    for number in (1, 2):
        pause(book, narrow, f"customer-{number}")
    clock.move_to(closes(book))
    assert close_cycles(book, wide) == 0
    assert months(book) == []
    ((end,),) = query(book, "SELECT DISTINCT next_closes_at FROM subscriptions")
    assert end == clock.now + timedelta(days=5)
    assert not something_ends(book, wide)


def test_a_paused_month_whose_end_was_moved_ends_then(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """Not looked at between the end as it was planned and the end by the settings in force."""
    clock.move(days=-10)
    subscribed(book, make_policy(window_days=0))
    pause(book, make_policy(window_days=0), "customer-1")
    clock.move_to(closes(book) + timedelta(days=5))
    assert close_cycles(book, make_policy()) == 1
    assert months(book) == [("skipped", "paused")]


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ("anchor_on = anchor_on - interval '1 month'", {"cycle": 2, "month": "2026-11-01"}),
        ("next_cycle = 1", {"cycle": 1, "month": "2026-11-01"}),
        (
            "anchor_on = anchor_on + interval '1 month', next_cycle = 1",
            {"cycle": 1, "month": "2026-12-01"},
        ),
    ],
)
def test_a_paused_month_that_is_there_already_keeps_nobody_else_from_being_skipped(
    book: Book, policy: BillingPolicy, clock: MovedClock, facts: str, told: dict[str, Any]
) -> None:
    """An edit behind our back counts the months from elsewhere: the same month, or the same number,
    twice. It is told of, and the next month is that subscription's own again."""
    subscribed(book, policy, 2)
    assert open_cycles(book, policy) == 2
    around = "SET LOCAL session_replication_role = replica; "
    execute(book, f"{around}UPDATE cycles SET status='missed', reason='declined', settled_at=now()")
    for number in (1, 2):
        pause(book, policy, f"customer-{number}")
    execute(book, f"{around}UPDATE subscriptions SET {facts} WHERE id = 1")
    clock.move(days=60)

    assert close_cycles(book, policy) == 1

    assert query(book, "SELECT subscription_id, number FROM cycles ORDER BY id") == [
        (1, 1),
        (2, 1),
        (2, 2),
    ]
    ((_, whose, cycle, _, data, alarm),) = lines(book, "cycle.there_already")
    assert (whose, cycle, data, alarm) == (1, None, told, True)
    assert people(book) == [("paused", None), ("suspended", "chain_broken")]
    clock.move(days=15)
    assert close_cycles(book, policy) == 1
    assert people(book) == [("suspended", "chain_broken")] * 2


# -- those that close soon ----------------------------------------------------------------------


def test_a_month_that_closes_soon_is_told_once_a_day_before(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    ((last_start_at,),) = query(opened, "SELECT last_start_at FROM cycles")
    clock.move_to(closes(opened) - timedelta(hours=24) - MOMENT)
    assert not something_ends(opened, policy)
    close_cycles(opened, policy)
    assert lines(opened, "cycle.closing_soon") == []
    clock.move(microseconds=1)
    assert something_ends(opened, policy)
    assert close_cycles(opened, policy) == 0
    assert query(opened, "SELECT closing_soon_at FROM cycles") == [(clock.now,)]
    ((at, about, cycle, attempt, data, alarm),) = lines(opened, "cycle.closing_soon")
    assert (at, about, cycle, attempt, alarm) == (clock.now, 1, 1, None, True)
    assert datetime.fromisoformat(data.pop("last_start_at")) == last_start_at
    assert data == {"cycle": 1}
    ((about, told),) = notices(opened, "payment.closing_soon")
    assert (about, told["month"]) == (1, "2026-11")
    assert datetime.fromisoformat(told["last_chance_at"]) == last_start_at
    assert not something_ends(opened, policy)
    clock.move(hours=1)
    close_cycles(opened, policy)
    assert len(lines(opened, "cycle.closing_soon")) == len(notices(opened, "payment.closing_soon"))
    assert len(lines(opened, "cycle.closing_soon")) == 1


def test_more_than_a_batch_is_warned_of_at_once(
    book: Book, policy: BillingPolicy, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage of days so many close within hours that a batch a minute would come to the
    last of them after the end, when it is too late to tell."""
    monkeypatch.setattr(closing, "BATCH", 2)
    subscribed(book, policy, 5)
    assert open_cycles(book, policy) == 5
    clock.move_to(closes(book) - timedelta(minutes=1))
    close_cycles(book, policy)
    told = [about for about, _ in notices(book, "payment.closing_soon")]
    assert told == [1, 2, 3, 4, 5]
    assert len(lines(book, "cycle.closing_soon")) == 5


def test_the_warning_tells_of_the_tries_of_that_month(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    subscribed(book, policy, 2)
    assert open_cycles(book, policy) == 2
    execute(book, f"UPDATE attempts SET {DECLINED}, message = 'limit' WHERE id = 1")
    clock.move_to(closes(book) - timedelta(hours=1))
    close_cycles(book, policy)
    told = [data for _, data in notices(book, "payment.closing_soon")]
    assert [one["message"] for one in told] == ["limit", None]
    assert [one["next_attempt_at"] is None for one in told] == [True, False]


def test_the_warning_announces_no_attempt_that_comes_too_late(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    execute(opened, "UPDATE attempts SET ready_at = c.last_start_at + interval '1 s' FROM cycles c")
    clock.move_to(closes(opened) - timedelta(hours=1))
    close_cycles(opened, policy)
    ((_, told),) = notices(opened, "payment.closing_soon")
    assert told["next_attempt_at"] is None


def test_nobody_is_warned_of_a_month_that_has_ended(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    cancel(opened, policy, "customer-1")
    assert months(opened) == [("skipped", "cancelled")]
    clock.move_to(closes(opened) - timedelta(hours=1))
    assert not something_ends(opened, policy)
    close_cycles(opened, policy)
    assert lines(opened, "cycle.closing_soon") == []


def test_nobody_is_warned_of_a_month_that_has_closed(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """It waits for what became of its charge; that it closes soon is no longer true."""
    execute(opened, f"UPDATE attempts SET {UNKNOWN}")
    clock.move_to(closes(opened))
    assert not something_ends(opened, policy)
    assert close_cycles(opened, policy) == 0
    assert lines(opened, "cycle.closing_soon") == []
    assert notices(opened, "payment.closing_soon") == []


# -- whether there is anything to do ------------------------------------------------------------


def test_a_decline_to_confirm_is_something_to_do_until_the_month_ends(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """While all charging is held nothing is confirmed, and the month ends as it is."""
    execute(opened, f"UPDATE attempts SET {DECLINED}")
    assert not something_ends(opened, policy)
    execute(opened, "UPDATE cycles SET held = 'unconfirmed'")
    assert something_ends(opened, policy)
    hold(opened, "a drill")
    clock.move_to(closes(opened))
    assert close_cycles(opened, policy) == 1
    assert query(opened, "SELECT status, reason, held FROM cycles") == [
        ("missed", "declined", "unconfirmed")
    ]
    assert not something_ends(opened, policy)


def test_a_month_held_for_something_else_is_nothing_to_do(
    opened: Book, policy: BillingPolicy
) -> None:
    execute(opened, "UPDATE cycles SET held = 'contradiction'")
    assert not something_ends(opened, policy)
