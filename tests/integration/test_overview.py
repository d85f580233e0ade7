"""The day in numbers, as the console's first page tells it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from billing.domain.calendar import day_of, end_of, start_of
from billing.domain.money import Sum
from billing.domain.policy import BillingPolicy
from billing.services import change_status
from billing.store import overview
from billing.store.overview import Day
from billing.store.session import Book
from tests.conftest import MovedClock
from tests.world import World


@pytest.fixture
def world(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> World:
    return World(book, make_policy(charges_per_second=0, canary_charges=0), clock)


def today(world: World) -> Day:
    with world.book.transaction() as tx:
        on = day_of(tx.now)
        soon = world.policy.closing_soon
        return overview.day(tx.session, tx.now, start_of(on), end_of(on), soon)


def test_a_second_attempt_is_a_retry_only_after_a_decline(world: World) -> None:
    world.enrol("paused", "paid")
    world.enrol("declined", script=["declined:0098"])
    assert today(world).later == Sum(3, 3 * 9900), "none of their months is open yet"
    world.open()
    change_status.pause(world.book, world.policy, "paused")
    change_status.resume(world.book, world.policy, "paused")
    assert (today(world).waiting, today(world).later) == (Sum(2, 2 * 9900), Sum(1, 9900))
    assert today(world).retrying == 0, "resumed at the next slot, and never declined"
    world.tick()
    seen = today(world)
    assert (seen.paid, seen.declined) == (Sum(1, 9900), 1)
    assert (seen.retrying, seen.later) == (1, Sum(2, 2 * 9900))
