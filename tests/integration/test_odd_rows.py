"""One odd row keeps nobody else waiting: it is put aside, or left, and told of; the others go on.

Such rows are made behind the book's back, by hand or by other versions of this code. Nothing here
is refused by the schema.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from billing.domain.policy import BillingPolicy
from billing.services.change_status import pause
from billing.services.close_cycles import close_cycles
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.builders import execute, query, subscribed
from tests.conftest import MovedClock
from tests.world import World

ODD = "customer_uid = 'customer-1'"
AROUND = "SET LOCAL session_replication_role = replica; "


def of_others(book: Book, what: str) -> list[tuple[Any, ...]]:
    """That of each month, of all but the first subscriber."""
    return query(book, f"SELECT {what} FROM cycles WHERE subscription_id > 1 ORDER BY id")


def alarms(book: Book, kind: str) -> list[tuple[int, dict[str, Any]]]:
    """Whom each alarm of a kind is about, and what it says."""
    told = "SELECT subscription_id, data FROM events WHERE alarm AND kind = :kind ORDER BY id"
    return query(book, told, kind=kind)  # type: ignore[return-value]


@pytest.fixture
def world(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> World:
    return World(book, make_policy(charge_cron="* * * * *", charges_per_second=0), clock)


# -- what Python cannot read --------------------------------------------------------------------


def test_moments_beyond_the_calendar_are_read_as_its_ends(book: Book) -> None:
    first, last = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
    for text, read in {
        "infinity": last,
        "20000-01-01": last,
        # Read by the driver, and on no day in Seoul.
        "9999-12-31 23:59:59+00": last,
        "-infinity": first,
        "0044-03-15 BC": first,
        "2026-11-20 10:00+09": datetime(2026, 11, 20, 1, tzinfo=UTC),
    }.items():
        ((moment, day, none),) = query(
            book, f"SELECT '{text}'::timestamptz, '{text}'::date, NULL::date"
        )
        assert (moment, day, none) == (read, read.date(), None)


def test_who_is_never_due_keeps_nobody_from_being_planned_anew(
    book: Book, policy: BillingPolicy, make_policy: Callable[..., BillingPolicy]
) -> None:
    """Whoever wants a customer left alone may write that into the row."""
    assert open_cycles(book, policy) == 0, "planned by these settings"
    subscribed(book, policy, 3)
    execute(book, f"UPDATE subscriptions SET next_due_at = 'infinity' WHERE {ODD}")
    assert open_cycles(book, policy) == 2
    other = make_policy(charge_cron="0 9 * * *")
    execute(book, f"UPDATE subscriptions SET next_closes_at = '-infinity' WHERE {ODD}")
    assert open_cycles(book, other) == 1, "planned anew, and due"


@pytest.mark.parametrize("moment", ["infinity", "9999-12-31 23:59:59+00"])
def test_an_attempt_that_is_never_ready_keeps_nobody_from_being_warned_and_closed(
    book: Book, policy: BillingPolicy, clock: MovedClock, moment: str
) -> None:
    subscribed(book, policy, 3)
    assert open_cycles(book, policy) == 3
    execute(book, f"UPDATE attempts SET ready_at = '{moment}' WHERE id = 1")
    clock.move_to(datetime(2026, 11, 25, 12, tzinfo=UTC))
    close_cycles(book, policy)
    assert len(alarms(book, "cycle.closing_soon")) == 3
    clock.move(days=1)
    assert close_cycles(book, policy) == 3


def test_facts_of_no_time_keep_nobody_from_being_charged(world: World) -> None:
    """They are claimed together; the odd one's month is held, since its seal is broken."""
    world.enrol("customer-1", "customer-2", "customer-3")
    execute(
        world.book, f"{AROUND}UPDATE subscriptions SET initial_paid_at = 'infinity' WHERE {ODD}"
    )
    world.run(times=3)
    assert of_others(world.book, "status") == [("paid",), ("paid",)]
    assert query(world.book, "SELECT held FROM cycles WHERE subscription_id = 1") == [
        ("facts_changed",)
    ]


# -- months that cannot be ----------------------------------------------------------------------


