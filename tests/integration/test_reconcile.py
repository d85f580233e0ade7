"""Reconciliation: every kind of difference is planted, found and named; a clean book has none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from billing.domain.policy import BillingPolicy
from billing.store.session import Book
from tests.conftest import MovedClock
from tests.town import Town


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0)


@pytest.fixture
def town(book: Book, policy: BillingPolicy, clock: MovedClock) -> Town:
    """10:00 on 20 November 2026 in Seoul."""
    return Town(book, policy, clock)


def test_a_clean_book_has_no_difference(town: Town) -> None:
    town.subscribe(300)
    assert town.charge() == {"approved": 300}
    town.page_limit = 7
    town.move(minutes=5)
    report = town.reconcile()
    assert report.clean, report.differences
    assert report.counts["paid"] == 300
    assert report.counts["not_ours"] == 0
