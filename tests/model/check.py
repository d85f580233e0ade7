"""Tries every order of steps, breadth first, so that the first way to break a rule is a short one.

`python -m tests.model.check [FAULTS DUPLICATES]` prints the tables of docs/protocol.md.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from tests.model.protocol import steps
from tests.model.world import Gateway, Spec, State, normal, paid

PERSONALITIES = {
    "loose": Gateway(),
    "strict": Gateway(strict=True),
    "laggy": Gateway(laggy=True),
    "racy": Gateway(racy=True),
    "late-paying": Gateway(late=True),
}
# A failed payment turns paid when no attempt follows that would look: the cycle is closed without a
# last look, and only reconciliation finds out (docs/protocol.md).
NO_LAST_LOOK = "I4: called missed (declined), and the gateway has the money or a request"
BEYOND = {"late-paying": {NO_LAST_LOOK}}
# Each rule switched off, and where that shows: the gateway, and what may go wrong.
TWICE = State(faults=1, duplicates=2)
MUTATIONS = {
    "no_fence": (Gateway(), TWICE),
    "claim_without_status": (Gateway(), TWICE),
    "no_settle": (Gateway(), TWICE),
    "settle_from_claim": (Gateway(), TWICE),
    "new_order_on_unknown": (Gateway(), TWICE),
    "absence_believed_at_once": (Gateway(), TWICE),
    "one_look": (Gateway(), State(lies=1)),
    "no_look_before_charge": (Gateway(late=True), State()),
    "close_before_settled": (Gateway(), TWICE),
    "look_counts_when_recorded": (Gateway(laggy=True), TWICE),
}


@dataclass
class World:
    """All states reachable from a start, how each was first reached, and what was broken."""

    spec: Spec
    gateway: Gateway
    start: State
    numbers: dict[State, int] = field(default_factory=dict)
    states: list[State] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    # By number: the states one step before it, the step being no fault.
    before: list[list[int]] = field(default_factory=list)
    transitions: int = 0
    # The first way to break each rule: the state before, and the step that does it.
    broken: dict[str, tuple[int, str]] = field(default_factory=dict)
    doubles: list[int] = field(default_factory=list)

    def add(self, state: State, parent: int) -> int:
        number = self.numbers[state] = len(self.states)
        self.states.append(state)
        self.parents.append(parent)
        self.before.append([])
        return number

    def story(self, number: int, last: str = "") -> list[str]:
        """What happened from the start to this state; each worker keeps its name."""
        way = [number]
        while way[-1]:
            way.append(self.parents[way[-1]])
        way.reverse()
        names, told = ["A", "B"], []
        for here, there in pairwise(way):
            step = next(
                step
                for step in steps(self.states[here], self.spec, self.gateway)
                if normal(step.state, self.spec) == self.states[there]
            )
            told.append(step.story.format(*names))
            moved = sorted(zip(step.state.workers, names, strict=True))
            names = [name for _, name in moved]
        return [*told, last.format(*names)] if last else told

    def counter_examples(self) -> dict[str, list[str]]:
        """The shortest story of each rule that was broken."""
        return {rule: self.story(*where) for rule, where in self.broken.items()}

    def without_way_to(self, goals: Iterable[int]) -> set[int]:
        """States from which no steps, faults excepted, lead to any of these."""
        can = set(goals)
        waiting = list(can)
        while waiting:
            new = [one for one in self.before[waiting.pop()] if one not in can]
            can.update(new)
            waiting += new
        return set(range(len(self.states))) - can

    def stuck(self) -> set[int]:
        """States from which the cycle cannot end settled, although nothing goes wrong any more."""
        return self.without_way_to(n for n, state in enumerate(self.states) if is_settled(state))

    def silent(self) -> set[int]:
        """Second payments of which nobody need ever be told."""
        told = (number for number, state in enumerate(self.states) if state.alarm)
        return self.without_way_to(told) & set(self.doubles)


def is_settled(state: State) -> bool:
    """The cycle ended, and its attempt is no open question."""
    return state.cycle != "open" and state.attempt.status in ("approved", "declined", "withdrawn")


def explore(spec: Spec, gateway: Gateway, start: State, *, stop_at_first: bool = False) -> World:
    """Every reachable state, each once. With `stop_at_first`, up to the first rule that is broken
    and is not broken anyway."""
    known = {NO_LAST_LOOK} if gateway.late else set()
    world = World(spec, gateway, start)
    world.add(start, 0)
    waiting = deque([start])
    while waiting and not (stop_at_first and world.broken.keys() - known):
        state = waiting.popleft()
        number = world.numbers[state]
        for step in steps(state, spec, gateway):
            world.transitions += 1
            if step.broken:
                world.broken.setdefault(step.broken, (number, step.story))
            after = normal(step.state, spec)
            found = world.numbers.get(after)
            if found is None:
                found = world.add(after, number)
                waiting.append(after)
                if paid(after) > 1:
                    world.doubles.append(found)
                    if not after.woken:
                        world.broken.setdefault("I1: charged twice", (number, step.story))
            if not step.fault:
                world.before[found].append(number)
    return world


def main(faults: int, duplicates: int) -> None:
    """Print what docs/protocol.md quotes."""
    print("| gateway | states | transitions | seconds | rules broken | doubles | silent |")
    for name, gateway in PERSONALITIES.items():
        began = time.perf_counter()
        world = explore(Spec(), gateway, State(faults=faults, duplicates=duplicates))
        seconds = time.perf_counter() - began
        print(
            f"| {name} | {len(world.states):,} | {world.transitions:,} | {seconds:.0f}"
            f" | {len(world.broken)} | {len(world.doubles):,} | {len(world.silent()):,} |",
            flush=True,
        )
        tell(world.counter_examples())
    for name, (gateway, start) in MUTATIONS.items():
        world = explore(Spec(**{name: True}), gateway, start, stop_at_first=True)
        for rule, story in world.counter_examples().items():
            tell({f"{name}, in {len(world.states):,} states: {rule}": story})


def tell(stories: dict[str, list[str]]) -> None:
    for title, story in stories.items():
        print(f"\n{title}", *(f"  {at}. {what}" for at, what in enumerate(story, 1)), sep="\n")


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:3] or ("1", "1")))
