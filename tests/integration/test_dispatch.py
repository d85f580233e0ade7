"""What is due is handed to the workers: in messages, so many at once, again when one is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from billing.domain.policy import BillingPolicy
from billing.services.dispatch import _hand_out, dispatch
from billing.services.hold import hold
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.builders import query
from tests.conftest import MovedClock
from tests.world import World


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    """A full queue of seven a second takes a minute and a half to drain."""
    return make_policy(
        charge_cron="* * * * *",
        charge_batch=2,
        charges_per_second=7,
        max_outstanding=2000,
        canary_charges=0,
    )


@pytest.fixture
def world(book: Book, policy: BillingPolicy, clock: MovedClock) -> World:
    """Five are due."""
    made = World(book, policy, clock)
    made.enrol(*(f"customer-{number}" for number in range(5)))
    assert open_cycles(book, policy) == 5
    return made


def handed_out(world: World) -> int:
    return dispatch(world.book, world, world.policy)


def test_each_is_in_one_message_and_a_message_holds_a_batch(world: World) -> None:
    assert handed_out(world) == 5
    assert [len(ids) for ids in world.charges] == [2, 2, 1]
    due = [row[0] for row in query(world.book, "SELECT id FROM attempts ORDER BY id")]
    assert sorted(one for ids in world.charges for one in ids) == due


def test_what_may_wait_in_the_queue_is_not_handed_out_twice(world: World) -> None:
    """One message is enough to say that the queue was not lost; when none is left, they were."""
    handed_out(world)
    while len(world.charges) > 1:
        world.charges.popleft()
    world.clock.move(seconds=61)
    assert handed_out(world) == 0
    world.charges.clear()
    assert handed_out(world) == 5


def test_no_more_are_outstanding_than_the_workers_get_through(
    world: World, make_policy: Callable[..., BillingPolicy]
) -> None:
    """What closes soonest would wait behind them."""
    world.policy = make_policy(charge_cron="* * * * *", max_outstanding=3, canary_charges=0)
    assert handed_out(world) == 3
    assert handed_out(world) == 0
    world.work()
    assert handed_out(world) == 2
    world.work()
    assert world.statuses("cycles") == {"paid": 5}


def test_two_dispatchers_do_not_fill_the_same_places(
    world: World, make_policy: Callable[..., BillingPolicy]
) -> None:
    """The second counts what the first hands out, though that is not committed when it begins."""
    world.policy = make_policy(charge_cron="* * * * *", max_outstanding=3, canary_charges=0)
    counts: list[int] = []
    other = threading.Thread(target=lambda: counts.append(handed_out(world)))
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with world.book.transaction() as tx:
        assert len(_hand_out(tx, world.policy, drained=True)) == 3
        other.start()
        while other.is_alive() and query(world.book, blocked) == [(0,)]:
            other.join(0.05)
    other.join(30)
    assert counts == [0]


def test_the_last_free_place_is_used(
    world: World, make_policy: Callable[..., BillingPolicy]
) -> None:
    world.policy = make_policy(charge_cron="* * * * *", max_outstanding=1, canary_charges=0)
    assert handed_out(world) == 1


def test_while_all_is_held_nothing_leaves(world: World) -> None:
    hold(world.book, "a look first")
    assert handed_out(world) == 0
    assert not world.charges
