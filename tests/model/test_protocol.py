"""The protocol holds in every order of steps, and each of its rules is needed."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.check import MUTATIONS, PERSONALITIES, World, explore, tell
from tests.model.world import Gateway, Spec, State

ONE_FAULT = State(faults=1)


def assert_holds(world: World) -> None:
    tell(world.counter_examples())
    assert not world.broken
    stuck = min(world.stuck(), default=None)
    assert stuck is None, world.story(stuck)
    assert all(world.states[number].woken for number in world.doubles)


@pytest.mark.parametrize("name", PERSONALITIES)
def test_the_rules_hold_and_every_cycle_can_end_settled(name: str) -> None:
    world = explore(Spec(), PERSONALITIES[name], ONE_FAULT)
    assert_holds(world)
    assert len(world.states) > 20_000, "the model has lost its states"
    # A sender that slept past its lease is the one thing that can charge twice; it is told.
    assert world.doubles
    assert not world.silent()


@pytest.mark.parametrize("lies", [1, 2])
def test_look_ups_that_miss_a_payment_do_no_harm(lies: int) -> None:
    assert_holds(explore(Spec(), Gateway(), State(lies=lies)))


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_rule_is_needed(name: str) -> None:
    gateway, start = MUTATIONS[name]
    stories = explore(Spec(**{name: True}), gateway, start, stop_at_first=True).counter_examples()
    tell(stories)
    assert stories, "switching this rule off breaks nothing"


def test_every_rule_is_switched_off_once() -> None:
    assert [field.name for field in fields(Spec)] == list(MUTATIONS)


def test_a_racy_gateway_and_a_sleeper_charge_twice_under_one_order() -> None:
    """Reliability P5, the residual: the sender wakes while its own order is sent again."""
    world = explore(Spec(), Gateway(racy=True), State(faults=1))
    doubles = [world.states[number] for number in world.doubles]
    one_order = [one for one in doubles if len({row.order for row in one.rows}) == 1]
    assert one_order
    strict = explore(Spec(), Gateway(), State(faults=1))
    for number in strict.doubles:
        rows = strict.states[number].rows
        assert len({row.order for row in rows if row.status == "paid"}) == 2


def test_a_payment_that_turns_paid_at_the_worst_moment_is_beyond_the_protocol() -> None:
    """Between the look-up and the charge, or when no attempt follows: for reconciliation."""
    world = explore(Spec(), Gateway(any_time=True), State())
    stories = world.counter_examples()
    assert set(stories) == {
        "I1: charged twice",
        "I4: called missed (declined), and the gateway has the money or a request",
        "I5: called declined, and it is paid",
        "I5: sent although the gateway has the money",
    }


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", PERSONALITIES)
def test_with_more_faults_the_rules_hold(name: str) -> None:
    assert_holds(explore(Spec(), PERSONALITIES[name], State(faults=2, duplicates=2)))
