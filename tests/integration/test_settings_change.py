"""A setting that is changed in the middle of a month, and one that is wrong for everybody."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from billing.domain.calendar import SEOUL
from billing.domain.pace import Ceiling
from billing.domain.plan import Declines
from billing.domain.policy import BillingPolicy
from billing.sandbox import NewCustomer, register
from billing.services import coming
from billing.services.change_status import before_pause, pause, resume
from billing.services.forecast import due
from billing.services.invariants import broken
from billing.services.open_cycles import open_cycles
from billing.store import health
from billing.store.session import Book
from tests.builders import enrolled, query
from tests.conftest import MovedClock
from tests.world import World

Policies = Callable[..., BillingPolicy]


def kst(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=SEOUL)


def retry(world: World) -> tuple[datetime, datetime]:
    """When the planned attempt may go, and until when the month takes one."""
    ((ready_at, last_start_at),) = query(
        world.book,
        "SELECT ready_at, last_start_at FROM attempts JOIN cycles ON cycles.id = cycle_id"
        " WHERE attempts.status = 'due'",
    )
    return ready_at, last_start_at


def test_a_closing_margin_made_smaller_plans_nothing_beyond_the_month(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    """A month keeps the moments that it was opened with: claims look at those."""
    world = World(book, make_policy(close_margin_minutes=720), clock)
    world.enrol("ada", script=["declined:0031"] * 5)
    world.run()
    world.policy = make_policy()
    while clock.now < kst(24, 20):
        world.run(every=timedelta(hours=4))
    ready_at, last_start_at = retry(world)
    assert last_start_at == kst(25, 12)
    assert ready_at <= last_start_at


def test_the_last_try_of_such_a_month_is_made(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    """The customer has the limit raised on the last day but one."""
    old, new = make_policy(close_margin_minutes=720), make_policy()
    world = World(book, old, clock)
    world.enrol("ada", script=["declined:0031"] * 5)
    while clock.now < kst(26, 1):
        world.policy = old if clock.now < kst(23, 12) else new
        world.run(every=timedelta(hours=4))
    assert world.statuses("cycles") == {"paid": 1}
    assert broken(book, new) == []


def test_a_window_made_larger_promises_nothing_in_a_month_that_is_open(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    world = World(book, make_policy(window_days=0), clock)
    world.enrol("ada", script=["declined:0031"])
    world.open()
    world.policy = make_policy()
    world.tick()
    assert world.statuses("attempts") == {"declined": 1}
    ((data,),) = query(book, "SELECT data FROM notices WHERE kind = 'payment.declined'")
    assert data["next_attempt_at"] is None


def test_a_window_made_smaller_ends_no_month_that_is_open(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    world = World(book, make_policy(), clock)
    world.enrol("ada", script=["declined:0031"] * 2)
    world.open()
    world.policy = make_policy(window_days=0)
    while clock.now < kst(26, 1):
        world.run(every=timedelta(hours=4))
    assert world.statuses("cycles") == {"paid": 1}


# -- months that are not open yet ---------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "usual": {},
    "one day": {"window_days": 0},
    "three days": {"window_days": 1},
    "no days for retries": {"band_retry_days": 0},
    "in the morning": {"charge_cron": "0 3 * * *"},
    "late at night": {"charge_cron": "50 22 * * *"},
    "late at night, one day": {"charge_cron": "50 22 * * *", "window_days": 0},
    "half a day to close": {"close_margin_minutes": 720, "window_days": 0},
}


@pytest.mark.parametrize("after", SETTINGS)
@pytest.mark.parametrize("before", ["usual", "one day", "late at night, one day"])
def test_a_month_is_charged_by_the_settings_in_force_as_due_says(
    book: Book, make_policy: Policies, clock: MovedClock, before: str, after: str
) -> None:
    """Whichever way they change the moment of the first attempt."""
    old, new = make_policy(**SETTINGS[before]), make_policy(**SETTINGS[after])
    clock.move_to(kst(1, 9))
    world = World(book, old, clock)
    days = (1, 26, 28, 31)
    rows = [f"day-{day},9900,plan,2026-10-{day:02d}T12:00:00+09:00,," for day in days]
    register(
        world.sandbox,
        [
            NewCustomer(
                customer_uid=f"day-{day}",
                amount=9900,
                name="plan",
                paid_at=datetime(2026, 10, day, 12, tzinfo=SEOUL),
            )
            for day in days
        ],
    )
    assert enrolled(book, old, *rows).added == len(days)
    world.tick()
    world.policy = new
    # Before anything is planned anew.
    ahead = due(book, new, None, 30)
    promised = [(one["customer_uid"], one["at"]) for one in ahead if one["at"] < "2026-12"]
    assert len(promised) == len(days)
    for at in sorted({datetime.fromisoformat(at) for _, at in promised}):
        clock.move_to(max(clock.now, at - timedelta(minutes=1)))
        world.run(every=timedelta(minutes=1), times=2)
    assert world.statuses("cycles") == {"paid": len(days)}
    sent = query(
        book,
        "SELECT customer_uid, sent_at FROM attempts JOIN cycles c ON c.id = cycle_id"
        " JOIN subscriptions s ON s.id = subscription_id ORDER BY sent_at, customer_uid",
    )
    assert [(uid, at.astimezone(SEOUL).isoformat()) for uid, at in sent] == promised
    assert broken(book, new) == []


def test_next_months_are_planned_anew_a_batch_at_a_time(
    book: Book, make_policy: Policies, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coming, "BATCH", 2)
    clock.move_to(kst(1, 9))
    world = World(book, make_policy(), clock)
    world.enrol(*(f"customer-{number}" for number in range(5)))
    late = "SELECT count(*) FROM subscriptions WHERE next_due_at = '2026-11-20 12:00+09'"
    world.policy = make_policy(charge_cron="0 12 * * *")
    counted = []
    for _ in range(4):
        world.open()
        counted += query(book, late)
    assert counted == [(2,), (4,), (5,), (5,)]
    # Two ticks with different settings, as while they are replaced, cost a batch each.
    world.policy = make_policy()
    world.open()
    assert query(book, late) == [(3,)]
    world.policy = make_policy(charge_cron="0 12 * * *")
    for _ in range(3):
        world.open()
    assert query(book, late) == [(5,)]


def test_where_a_batch_ended_is_where_the_next_begins(
    book: Book, make_policy: Policies, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the last batch is a full one."""
    monkeypatch.setattr(coming, "BATCH", 3)
    clock.move_to(kst(1, 9))
    world = World(book, make_policy(), clock)
    world.enrol(*(f"customer-{number}" for number in range(6)))
    noon = make_policy(charge_cron="0 12 * * *")
    seen = []
    for _ in range(4):
        open_cycles(book, noon)
        seen += query(
            book,
            "SELECT (SELECT count(*) FROM subscriptions WHERE next_due_at = '2026-11-20 12:00+09'),"
            " coming_by = :noon, coming_up_to FROM installation",
            noon=noon.plan.fingerprint,
        )
    assert seen == [(3, True, 3), (6, True, 6), (6, True, None), (6, True, None)]


