"""Next months, to the row: in order of the ids, and written where no month was opened since."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import pytest

from billing.domain.policy import BillingPolicy
from billing.store import coming
from billing.store.coming import Coming
from billing.store.session import Book
from tests.builders import a_row, enrolled, execute, query
from tests.conftest import MovedClock

DAY = timedelta(days=1)


@pytest.fixture
def kept(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> Book:
    """Subscribers 1 to 4; none has a month yet. The next of each is due now and closes in a day."""
    enrolled(book, make_policy(), *(a_row(number) for number in range(1, 5)))
    execute(
        book,
        "UPDATE subscriptions SET next_due_at = :due, next_closes_at = :closes",
        due=clock.now,
        closes=clock.now + DAY,
    )
    return book


def after(book: Book, number: int, limit: int = 9) -> list[Coming]:
    with book.transaction() as tx:
        return coming.after(tx.session, number, limit)


def test_the_next_months_in_the_order_of_their_ids(kept: Book, clock: MovedClock) -> None:
    execute(kept, "UPDATE subscriptions SET next_cycle = 5 WHERE id = 2")
    month = (date(2026, 10, 20), 1, clock.now, clock.now + DAY)
    assert after(kept, 0)[0] == Coming(1, *month)
    assert after(kept, 1)[0].next_cycle == 5
    assert [one.id for one in after(kept, 0)] == [1, 2, 3, 4]
    assert [one.id for one in after(kept, 1, limit=2)] == [2, 3]
    assert after(kept, 4) == []


def test_of_all_who_may_be_charged_some_day(kept: Book) -> None:
    execute(kept, "UPDATE subscriptions SET status = 'paused' WHERE id = 1")
    execute(
        kept,
        "UPDATE subscriptions SET status = 'suspended', status_reason = 'chain_broken'"
        " WHERE id = 2",
    )
    execute(kept, "UPDATE subscriptions SET status = 'cancelled' WHERE id = 3")
    assert [one.id for one in after(kept, 0)] == [1, 2, 4]


def test_what_was_opened_meanwhile_is_left_alone(kept: Book, clock: MovedClock) -> None:
    first, second, *_ = after(kept, 0)
    due, closes = clock.now + 3 * DAY, clock.now + 4 * DAY
    execute(kept, "UPDATE subscriptions SET next_cycle = 2 WHERE id = 2")
    planned = [
        Coming(one.id, one.anchor_on, one.next_cycle, due, closes) for one in (first, second)
    ]
    with kept.transaction() as tx:
        coming.write(tx.session, planned)
        coming.write(tx.session, [])
    columns = "SELECT next_due_at, next_closes_at FROM subscriptions ORDER BY id"
    before = (clock.now, clock.now + DAY)
    assert query(kept, columns) == [(due, closes), before, before, before]
