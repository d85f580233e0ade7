"""What would be charged when: planned attempts and every month to come inside the span."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.errors import InvalidInput
from billing.domain.policy import BillingPolicy
from billing.services.forecast import due, moment_of
from billing.services.open_cycles import open_cycles
from billing.services.outlook import outlook
from billing.store.session import Book
from tests.builders import a_row, enrolled, execute
from tests.conftest import MovedClock


def test_months_to_come_are_all_there(book: Book, policy: BillingPolicy) -> None:
    enrolled(book, policy, a_row(1), a_row(2, "2026-10-31T14:30:00+09:00"))
    open_cycles(book, policy)
    found = list(due(book, policy, None, 100))
    assert [(one["customer_uid"], one["cycle"], one["at"]) for one in found] == [
        ("customer-1", 1, "2026-11-20T10:00:00+09:00"),
        ("customer-2", 1, "2026-11-27T10:00:00+09:00"),
        ("customer-1", 2, "2026-12-20T10:00:00+09:00"),
        ("customer-2", 2, "2026-12-28T10:00:00+09:00"),
        ("customer-1", 3, "2027-01-20T10:00:00+09:00"),
        ("customer-2", 3, "2027-01-28T10:00:00+09:00"),
        ("customer-1", 4, "2027-02-20T10:00:00+09:00"),
        ("customer-2", 4, "2027-02-26T10:00:00+09:00"),
    ]
    assert sum(one["amount"] for one in found) == 4 * 1001 + 4 * 1002


def test_a_planned_attempt_counts_with_its_own_moment(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """One that waits after a back-off goes when it is ready; one overdue goes at once."""
    enrolled(book, policy, a_row(1), a_row(2))
    open_cycles(book, policy)
    later = clock.now + timedelta(hours=3)
    execute(book, "UPDATE attempts SET ready_at = :at WHERE cycle_id = 1", at=later)
    clock.move(hours=1)
    found = [one["at"] for one in due(book, policy, None, 1)]
    assert found == ["2026-11-20T11:00:00+09:00", "2026-11-20T13:00:00+09:00"]


def test_a_span_ends_before_its_last_moment(book: Book, policy: BillingPolicy) -> None:
    enrolled(book, policy, a_row(1))
    since = moment_of("2026-11-19T10:00:00+09:00")
    assert list(due(book, policy, since, 1)) == []
    since = moment_of("2026-11-19T10:00:01+09:00")
    assert [one["cycle"] for one in due(book, policy, since, 1)] == [1]


@pytest.mark.parametrize("status", ["paused", "cancelled"])
def test_who_is_not_charged_is_not_there(book: Book, policy: BillingPolicy, status: str) -> None:
    enrolled(book, policy, a_row(1))
    execute(book, "UPDATE subscriptions SET status = :status", status=status)
    assert list(due(book, policy, None, 366)) == []


def test_who_shares_a_moment_is_sorted_by_name_whatever_was_planned(
    book: Book, policy: BillingPolicy
) -> None:
    """Planned attempts and months to come are one list; capitals go first, as bytes sort."""
    enrolled(book, policy, a_row(2), a_row(4))
    open_cycles(book, policy)
    other_anchor = a_row(5, "2025-08-20T14:30:00+09:00")
    enrolled(book, policy, a_row(1), a_row(3).replace("customer-3", "B"), other_anchor)
    found = [one["customer_uid"] for one in due(book, policy, None, 1)]
    assert found == ["B", "customer-1", "customer-2", "customer-4", "customer-5"]


def test_a_month_overdue_is_due_at_once(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """In a month and a few days the first has been charged; the second may be overdue."""
    enrolled(book, policy, a_row(1))
    since = clock.now + timedelta(days=35)
    found = [(one["cycle"], one["at"]) for one in due(book, policy, since, 1)]
    assert found == [(2, "2026-12-25T10:00:00+09:00")]


def days_with_charges(book: Book, policy: BillingPolicy) -> list[tuple[str, int]]:
    ahead = outlook(book, policy, 40)
    return [(day.on.isoformat(), day.charges.count) for day in ahead if day.charges.count]


def test_a_month_that_is_held_is_not_there(book: Book, policy: BillingPolicy) -> None:
    enrolled(book, policy, a_row(1), a_row(2))
    open_cycles(book, policy)
    execute(book, "UPDATE cycles SET held = 'contradiction' WHERE subscription_id = 1")
    assert [one["customer_uid"] for one in due(book, policy, None, 1)] == ["customer-2"]
    assert days_with_charges(book, policy) == [("2026-11-20", 1), ("2026-12-20", 2)]


@pytest.mark.parametrize("opened", [True, False])
def test_a_month_past_its_last_start_is_not_there(
    book: Book, policy: BillingPolicy, clock: MovedClock, opened: bool
) -> None:
    """Nor is one after it that nobody will open: the chain breaks at the close."""
    enrolled(book, policy, a_row(1))
    if opened:
        open_cycles(book, policy)
    clock.move_to(datetime(2026, 11, 25, 23, 31, tzinfo=SEOUL))
    assert list(due(book, policy, None, 1)) == []
    assert ("2026-11-25", 1) not in days_with_charges(book, policy)
    if not opened:
        assert list(due(book, policy, None, 40)) == []
        assert days_with_charges(book, policy) == []


def test_what_the_settings_in_force_plan_days_earlier_is_there_in_time(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """Before its turn to be planned anew: stored for the last slot of a band, now at its first."""
    late = make_policy(window_days=0, charge_cron="50 22 * * *")
    early = make_policy(band_retry_days=5, charge_cron="0 3 * * *")
    clock.move_to(datetime(2026, 12, 1, 9, tzinfo=SEOUL))
    enrolled(book, late, a_row(1, "2026-10-31T14:30:00+09:00"))
    since = moment_of("2026-12-26T02:30:00+09:00")
    assert list(due(book, late, since, 5)) == []
    assert [one["at"] for one in due(book, late, since, 6)] == ["2026-12-31T22:50:00+09:00"]
    assert [one["at"] for one in due(book, early, since, 1)] == ["2026-12-26T03:00:00+09:00"]


def test_a_month_that_narrower_settings_find_over_is_in_both(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """It keeps the window that it was planned with, and goes out today: in the list, and in the
    days ahead."""
    clock.move_to(datetime(2026, 11, 22, 9, tzinfo=SEOUL))
    enrolled(book, make_policy(), a_row(1))
    narrow = make_policy(window_days=0)
    assert [one["at"] for one in due(book, narrow, None, 1)] == ["2026-11-22T09:00:00+09:00"]
    assert days_with_charges(book, narrow) == [("2026-11-22", 1), ("2026-12-20", 1)]


@pytest.mark.parametrize("value", ["2026-11-20", "2026-11-20T10:00:00", "soon", ""])
def test_a_moment_needs_an_offset(value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        moment_of(value)
    assert (caught.value.field, caught.value.value) == ("--at", value)
    assert "+09:00" in caught.value.remedy