@pytest.mark.timeout(20)
def test_planning_anew_waits_for_no_other_tick_that_is_at_it(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    """Nor takes its word that it is done."""
    clock.move_to(kst(1, 9))
    world = World(book, make_policy(), clock)
    world.enrol("ada")
    noon = make_policy(charge_cron="0 12 * * *")
    late = "SELECT count(*) FROM subscriptions WHERE next_due_at = '2026-11-20 12:00+09'"
    with book.transaction() as tx:
        tx.session.execute(text("SELECT 1 FROM installation FOR UPDATE"))
        assert open_cycles(book, noon) == 0
        assert query(book, late) == [(0,)]
    open_cycles(book, noon)
    assert query(book, late) == [(1,)]


def test_an_outage_and_a_smaller_window_lose_nobody(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    world = World(book, make_policy(), clock)
    world.enrol("ada")
    clock.move_to(kst(22, 9))
    world.policy = make_policy(window_days=0)
    promised = [one["at"] for one in due(book, world.policy, None, 5)]
    world.run(times=3)
    assert world.statuses("cycles") == {"paid": 1}
    assert promised == ["2026-11-22T09:00:00+09:00"]


def test_a_paused_month_closes_when_pausing_says_so(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    """The window was made larger since it was enrolled."""
    world = World(book, make_policy(window_days=0), clock)
    clock.move_to(kst(19, 9))
    world.enrol("ada")
    world.policy = make_policy()
    assert "2026-11-25 23:30" in pause(book, world.policy, "ada").warning_en
    clock.move_to(kst(25, 9))
    world.close()
    assert world.statuses("cycles") == {}
    resume(book, world.policy, "ada")
    world.run(times=3)
    assert world.statuses("cycles") == {"paid": 1}


def test_a_smaller_window_ends_no_paused_month_that_has_begun(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    world = World(book, make_policy(), clock)
    clock.move_to(kst(19, 9))
    world.enrol("ada", "bob")
    for one in ("ada", "bob"):
        pause(book, world.policy, one)
    clock.move_to(kst(22, 9))
    world.policy = make_policy(window_days=0)
    world.run(times=2)
    assert "2026-11-25 23:30" in before_pause(book, world.policy, "ada").warning_en
    resume(book, world.policy, "ada")
    world.run(times=3)
    assert world.statuses("cycles") == {"paid": 1}
    clock.move_to(kst(26, 1))
    world.run()
    assert world.statuses("cycles") == {"paid": 1, "skipped": 1}


def test_resuming_plans_within_the_month_as_it_was_opened(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    world = World(book, make_policy(window_days=0), clock)
    world.enrol("ada")
    world.open()
    world.policy = make_policy()
    pause(book, world.policy, "ada")
    clock.move_to(kst(20, 19))
    resume(book, world.policy, "ada")
    ready_at, last_start_at = retry(world)
    assert ready_at <= last_start_at


LIMITS: tuple[dict[str, int], ...] = (
    {},
    {"max_attempts": 1, "attempts_per_day": 1},
    {"max_attempts": 50},
)


def declined_month(world: World) -> None:
    """A month of a customer whose line fails at every slot."""
    while world.clock.now < kst(26, 1):
        world.run(every=timedelta(hours=4))


def test_a_month_is_judged_by_the_limits_that_it_was_tried_by(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    world = World(book, make_policy(attempts_per_day=3, retry_cron="0 9-21 * * *"), clock)
    world.enrol("ada", script=["declined:0095"] * 20)
    declined_month(world)
    assert world.statuses("attempts") == {"declined": 8}
    for limits in LIMITS:
        assert broken(book, make_policy(**limits)) == [], limits


def test_declines_count_by_the_limits_of_today(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    """What is planned already goes; after it a lowered limit holds, and a raised one."""
    world = World(book, make_policy(), clock)
    world.enrol("ada", "bob", script=["declined:0031"] * 20)
    while clock.now < kst(21, 12):
        world.run(every=timedelta(hours=4))
    assert world.statuses("attempts") == {"declined": 4, "due": 2}
    world.policy = make_policy(max_attempts=2)
    declined_month(world)
    assert world.statuses("attempts") == {"declined": 6}
    assert broken(book, make_policy(max_attempts=2)) == []


def test_an_engine_that_tries_too_often_is_named_whatever_the_limits_are_by_now(
    book: Book, make_policy: Policies, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten = Declines(total=1, today=1)
    monkeypatch.setattr(Declines, "counted", lambda *_: forgotten)
    world = World(book, make_policy(max_attempts=3), clock)
    world.enrol("ada", script=["declined:0031"] * 20)
    declined_month(world)
    for most in (1, 3, 50):
        assert [one.name for one in broken(book, make_policy(max_attempts=most))] == [
            "I9 bounded retries"
        ]


def test_real_payments_where_test_payments_are_expected_stop_all_charging(
    book: Book, make_policy: Policies, clock: MovedClock
) -> None:
    """INCLUDE_SANDBOX left on with live keys: each answer contradicts, and the money moves."""
    world = World(book, make_policy(include_sandbox=True), clock)
    world.enrol(*(f"customer-{number:02d}" for number in range(60)))
    world.run(every=timedelta(minutes=1), times=30)
    assert world.requests() <= world.policy.canaries
    assert "our own configuration" in (world.hold() or "")
    assert world.alarms().count("charging.held") == 1


def test_a_ceiling_of_one_in_a_hundred_seconds_is_kept(book: Book, clock: MovedClock) -> None:
    started = 0
    for _ in range(600):
        with book.transaction() as tx:
            ceiling, longest = Ceiling(0.01, 0), timedelta(seconds=25)
            started += health.reserve(tx.session, tx.now, 1, ceiling, longest).count
        clock.move(seconds=1)
    assert 6 <= started <= 7
