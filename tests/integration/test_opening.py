"""What opening writes is what the calendar and the plan say, column for column."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta

import pytest

from billing.domain.calendar import SEOUL, cycle_dates
from billing.domain.plan import closes_at, first_attempt_at, last_start
from billing.domain.policy import BillingPolicy
from billing.services.open_cycles import new_cycle, open_cycles
from billing.store.session import Book
from billing.store.tables import Attempt, Cycle, Subscription
from tests.builders import a_row, enrolled, query
from tests.conftest import MovedClock


@pytest.mark.parametrize("day", [1, 5, 20, 28, 30, 31])
def test_every_column_is_the_plans(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock, day: int
) -> None:
    policy = make_policy()
    clock.move_to(datetime(2026, 11, 1, 9, 30, tzinfo=SEOUL))
    anchor = date(2026, 10, day)
    paid_at = datetime(2026, 10, day, 21, 15, 3, tzinfo=SEOUL)
    enrolled(book, policy, a_row(1, paid_at.isoformat()))
    clock.move(days=45)
    assert open_cycles(book, policy) == 1
    with book.transaction() as tx:
        (cycle,) = tx.session.query(Cycle)
        (attempt,) = tx.session.query(Attempt)
        (subscription,) = tx.session.query(Subscription)
        dates = cycle_dates(anchor, cycle.number, policy.plan.calendar)
        wanted = new_cycle(subscription, dates, clock.now, policy)
        for column in Cycle.__table__.columns:
            if column.key != "id":
                assert getattr(cycle, column.key) == getattr(wanted, column.key), column.key
        assert (attempt.number, attempt.status) == (1, "due")
        assert attempt.cycle_id == cycle.id
        assert attempt.merchant_uid.endswith(f"-{dates.month:%Y%m}-01")
        assert attempt.closes_at == closes_at(dates, policy.plan) == cycle.closes_at
        assert attempt.planned_at == attempt.ready_at == first_attempt_at(dates, policy.plan)
        assert cycle.last_start_at == last_start(dates, policy.plan)
        following = cycle_dates(anchor, cycle.number + 1, policy.plan.calendar)
        assert subscription.next_cycle == following.number
        assert subscription.next_due_at == first_attempt_at(following, policy.plan)
        assert subscription.next_closes_at == closes_at(following, policy.plan)
    ((told, subscription_id, cycle_id, attempt_id),) = query(
        book,
        "SELECT data, subscription_id, cycle_id, attempt_id FROM events"
        " WHERE kind = 'cycle.opened'",
    )
    assert told == {"cycle": cycle.number, "merchant_uid": attempt.merchant_uid}
    assert (subscription_id, cycle_id, attempt_id) == (subscription.id, cycle.id, attempt.id)


def test_many_at_once_keep_their_own(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """More than one batch, each with moments of its own."""
    policy = make_policy()
    clock.move_to(datetime(2026, 11, 1, 9, 30, tzinfo=SEOUL))
    count = 620
    enrolled(
        book,
        policy,
        *(
            a_row(number, datetime(2026, 10, 1 + number % 28, 12, tzinfo=SEOUL).isoformat())
            for number in range(count)
        ),
    )
    clock.move_to(clock.now + timedelta(days=30))
    assert open_cycles(book, policy) == count
    rows = query(
        book,
        "SELECT s.anchor_on, c.number, c.due_on, c.last_start_at, a.planned_at, s.next_cycle"
        " FROM subscriptions s JOIN cycles c ON c.subscription_id = s.id"
        " JOIN attempts a ON a.cycle_id = c.id",
    )
    assert len(rows) == count
    for anchor, number, due_on, last_start_at, planned_at, next_cycle in rows:
        dates = cycle_dates(anchor, number, policy.plan.calendar)
        assert due_on == dates.due_on
        assert last_start_at == last_start(dates, policy.plan)
        assert planned_at == first_attempt_at(dates, policy.plan)
        assert next_cycle == number + 1
