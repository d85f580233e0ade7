"""Who is declined for good is suspended once the fault is not ours, and with the right reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from billing.domain.policy import BillingPolicy
from billing.services import confirm
from billing.services.change_status import pause
from billing.services.hold import hold, release
from billing.store.session import Book
from tests.builders import execute, query
from tests.conftest import MovedClock
from tests.world import World

GOOD = [f"customer-{number:02d}" for number in range(20)]


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0, canary_charges=0)


@pytest.fixture
def world(book: Book, policy: BillingPolicy, clock: MovedClock) -> World:
    """Most of them pay, so that a few who are gone are no mistake of ours."""
    made = World(book, policy, clock)
    made.enrol(*GOOD)
    return made


def declined(world: World, *names: str, by: str = "declined:0011") -> None:
    """They are charged once, and declined; nothing is confirmed yet."""
    world.enrol(*names, script=[by])
    world.open()
    world.tick()


def confirmed(world: World) -> int:
    return world.book.run(confirm.confirm_suspensions)


def suspended(world: World) -> list[tuple[Any, ...]]:
    return query(
        world.book,
        "SELECT customer_uid, status_reason FROM subscriptions WHERE status = 'suspended'"
        " ORDER BY customer_uid",
    )


def held(world: World) -> list[Any]:
    return [row[0] for row in query(world.book, "SELECT held FROM cycles WHERE held IS NOT NULL")]


def test_it_takes_half_a_minute_from_the_decline(world: World) -> None:
    declined(world, "gone")
    assert held(world) == ["unconfirmed"]
    ((declined_at,),) = query(
        world.book, "SELECT settled_at FROM attempts WHERE status = 'declined'"
    )
    world.clock.move_to(declined_at + timedelta(seconds=29))
    assert confirmed(world) == 0
    assert suspended(world) == []
    world.clock.move(seconds=1)
    assert confirmed(world) == 1
    assert suspended(world) == [("gone", "key_invalid")]
    assert held(world) == []
    # Done is done.
    assert confirmed(world) == 0


def test_it_is_written_down_and_told(world: World) -> None:
    declined(world, "gone")
    world.clock.move(minutes=1)
    assert confirmed(world) == 1
    ((cycle_id, subscription_id, data),) = query(
        world.book,
        "SELECT events.cycle_id, events.subscription_id, data FROM events"
        " WHERE kind = 'subscription.suspended'",
    )
    assert data == {"reason": "key_invalid"}
    assert query(
        world.book,
        "SELECT cycles.id, subscriptions.id FROM cycles"
        " JOIN subscriptions ON subscriptions.id = subscription_id WHERE customer_uid = 'gone'",
    ) == [(cycle_id, subscription_id)]
    assert query(
        world.book,
        "SELECT subscription_id, data ->> 'reason' FROM notices"
        " WHERE kind = 'subscription.suspended'",
    ) == [(subscription_id, "key_invalid")]


def test_a_broken_chain_is_told_as_one(world: World) -> None:
    declined(world, "gone", by="declined:0060")
    world.clock.move(minutes=1)
    assert confirmed(world) == 1
    assert suspended(world) == [("gone", "chain_broken")]


def test_the_newest_decline_says_why(world: World) -> None:
    """An earlier try of the month was declined for something else."""
    world.enrol("gone", script=["declined:0098", "declined:0060"])
    world.run(times=2)
    world.clock.move(hours=8)
    world.tick()
    assert held(world) == ["unconfirmed"]
    world.clock.move(minutes=1)
    assert confirmed(world) == 1
    assert suspended(world) == [("gone", "chain_broken")]
    assert query(world.book, "SELECT max(number) FROM attempts") == [(2,)]


def test_the_wait_begins_with_the_newest_decline(world: World) -> None:
    declined(world, "gone")
    world.clock.move(minutes=1)
    # As if one of an earlier number had been found declined just now.
    execute(world.book, "UPDATE attempts SET settled_at = now() WHERE status = 'declined'")
    ((at,),) = query(world.book, "SELECT settled_at FROM attempts WHERE status = 'declined'")
    world.clock.move_to(at + timedelta(seconds=10))
    assert confirmed(world) == 0


def test_who_is_paused_is_suspended_too(world: World) -> None:
    declined(world, "gone")
    pause(world.book, world.policy, "gone")
    world.clock.move(minutes=1)
    assert confirmed(world) == 1
    assert suspended(world) == [("gone", "key_invalid")]


def test_nobody_is_while_charging_is_held_and_all_are_after(world: World) -> None:
    declined(world, "gone")
    world.clock.move(minutes=1)
    hold(world.book, "a look first")
    assert confirmed(world) == 0
    assert suspended(world) == []
    release(world.book, world.policy)


def test_nobody_is_while_the_fault_may_be_ours(world: World) -> None:
    declined(world, "gone")
    world.clock.move(minutes=1)
    # Nobody was approved, and more than two are unknown.
    execute(world.book, "UPDATE gateway_health SET verdicts = 'sss'")
    assert confirmed(world) == 0
    assert suspended(world) == []


def test_many_are_suspended_in_several_steps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "BATCH", 2)
    declined(world, "gone-1", "gone-2", "gone-3")
    world.clock.move(minutes=1)
    assert [confirmed(world) for _ in range(3)] == [2, 1, 0]


def test_the_tick_that_closes_confirms(world: World) -> None:
    declined(world, "gone")
    world.clock.move(minutes=1)
    world.close()
    assert suspended(world) == [("gone", "key_invalid")]


def test_the_tick_that_closes_confirms_all_of_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirm, "BATCH", 2)
    declined(world, "gone-1", "gone-2", "gone-3")
    world.clock.move(minutes=1)
    world.close()
    assert len(suspended(world)) == 3


def test_each_has_its_own_wait_and_its_own_reason(world: World) -> None:
    declined(world, "gone-1")
    world.clock.move(seconds=20)
    world.enrol("gone-2", script=["declined:0060"])
    world.tick()
    assert held(world) == ["unconfirmed", "unconfirmed"]
    world.clock.move(seconds=15)
    assert confirmed(world) == 1
    assert suspended(world) == [("gone-1", "key_invalid")]
    world.clock.move(seconds=20)
    assert confirmed(world) == 1
    assert suspended(world) == [("gone-1", "key_invalid"), ("gone-2", "chain_broken")]


def test_one_that_somebody_works_on_keeps_nobody_waiting(world: World) -> None:
    declined(world, "gone-1", "gone-2")
    world.clock.move(minutes=1)
    with world.book.transaction() as tx:
        tx.session.execute(
            text("SELECT 1 FROM subscriptions WHERE customer_uid = 'gone-1' FOR UPDATE")
        )
        assert confirmed(world) == 1
    assert suspended(world) == [("gone-2", "key_invalid")]
    assert confirmed(world) == 1
