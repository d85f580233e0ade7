"""Pause, resume, cancel: what happens to the open cycle, to its attempt, and to a race."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from billing.domain.attempt import MAX_ATTEMPT_NUMBER
from billing.domain.errors import Conflict, NotFound, TransitionRefused
from billing.domain.outcome import Declined
from billing.domain.plan import NoRetryReason
from billing.domain.policy import BillingPolicy
from billing.services.answer import Answer
from billing.services.change_status import (
    Changed,
    attempt_again,
    before_pause,
    cancel,
    found_one,
    goes_at,
    pause,
    pause_again,
    resume,
    was_paused,
)
from billing.services.close_cycles import close_cycles
from billing.services.open_cycles import open_cycles
from billing.services.record import record
from billing.store import attempts
from billing.store.session import Book
from billing.store.tables import Attempt, Cycle, Subscription
from tests.builders import a_row, enrolled, execute, query
from tests.conftest import MovedClock

WHO = "customer-1"
Change = Callable[[Book, BillingPolicy, str], Changed]


@pytest.fixture
def opened(book: Book, policy: BillingPolicy) -> Book:
    """One subscriber with an open cycle and its first attempt due now."""
    enrolled(book, policy, a_row(1))
    assert open_cycles(book, policy) == 1
    return book


def attempt_rows(book: Book) -> list[tuple[object, ...]]:
    return query(book, "SELECT number, status FROM attempts ORDER BY number")


def status_of(book: Book) -> object:
    return query(book, "SELECT status FROM subscriptions")[0][0]


def kinds(book: Book) -> list[object]:
    found = query(book, "SELECT kind FROM events WHERE subscription_id IS NOT NULL ORDER BY id")
    return [kind for (kind,) in found][2:]


def told(book: Book, kind: str) -> object:
    """What the one event of a kind tells."""
    ((data,),) = query(book, "SELECT data FROM events WHERE kind = :kind", kind=kind)
    return data


def withdrawn(book: Book) -> None:
    """The month has no live attempt any more, and nobody paused it."""
    execute(book, "UPDATE attempts SET status = 'withdrawn', settled_at = '2026-11-20T01:00Z'")


def sent(book: Book) -> None:
    execute(
        book,
        "UPDATE attempts SET status = 'sending', fence = 1, sent_at = '2026-11-20T01:00Z',"
        " lease_until = '2026-11-20T01:02Z' WHERE status = 'due'",
    )


@pytest.mark.parametrize("change", [pause, resume, cancel])
def test_an_unknown_customer_is_not_found(
    book: Book, policy: BillingPolicy, change: Change
) -> None:
    with pytest.raises(NotFound):
        change(book, policy, "nobody")


def test_pause_withdraws_what_is_due_and_tells_until_when(
    opened: Book, policy: BillingPolicy
) -> None:
    changed = pause(opened, policy, WHO)
    assert changed.status == "paused"
    assert "2026-11-25 23:30" in changed.warning_en
    assert "2026-11-25 23:30" in changed.warning_ko
    assert attempt_rows(opened) == [(1, "withdrawn")]
    assert query(opened, "SELECT status FROM cycles") == [("open",)]
    assert kinds(opened) == ["subscription.paused", "attempt.withdrawn"]
    assert query(opened, "SELECT kind FROM notices") == [("subscription.paused",)]
    assert told(opened, "subscription.paused") == {"before": "active"}


def test_what_a_pause_would_risk_is_told_and_nothing_is_changed(
    opened: Book, policy: BillingPolicy
) -> None:
    before = before_pause(opened, policy, WHO)
    assert (attempt_rows(opened), status_of(opened), kinds(opened)) == ([(1, "due")], "active", [])
    assert before.status == "active"
    after = pause(opened, policy, WHO)
    assert (before.warning_en, before.warning_ko) == (after.warning_en, after.warning_ko)
    with pytest.raises(NotFound):
        before_pause(opened, policy, "nobody")


def test_pause_before_the_month_names_the_end_of_the_next_band(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    clock.move(days=-10)
    enrolled(book, policy, a_row(1))
    assert "2026-11-25 23:30" in pause(book, policy, WHO).warning_en


@pytest.mark.parametrize(("change", "status"), [(pause, "paused"), (cancel, "cancelled")])
def test_the_same_again_changes_nothing(
    opened: Book, policy: BillingPolicy, change: Change, status: str
) -> None:
    first = change(opened, policy, WHO)
    before, told = kinds(opened), query(opened, "SELECT kind FROM notices")
    assert told[0] == (f"subscription.{status}",)
    assert change(opened, policy, WHO) == first
    assert (status_of(opened), kinds(opened)) == (status, before)
    assert query(opened, "SELECT kind FROM notices") == told


def test_resuming_an_active_one_changes_nothing(opened: Book, policy: BillingPolicy) -> None:
    assert resume(opened, policy, WHO) == Changed("active")
    assert (attempt_rows(opened), kinds(opened)) == ([(1, "due")], [])
    withdrawn(opened)
    assert resume(opened, policy, WHO) == Changed("active")
    assert (attempt_rows(opened), kinds(opened)) == ([(1, "withdrawn")], [])


def test_resume_plans_a_new_attempt_under_a_name_of_its_own(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    pause(opened, policy, WHO)
    clock.move(hours=2)
    resume(opened, policy, WHO)
    assert attempt_rows(opened) == [(1, "withdrawn"), (2, "due")]
    names = query(opened, "SELECT right(merchant_uid, 10) FROM attempts ORDER BY number")
    assert names == [("-202611-01",), ("-202611-02",)]
    # The retry slot at 18:00 in Seoul
    slot = clock.now.replace(hour=9)
    assert query(opened, "SELECT planned_at, ready_at FROM attempts WHERE number = 2") == [
        (slot, slot)
    ]
    assert kinds(opened)[-2:] == ["subscription.resumed", "attempt.planned"]
    of_attempt = "SELECT number FROM attempts JOIN events e ON e.attempt_id = attempts.id"
    assert query(opened, f"{of_attempt} WHERE kind = 'attempt.planned' ORDER BY e.id") == [(2,)]


def test_resume_after_the_band_plans_nothing(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    pause(opened, policy, WHO)
    ((last,),) = query(opened, "SELECT last_start_at FROM cycles")
    clock.move_to(last + timedelta(seconds=1))
    assert resume(opened, policy, WHO).status == "active"
    assert attempt_rows(opened) == [(1, "withdrawn")]


def test_resume_after_the_band_plans_nothing_after_a_decline_either(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    declined(opened, 1, SOON, "2026-11-20T01:00Z")
    pause(opened, policy, WHO)
    last_start(opened, clock, plus=1)
    assert resume(opened, policy, WHO).status == "active"
    assert attempt_rows(opened) == [(1, "declined")]
    assert planned_anew(opened, policy) is NoRetryReason.BAND_OVER


def test_a_month_that_was_opened_without_an_attempt_begins_with_the_first(
    opened: Book, policy: BillingPolicy
) -> None:
    """As one that opened when its time was over by settings that have been changed since."""
    execute(opened, "SET LOCAL session_replication_role = replica; DELETE FROM attempts")
    pause(opened, policy, WHO)
    resume(opened, policy, WHO)
    assert attempt_rows(opened) == [(1, "due")]


def test_an_attempt_on_its_way_ends_by_itself(opened: Book, policy: BillingPolicy) -> None:
    sent(opened)
    pause(opened, policy, WHO)
    assert attempt_rows(opened) == [(1, "sending")]
    resume(opened, policy, WHO)
    assert attempt_rows(opened) == [(1, "sending")], "no second one beside it"
    cancel(opened, policy, WHO)
    assert attempt_rows(opened) == [(1, "sending")]
    assert query(opened, "SELECT status FROM cycles") == [("open",)]


def test_cancel_skips_the_open_cycle(opened: Book, policy: BillingPolicy) -> None:
    changed = cancel(opened, policy, WHO)
    assert changed.status == "cancelled"
    assert changed.warning_en
    assert changed.warning_ko
    assert attempt_rows(opened) == [(1, "withdrawn")]
    assert query(opened, "SELECT status, reason FROM cycles") == [("skipped", "cancelled")]
    assert kinds(opened) == ["subscription.cancelled", "attempt.withdrawn", "cycle.skipped"]
    assert told(opened, "cycle.skipped") == {"reason": "cancelled", "cycle": 1}
    notices = query(opened, "SELECT kind FROM notices ORDER BY id")
    assert notices == [("subscription.cancelled",), ("payment.skipped",)]


def test_cancel_skips_a_month_without_a_live_attempt_too(
    opened: Book, policy: BillingPolicy
) -> None:
    pause(opened, policy, WHO)
    cancel(opened, policy, WHO)
    assert query(opened, "SELECT status, reason FROM cycles") == [("skipped", "cancelled")]


def test_cancel_leaves_a_month_that_has_ended(opened: Book, policy: BillingPolicy) -> None:
    withdrawn(opened)
    execute(
        opened,
        "UPDATE cycles SET status = 'missed', reason = 'not_attempted', settled_at = opened_at",
    )
    cancel(opened, policy, WHO)
    assert query(opened, "SELECT status, reason FROM cycles") == [("missed", "not_attempted")]


def test_cancel_needs_no_open_cycle(book: Book, policy: BillingPolicy) -> None:
    enrolled(book, policy, a_row(1))
    assert cancel(book, policy, WHO).status == "cancelled"
    assert open_cycles(book, policy) == 0


@pytest.mark.parametrize("change", [pause, resume])
def test_cancelled_is_final(opened: Book, policy: BillingPolicy, change: Change) -> None:
    cancel(opened, policy, WHO)
    with pytest.raises(TransitionRefused):
        change(opened, policy, WHO)
    assert status_of(opened) == "cancelled"


def test_a_chain_at_risk_stays_so_until_the_end(opened: Book, policy: BillingPolicy) -> None:
    """A month that a refund left without a payment is none the better for a pause."""
    execute(opened, "UPDATE subscriptions SET status_reason = 'chain_at_risk'")
    rows = []
    for change in (pause, resume, pause, cancel):
        change(opened, policy, WHO)
        rows += query(opened, "SELECT status, status_reason FROM subscriptions")
    at_risk = [(status, "chain_at_risk") for status in ("paused", "active", "paused")]
    assert rows == [*at_risk, ("cancelled", None)]


def test_who_was_suspended_and_may_go_on_is_paused_as_before(
    opened: Book, policy: BillingPolicy
) -> None:
    execute(
        opened,
        "UPDATE subscriptions SET status = 'active', status_reason = 'chain_broken'",
    )
    with opened.transaction() as tx:
        pause_again(tx, tx.session.scalars(select(Subscription)).one(), policy)
    rows = query(opened, "SELECT status, status_reason FROM subscriptions")
    assert rows == [("paused", None)]
    assert kinds(opened)[-1] == "subscription.paused"


def test_no_command_lifts_a_suspension(opened: Book, policy: BillingPolicy) -> None:
    execute(opened, "UPDATE subscriptions SET status = 'suspended', status_reason = 'key_invalid'")
    with pytest.raises(TransitionRefused, match="register again"):
        resume(opened, policy, WHO)
    with pytest.raises(TransitionRefused):
        pause(opened, policy, WHO)
    assert status_of(opened) == "suspended"
    assert cancel(opened, policy, WHO).status == "cancelled"


def test_a_month_whose_attempt_numbers_are_used_up_stays_paused(
    opened: Book, policy: BillingPolicy
) -> None:
    execute(opened, "UPDATE attempts SET number = :n", n=MAX_ATTEMPT_NUMBER)
    pause(opened, policy, WHO)
    with pytest.raises(Conflict):
        resume(opened, policy, WHO)
    assert status_of(opened) == "paused"


def test_the_last_attempt_number_can_be_used(opened: Book, policy: BillingPolicy) -> None:
    execute(opened, "UPDATE attempts SET number = :n", n=MAX_ATTEMPT_NUMBER - 1)
    pause(opened, policy, WHO)
    resume(opened, policy, WHO)
    assert attempt_rows(opened)[1:] == [(MAX_ATTEMPT_NUMBER, "due")]


@pytest.mark.parametrize("_round", range(3))
@pytest.mark.parametrize("change", [pause, cancel])
def test_no_claim_commits_after_the_change(
    opened: Book, policy: BillingPolicy, clock: MovedClock, change: Change, _round: int
) -> None:
    """Both at once, in either order: either the claim was first, or there is nothing to claim."""
    ((attempt_id,),) = query(opened, "SELECT id FROM attempts")
    barrier, won = threading.Barrier(2), list[bool]()

    def claim() -> None:
        barrier.wait()
        with opened.transaction() as tx:
            until = clock.now + timedelta(minutes=2)
            won.append(bool(attempts.claim(tx.session, [attempt_id], clock.now, until)))

    claiming = threading.Thread(target=claim)
    claiming.start()
    barrier.wait()
    change(opened, policy, WHO)
    claiming.join(timeout=20)
    expected = "sending" if won == [True] else "withdrawn"
    assert attempt_rows(opened) == [(1, expected)]


def test_two_operators_at_once_make_one_change(opened: Book, policy: BillingPolicy) -> None:
    threads = [threading.Thread(target=pause, args=(opened, policy, WHO)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert kinds(opened) == ["subscription.paused", "attempt.withdrawn"]
    assert query(opened, "SELECT count(*) FROM notices") == [(1,)]


def declined(book: Book, number: int, message: str, at: str) -> None:
    """Attempt `number` went out at `at` and was declined."""
    execute(
        book,
        "UPDATE attempts SET status = 'declined', sent_at = :at, settled_at = :at, message = :why,"
        " decline_class = 'x' WHERE number = :n",
        n=number,
        at=at,
        why=message,
    )


def planned(book: Book) -> list[tuple[object, ...]]:
    return query(book, "SELECT number, planned_at FROM attempts WHERE status = 'due'")


SOON, LIMIT, THREE_DAYS = "시스템 오류", "한도초과", "명의변경 후 3일 이내 불가"


def test_resuming_is_no_way_around_the_tries_of_a_day(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """Two declines are today's share: the next try is tomorrow's, pause or no pause."""
    declined(opened, 1, SOON, "2026-11-20T01:00Z")
    ((cycle,),) = query(opened, "SELECT id FROM cycles")
    execute(
        opened,
        "INSERT INTO attempts (cycle_id, number, merchant_uid, status, closes_at, planned_at,"
        " ready_at, sent_at, settled_at, decline_class, message) SELECT id, 2, 'mw-second',"
        " 'declined', closes_at, :at, :at, :at, :at, 'x', :why FROM cycles WHERE id = :cycle",
        at="2026-11-20T02:00Z",
        why=SOON,
        cycle=cycle,
    )
    clock.move(hours=2)
    pause(opened, policy, WHO)
    resume(opened, policy, WHO)
    assert planned(opened) == [(3, datetime(2026, 11, 21, 1, 0, tzinfo=UTC))]


def test_resuming_is_no_way_around_the_tries_of_a_month(
    opened: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    policy = make_policy(max_attempts=1)
    declined(opened, 1, SOON, "2026-11-20T01:00Z")
    pause(opened, policy, WHO)
    clock.move(days=1)
    resume(opened, policy, WHO)
    assert planned(opened) == []
    assert query(opened, "SELECT data FROM events WHERE kind = 'cycle.no_more_attempts'") == [
        ({"why": "attempts_used_up"},)
    ]


def test_resuming_keeps_the_wait_that_a_decline_asks_for(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """A new line cannot pay for three days; a pause must not lead into that wall."""
    declined(opened, 1, THREE_DAYS, "2026-11-20T01:00Z")
    pause(opened, policy, WHO)
    clock.move(hours=1)
    resume(opened, policy, WHO)
    assert planned(opened) == [(2, datetime(2026, 11, 23, 1, 0, tzinfo=UTC))]


def test_resuming_after_the_wait_takes_the_next_slot(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    declined(opened, 1, LIMIT, "2026-11-20T01:00Z")
    pause(opened, policy, WHO)
    clock.move(days=3)
    resume(opened, policy, WHO)
    assert planned(opened) == [(2, datetime(2026, 11, 23, 1, 0, tzinfo=UTC))]


def planned_anew(book: Book, policy: BillingPolicy) -> datetime | NoRetryReason | None:
    """What another attempt would answer; nothing of it stays."""
    with book.transaction() as tx, tx.session.begin_nested() as undone:
        found = attempt_again(tx, found_one(tx, WHO), policy)
        undone.rollback()
    return found


@pytest.mark.parametrize(
    ("let_go_at", "on", "is_pardoned"),
    [
        ("2026-11-20T01:00Z", "cycle", True),
        ("2026-11-20T00:59:59Z", "cycle", False),
        ("2026-11-20T02:00Z", "cycle + 1", False),
    ],
    ids=["since", "before", "another month"],
)
def test_what_a_person_let_go_since_is_tried_soon(
    opened: Book,
    policy: BillingPolicy,
    clock: MovedClock,
    let_go_at: str,
    on: str,
    is_pardoned: bool,
) -> None:
    """The decline that a person has looked at is pardoned; one that came after is not."""
    declined(opened, 1, "[0014] 해지", "2026-11-20T01:00Z")
    execute(
        opened,
        "INSERT INTO events (at, kind, subscription_id, cycle_id)"
        f" SELECT :at, 'cycle.let_go', subscription_id, {on} FROM (SELECT subscription_id,"
        " id AS cycle FROM cycles) c",
        at=let_go_at,
    )
    clock.move(hours=2)
    tomorrow = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
    expected = tomorrow if is_pardoned else NoRetryReason.PERMANENT
    assert planned_anew(opened, policy) == expected


def test_declines_of_others_have_no_bearing(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    enrolled(book, policy, a_row(1), a_row(2))
    assert open_cycles(book, policy) == 2
    pause(book, policy, WHO)
    execute(book, "UPDATE attempts SET number = 3 WHERE status = 'due'")
    declined(book, 3, "[0014] 해지", "2026-11-20T01:00Z")
    clock.move(hours=2)
    assert planned_anew(book, policy) == datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


def test_whether_it_had_been_paused_is_told_by_its_own_newest_word(
    opened: Book, policy: BillingPolicy
) -> None:
    def paused(who: str) -> bool:
        with opened.transaction() as tx:
            return was_paused(tx, found_one(tx, who))

    enrolled(opened, policy, a_row(2))
    assert not paused(WHO)
    pause(opened, policy, WHO)
    assert (paused(WHO), paused("customer-2")) == (True, False)
    resume(opened, policy, WHO)
    pause(opened, policy, "customer-2")
    assert (paused(WHO), paused("customer-2")) == (False, True)
    pause(opened, policy, WHO)
    resume(opened, policy, "customer-2")
    assert (paused(WHO), paused("customer-2")) == (True, False)


@pytest.mark.parametrize(
    ("message", "status", "reason"),
    [("[0014] 해지", "suspended", "key_invalid"), (SOON, "paused", None)],
)
def test_a_decline_that_arrives_while_paused_is_applied(
    opened: Book,
    policy: BillingPolicy,
    clock: MovedClock,
    message: str,
    status: str,
    reason: str | None,
) -> None:
    """What can never be charged again is suspended soon; what may be tried again waits."""
    sent(opened)
    pause(opened, policy, WHO)
    ((attempt_id,),) = query(opened, "SELECT id FROM attempts")
    with opened.transaction() as tx:
        record(tx, policy, [Answer(attempt_id, 1, Declined(message, "imp_1"))])
    assert attempt_rows(opened) == [(1, "declined")]
    clock.move(seconds=31)
    close_cycles(opened, policy)
    assert query(opened, "SELECT status, status_reason FROM subscriptions") == [(status, reason)]
    if status == "paused":
        assert resume(opened, policy, WHO).status == "active"
        assert [number for number, _ in planned(opened)] == [2]


def test_a_pause_past_the_last_moment_says_so(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """A date that has passed would read like a chance that is still there."""
    last_start(opened, clock, plus=1)
    changed = pause(opened, policy, WHO)
    assert "has passed (2026-11-25 23:30, Seoul)" in changed.warning_en
    assert "2026-11-25 23:30" in changed.warning_ko
    assert "Resume before" not in changed.warning_en
    assert "재개하십시오" not in changed.warning_ko
    assert "has passed" in resume(opened, policy, WHO).warning_en


def test_at_the_very_last_moment_it_has_not_passed(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    last_start(opened, clock, plus=0)
    assert "Resume before 2026-11-25 23:30" in pause(opened, policy, WHO).warning_en
    assert resume(opened, policy, WHO) == Changed("active")


def test_resuming_in_time_needs_no_warning(opened: Book, policy: BillingPolicy) -> None:
    pause(opened, policy, WHO)
    assert resume(opened, policy, WHO) == Changed("active")


def last_start(book: Book, clock: MovedClock, plus: float) -> None:
    """So many seconds after the last moment at which the month's charge may start."""
    clock.move_to(query(book, "SELECT last_start_at FROM cycles")[0][0] + timedelta(seconds=plus))


