"""The protocol holds in every order of steps, and each of its rules is needed."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import pytest

from tests.model.check import (
    BEYOND,
    MUTATIONS,
    NO_LAST_LOOK,
    PERSONALITIES,
    World,
    explore,
    tell,
)
from tests.model.world import Gateway, Spec, State


@cache
def world_of(name: str, faults: int = 1, duplicates: int = 0) -> World:
    return explore(Spec(), PERSONALITIES[name], State(faults=faults, duplicates=duplicates))


def assert_holds(world: World, beyond: frozenset[str] | set[str] = frozenset()) -> None:
    stories = world.counter_examples()
    tell(stories)
    assert set(stories) == beyond
    stuck = min(world.stuck(), default=None)
    assert stuck is None, world.story(stuck)
    assert all(world.states[number].woken for number in world.doubles)


@pytest.mark.parametrize("name", PERSONALITIES)
def test_the_rules_hold_and_every_cycle_can_end_settled(name: str) -> None:
    world = world_of(name)
    assert_holds(world, BEYOND.get(name, set()))
    assert len(world.states) > 20_000, "the model has lost its states"
    # A sender that slept past its lease is the one thing that can charge twice; it is told.
    assert world.doubles
    assert not world.silent()


def test_a_look_up_that_misses_a_payment_does_no_harm() -> None:
    assert_holds(explore(Spec(), Gateway(), State(lies=1)))


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_rule_is_needed(name: str) -> None:
    gateway, start = MUTATIONS[name]
    stories = explore(Spec(**{name: True}), gateway, start, stop_at_first=True).counter_examples()
    tell(stories)
    if gateway.late:
        stories.pop(NO_LAST_LOOK, None)
    assert stories, "switching this rule off breaks nothing"


def test_every_rule_is_switched_off_once() -> None:
    assert [field.name for field in fields(Spec)] == list(MUTATIONS)


def test_a_sleeper_charges_twice_under_one_order_only_at_a_racy_gateway() -> None:
    """Reliability P5: it wakes while its own order is sent again. Elsewhere, the order that it
    sends must have failed meanwhile, and the next one been paid."""

    def under_one_order(world: World) -> int:
        doubles = (world.states[number].rows for number in world.doubles)
        return sum(
            len({row.order for row in rows if row.status == "paid"}) == 1 for rows in doubles
        )

    assert under_one_order(world_of("racy"))
    assert not under_one_order(world_of("loose"))
    assert not under_one_order(world_of("strict"))


def test_a_payment_that_turns_paid_at_the_worst_moment_is_beyond_the_protocol() -> None:
    """Between the look-up and the charge, or when no attempt follows: for reconciliation."""
    world = explore(Spec(), Gateway(any_time=True), State())
    assert set(world.counter_examples()) == {
        "I1: charged twice",
        "I5: called declined, and it is paid",
        "I5: called not sent, and it is paid",
        "I5: sent although the gateway has the money",
        NO_LAST_LOOK,
    }
    assert not world.stuck()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", PERSONALITIES)
def test_with_more_faults_the_rules_hold(name: str) -> None:
    assert_holds(world_of(name, 2, 2), BEYOND.get(name, set()))
