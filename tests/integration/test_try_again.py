"""A person plans one more attempt of an open month: when it is, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.errors import NotFound
from billing.domain.plan import NoRetryReason
from billing.domain.policy import BillingPolicy
from billing.services.change_status import Changed, cancel, pause
from billing.services.open_cycles import open_cycles
from billing.services.try_again import NotTried, Tried, try_again
from billing.store.session import Book
from tests.builders import a_row, enrolled, execute, query
from tests.conftest import MovedClock
from tests.town import Town

WHO = "customer-1"


@pytest.fixture
def opened(book: Book, policy: BillingPolicy) -> Book:
    """Two subscribers with open cycles, whose first attempts are due now."""
    enrolled(book, policy, a_row(1), a_row(2))
    assert open_cycles(book, policy) == 2
    return book


def becomes(book: Book, status: str) -> None:
    """What the attempt of the first subscriber is now."""
    at = datetime.fromisoformat("2026-11-20T01:00Z")
    columns = {
        "sending": "sent_at = :at, lease_until = :at, fence = 1",
        "unknown": "sent_at = :at, ask_at = :at, provable_at = :at, fence = 1",
        "declined": "sent_at = :at, settled_at = :at, message = '한도초과', decline_class = 'x'",
        "withdrawn": "settled_at = :at",
    }
    change = f"status = '{status}', {columns[status]}"
    execute(book, f"UPDATE attempts SET {change} WHERE cycle_id = 1", at=at)


def attempts(book: Book) -> list[tuple[object, ...]]:
    return query(book, "SELECT number, status FROM attempts WHERE cycle_id = 1 ORDER BY number")


def test_an_attempt_is_planned_at_the_next_slot(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    becomes(opened, "withdrawn")
    clock.move(hours=1)
    slot = clock.now.replace(hour=9)
    assert try_again(opened, policy, WHO) == Tried(slot)
    assert attempts(opened) == [(1, "withdrawn"), (2, "due")]
    assert try_again(opened, policy, WHO) == Tried(slot, NotTried.PLANNED)
    assert len(attempts(opened)) == 2


def test_the_rules_that_follow_a_decline_hold_for_a_person_too(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    becomes(opened, "declined")
    tomorrow = clock.now + timedelta(days=1)
    assert try_again(opened, policy, WHO) == Tried(tomorrow)


def test_after_the_last_moment_it_says_so(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    becomes(opened, "withdrawn")
    clock.move(days=6)
    assert try_again(opened, policy, WHO) == Tried(None, NoRetryReason.BAND_OVER)


@pytest.mark.parametrize(
    ("status", "why"), [("sending", NotTried.UNDER_WAY), ("unknown", NotTried.UNKNOWN)]
)
def test_what_has_not_ended_is_not_tried_beside_it(
    opened: Book, policy: BillingPolicy, clock: MovedClock, status: str, why: NotTried
) -> None:
    becomes(opened, status)
    assert try_again(opened, policy, WHO) == Tried(clock.now, why)
    assert attempts(opened) == [(1, status)]


def test_an_attempt_that_is_planned_is_named(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    assert try_again(opened, policy, WHO) == Tried(clock.now, NotTried.PLANNED)


@pytest.mark.parametrize("change", [pause, cancel])
def test_only_an_active_one_is_tried(
    opened: Book, policy: BillingPolicy, change: Callable[[Book, BillingPolicy, str], Changed]
) -> None:
    change(opened, policy, WHO)
    assert try_again(opened, policy, WHO) == Tried(None, NotTried.NOT_ACTIVE)


def test_a_month_that_is_held_waits_for_a_person(opened: Book, policy: BillingPolicy) -> None:
    becomes(opened, "declined")
    execute(opened, "UPDATE cycles SET held = 'facts_mismatch' WHERE id = 1")
    assert try_again(opened, policy, WHO) == Tried(None, NotTried.HELD_CYCLE)
    assert attempts(opened) == [(1, "declined")]


def test_without_an_open_month_of_its_own_there_is_nothing_to_try(
    opened: Book, policy: BillingPolicy
) -> None:
    becomes(opened, "withdrawn")
    execute(
        opened,
        "UPDATE cycles SET status = 'missed', reason = 'not_attempted', settled_at = opened_at"
        " WHERE id = 1",
    )
    assert try_again(opened, policy, WHO) == Tried(None, NotTried.NO_OPEN_CYCLE)
    with pytest.raises(NotFound):
        try_again(opened, policy, "nobody")


def test_the_last_try_of_a_month_leaves_room_for_a_scan(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """The last slot is the very moment at which the last request may start, and whoever looks for
    what is due comes a little after it."""
    policy = make_policy(close_margin_minutes=360, charges_per_second=0, canary_charges=0)
    town = Town(book, policy, clock)
    town.subscribe()
    open_cycles(book, policy)
    becomes(book, "declined")
    execute(book, "UPDATE attempts SET message = '[0016] 미납', settled_at = :at", at=clock.now)
    town.at("2026-11-24 12:00")
    execute(book, "UPDATE attempts SET settled_at = :at", at=clock.now)
    planned = try_again(book, policy, WHO).at
    assert planned is not None
    town.at(f"{planned.astimezone(SEOUL):%Y-%m-%d %H:%M}")
    town.move(seconds=1)
    assert town.charge() == {"approved": 1}
