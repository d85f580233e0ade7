"""One month, and one fault at every single point of its road: each world must end paid, once.

`make test` strikes every moment with two kinds of fault by turns, and the first with all;
`make simulate-points` strikes every moment with every kind, and pairs of them.

The story without a fault: the first attempt is declined for a passing reason, the second is charged
and its answer lost, the inquiry finds the payment. So the road goes through every use case. Then
the story is told again for each call of each port: dead before it, dead after it, its outcome not
known, lost, doubled, frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from billing.sandbox import LineChange, change
from billing.settings import Settings
from billing.simulation.cast import Drawn
from billing.simulation.nemesis import OneFault
from billing.simulation.people import Person
from billing.simulation.run import Report, Scenario, simulate
from billing.simulation.world import World
from billing.store.session import Book

START = datetime(2026, 11, 19, 23, 0, tzinfo=UTC)
STORY = Scenario(seed=1, months=0.05, chaos=False, start=START, trouble=0.0)
SOMEBODY = Person(
    customer_uid="customer-1",
    amount=9_900,
    order_name="plan",
    initial_paid_at=datetime(2026, 10, 20, 5, 30, tzinfo=UTC),
    initial_merchant_uid="initial-1",
    last_paid_at=None,
    tells_last_paid=True,
    buyer_name="홍길동",
    buyer_tel="010-0000-0001",
)
COMMITS = (
    "kill_before_commit",
    "kill_after_commit",
    "commit_lost_done",
    "commit_lost_undone",
    "deadlock",
)
REQUESTS = (
    "not_connected",
    "kill_before_request",
    "kill_after_request",
    "kill_after_answer",
    "answer_lost",
    "stop_before_look",
    "stop_before_send",
    "slow_way",
)
MESSAGES = ("message_lost", "message_doubled", "message_late")


@dataclass(frozen=True)
class OnStage:
    """One person whose line does what the story says."""

    person: Person = SOMEBODY
    does: Sequence[str] = ("declined:0098", "timeout_after_charge")

    def enter(self, world: World, book: Book) -> Sequence[Person]:
        people = Drawn([self.person]).enter(world, book)
        change(world.sandbox, self.person.customer_uid, LineChange(script=list(self.does)))
        return people


def tell(engine: Engine, nemesis: OneFault, **changes: Any) -> Report:
    scenario = replace(STORY, **changes)
    return simulate(scenario, engine, settings=Settings.load(), cast=OnStage(), nemesis=nemesis)


def faults_of(report: Report) -> list[str]:
    """Everything that is wrong with the end of a story."""
    wrong = [f"{one.rule}: {one.what}" for one in report.breaches]
    states = [month.status for month in report.evidence.months]
    ours = [one for one in report.evidence.paid if one.ours]
    if states != ["paid"] or len(ours) != 1:
        wrong.append(f"ended {states} with {len(ours)} payments")
    return wrong


def test_the_story_itself(engine: Engine) -> None:
    report = tell(engine, OneFault())
    assert faults_of(report) == []
    kinds = [line.kind for line in report.evidence.told if line.kind.startswith("attempt.")]
    assert kinds == [
        "attempt.sending",
        "attempt.declined",
        "attempt.planned",
        "attempt.sending",
        "attempt.unknown",
        "attempt.approved",
    ]


ROADS = pytest.mark.parametrize(
    "kinds", [COMMITS, REQUESTS, MESSAGES], ids=["commit", "wire", "queue"]
)


def points_of(engine: Engine, kinds: Sequence[str]) -> list[tuple[str, int]]:
    """Every kind of fault with every moment at which it can happen."""
    calm = OneFault()
    tell(engine, calm)
    points = [(kind, nth) for kind in kinds for nth in range(1, calm.asked[kind] + 1)]
    assert len(points) >= 2 * len(kinds)
    return points


def assert_all_end_paid(engine: Engine, points: Sequence[tuple[str, int]]) -> None:
    wrong, struck = {}, 0
    for point in points:
        nemesis = OneFault(*point)
        if faults := faults_of(tell(engine, nemesis)):
            wrong[point] = faults
        struck += sum(nemesis.struck.values())
    assert wrong == {}
    assert struck == len(points)


@pytest.mark.timeout(300)
@ROADS
def test_every_moment_and_every_kind(engine: Engine, kinds: Sequence[str]) -> None:
    """The first moment with every kind, each later one with one: the next moment the next."""
    points = points_of(engine, kinds)
    turns = [point for point in points if point[1] == 1]
    for moment in sorted({nth for _, nth in points} - {1}):
        here = [kind for kind, nth in points if nth == moment]
        turns.append((here[moment % len(here)], moment))
    assert {kind for kind, _ in turns} == set(kinds)
    assert_all_end_paid(engine, turns)


@pytest.mark.long
@pytest.mark.timeout(1800)
@ROADS
def test_every_single_point(engine: Engine, kinds: Sequence[str]) -> None:
    assert_all_end_paid(engine, points_of(engine, kinds))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_pair_of_commit_points(engine: Engine) -> None:
    """A second crash while the first is being mended: it needs room for one more recovery."""
    calm = OneFault()
    tell(engine, calm)
    singles = [
        (kind, nth)
        for kind in ("kill_before_commit", "kill_after_commit", "kill_after_request")
        for nth in range(1, calm.asked[kind] + 4)
    ]
    wrong = {}
    for number, first in enumerate(singles):
        for second in singles[number + 1 :]:
            nemesis = OneFault(*first, also=second)
            if faults := faults_of(tell(engine, nemesis)):
                wrong[first, second] = faults
    assert wrong == {}


def test_a_story_told_twice_is_the_same(engine: Engine) -> None:
    nemesis = ("kill_after_request", 2)
    first, second = (tell(engine, OneFault(*nemesis)) for _ in range(2))
    assert first.digest == second.digest
    assert timedelta(days=first.days) >= timedelta(days=1.5)