@pytest.mark.parametrize("facts", ["next_cycle = 100000", "anchor_on = 'infinity'"])
def test_a_month_of_no_calendar_keeps_nobody_from_being_opened(
    book: Book,
    policy: BillingPolicy,
    make_policy: Callable[..., BillingPolicy],
    clock: MovedClock,
    facts: str,
) -> None:
    subscribed(book, policy, 3)
    execute(book, f"{AROUND}UPDATE subscriptions SET {facts} WHERE {ODD}")
    assert open_cycles(book, make_policy(charge_cron="0 9 * * *")) == 2
    ((whose, told),) = alarms(book, "cycle.not_opened")
    assert (whose, "beyond the year 9999" in told["why"]) == (1, True)
    assert query(book, "SELECT next_due_at FROM subscriptions WHERE id = 1") == [
        (clock.now + timedelta(hours=1),)
    ]
    # Looked at hourly, told of daily; and put right, it is opened.
    clock.move(hours=2)
    assert open_cycles(book, policy) == 0
    assert len(alarms(book, "cycle.not_opened")) == 1
    clock.move(days=1)
    assert open_cycles(book, policy) == 0
    assert len(alarms(book, "cycle.not_opened")) == 2
    right = "next_cycle = 1, anchor_on = '2026-10-20'"
    execute(book, f"{AROUND}UPDATE subscriptions SET {right} WHERE {ODD}")
    clock.move(hours=2)
    assert open_cycles(book, policy) == 1


def test_a_paused_month_of_no_calendar_keeps_nobody_from_being_skipped(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    subscribed(book, policy, 3)
    for number in (1, 2, 3):
        pause(book, policy, f"customer-{number}")
    execute(book, f"UPDATE subscriptions SET next_cycle = 100000 WHERE {ODD}")
    clock.move(days=10)
    assert close_cycles(book, policy) == 2
    assert of_others(book, "status") == [("skipped",), ("skipped",)]
    clock.move(hours=2)
    assert close_cycles(book, policy) == 0
    ((whose, told),) = alarms(book, "cycle.not_opened")
    assert (whose, told["cycle"]) == (1, 100000)


@pytest.mark.parametrize("tag", ["(SELECT tag FROM subscriptions WHERE id = 2)", "'한 글자'"])
def test_an_attempt_that_cannot_have_its_name_keeps_nobody_from_being_opened(
    book: Book, policy: BillingPolicy, clock: MovedClock, tag: str
) -> None:
    """The tag is no fact. Of two with one name neither is tried: the gateway would take the second
    charge for the first, or both for one customer's."""
    subscribed(book, policy, 3)
    ((own,),) = query(book, "SELECT tag FROM subscriptions WHERE id = 1")
    execute(book, f"UPDATE subscriptions SET tag = {tag} WHERE id = 1")
    twins = "SELECT" in tag
    assert open_cycles(book, policy) == (1 if twins else 2)
    assert query(book, "SELECT count(*) FROM attempts") == query(
        book, "SELECT count(*) FROM cycles"
    )
    assert len(alarms(book, "cycle.not_opened")) == (2 if twins else 1)
    execute(book, "UPDATE subscriptions SET tag = :own WHERE id = 1", own=own)
    clock.move(hours=2)
    assert open_cycles(book, policy) == (2 if twins else 1)
    assert query(book, "SELECT month, number FROM cycles WHERE subscription_id = 1") == [
        (date(2026, 11, 1), 1)
    ]


def test_a_name_that_another_month_has_is_not_given_again(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    assert open_cycles(book, policy) == 0, "planned by these settings"
    subscribed(book, policy, 2)
    execute(book, "UPDATE subscriptions SET next_due_at = 'infinity' WHERE id = 1")
    assert open_cycles(book, policy) == 1
    of_another = "tag = (SELECT tag FROM subscriptions WHERE id = 2), next_due_at = '2026-11-20'"
    execute(book, f"UPDATE subscriptions SET {of_another} WHERE id = 1")
    assert open_cycles(book, policy) == 0
    assert query(book, "SELECT next_cycle, next_closes_at FROM subscriptions WHERE id = 1") == [
        (1, datetime(2026, 11, 25, 15, tzinfo=UTC))
    ]
    ((whose, told),) = alarms(book, "cycle.not_opened")
    assert (whose, "cannot be its attempt's name" in told["why"]) == (1, True)