ENDINGS = [
    # What happens when, in seconds from the last moment for a charge, and how the month ends.
    ([(-60, pause)], "skipped", "paused"),
    ([(-60, pause), (60, resume)], "skipped", "paused"),
    ([(-60, pause), (-30, resume)], "missed", "not_attempted"),
    ([(60, pause)], "missed", "not_attempted"),
    ([(-60, pause), (7200, resume)], "skipped", "paused"),
    ([(7200, pause)], "missed", "not_attempted"),
]


@pytest.mark.parametrize(("changes", "status", "reason"), ENDINGS)
def test_a_month_ends_by_what_it_was_when_it_could_last_be_charged(
    opened: Book,
    policy: BillingPolicy,
    clock: MovedClock,
    changes: list[tuple[float, Change]],
    status: str,
    reason: str,
) -> None:
    """Not by what it is at the tick: one resumed a minute before it was still paused all along."""
    for seconds, change in changes:
        last_start(opened, clock, plus=seconds)
        change(opened, policy, WHO)
    last_start(opened, clock, plus=10_000)
    assert close_cycles(opened, policy) == 1
    assert query(opened, "SELECT status, reason FROM cycles") == [(status, reason)]
    assert query(opened, "SELECT status, status_reason FROM subscriptions") == [
        ("suspended", "chain_broken")
    ]


def test_a_month_that_was_never_opened_ends_the_same_way(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """Paused before the window, resumed after it: the cycle opens late, and is skipped in truth."""
    enrolled(book, policy, a_row(1))
    pause(book, policy, WHO)
    clock.move(days=7)
    assert "has passed" in resume(book, policy, WHO).warning_en
    assert open_cycles(book, policy) == 1
    assert close_cycles(book, policy) == 1
    assert query(book, "SELECT status, reason FROM cycles") == [("skipped", "paused")]


def test_the_last_moment_of_a_month_is_in_time() -> None:
    last = datetime(2026, 11, 25, 14, 30, tzinfo=UTC)
    cycle = Cycle(last_start_at=last)
    assert goes_at(Attempt(ready_at=last), cycle) == last
    later = Attempt(ready_at=last + timedelta.resolution)
    assert goes_at(later, cycle) is NoRetryReason.BAND_OVER
