"""A failure made small and told: the fewest subscribers, months and kinds of fault that still lead
to it, then every line about the customer concerned, ours and the gateway's, in order of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from billing import clock
from billing.simulation.evidence import Evidence
from billing.simulation.ledger_judge import Breach
from billing.simulation.run import Report, Scenario
from billing.simulation.swarm import KINDS

_KOREA: Final = timezone(timedelta(hours=9))
# The dice fall differently in a smaller world; a few shuffles find the failure again.
_TWISTS: Final = 4
_LONGEST_STORY: Final = 120

Runner = Callable[[Scenario], Report]


@dataclass(frozen=True, slots=True)
class Failure:
    """The smallest run found that breaks the same promise."""

    report: Report
    breach: Breach
    tried: int


def made_small(report: Report, run: Runner, seconds: float, *, with_people: bool = True) -> Failure:
    """Look for a smaller run with a breach of the same rule, for about so long; without people only
    for a shorter one with fewer kinds of fault."""
    best = Failure(report, report.breaches[0], 1)
    deadline = clock.monotonic() + seconds
    rule, tried = best.breach.rule, 1
    improved = True
    while improved:
        improved = False
        for smaller in _smaller(best, with_people):
            for twist in range(_TWISTS):
                if clock.monotonic() > deadline:
                    return replace(best, tried=tried)
                tried += 1
                found = run(replace(smaller, twist=twist))
                same = [one for one in found.breaches if one.rule == rule]
                if same:
                    best, improved = Failure(found, same[0], tried), True
                    break
            if improved:
                break
    return replace(best, tried=tried)


def _smaller(failure: Failure, with_people: bool) -> Iterator[Scenario]:
    """Scenarios that are smaller than this one, the boldest first."""
    scenario = failure.report.scenario
    if with_people:
        yield from _of_fewer_people(scenario, failure.breach)
    if scenario.months > 1:
        yield replace(scenario, months=max(1.0, scenario.months / 2))
    active = sorted(set(failure.report.struck) & set(KINDS))
    for half in (active[: len(active) // 2], active[len(active) // 2 :]):
        if half:
            yield replace(scenario, without=scenario.without | set(half))
    if len(active) <= 6:
        for kind in active:
            yield replace(scenario, without=scenario.without | {kind})


def _of_fewer_people(scenario: Scenario, breach: Breach) -> Iterator[Scenario]:
    kept = scenario.only or tuple(range(1, scenario.subscribers + 1))
    number = breach.customer.rpartition("-")[2]
    if len(kept) > 1 and number.isdigit() and int(number) in kept:
        yield replace(scenario, only=(int(number),))
    elif len(kept) > 1:
        yield replace(scenario, only=kept[: len(kept) // 2])
        yield replace(scenario, only=kept[len(kept) // 2 :])


def told(failure: Failure) -> list[str]:
    """The story, line by line."""
    report, breach = failure.report, failure.breach
    who = breach.customer or _somebody(report)
    lines = sorted(
        [*_ours(report.evidence, who), *_gateways(report, who), *_around(report, who)],
        key=lambda line: line[0],
    )
    told = [f"{at.astimezone(_KOREA):%Y-%m-%d %H:%M:%S}  {what}" for at, what in lines]
    if len(told) > _LONGEST_STORY:
        told = [f"… {len(told) - _LONGEST_STORY} lines before", *told[-_LONGEST_STORY:]]
    return told


def _somebody(report: Report) -> str:
    return next((one.customer for one in report.breaches if one.customer), "")


def _ours(evidence: Evidence, who: str) -> Iterator[tuple[datetime, str]]:
    for line in evidence.told:
        if line.customer in ("", who):
            data = " ".join(f"{name}={value}" for name, value in line.data.items())
            yield line.at, f"book     {line.kind} {line.order} {data}".rstrip()


def _gateways(report: Report, who: str) -> Iterator[tuple[datetime, str]]:
    for one in report.evidence.asked:
        if one.customer == who:
            yield one.at, f"gateway  charge {one.order}: {one.outcome}"
    for paid in report.evidence.paid:
        if paid.customer == who:
            yield paid.at, f"gateway  {paid.amount} paid by {paid.order}"


def _around(report: Report, who: str) -> Iterator[tuple[datetime, str]]:
    for line in report.lines:
        if line.data.get("customer") in (None, who):
            data = " ".join(f"{name}={value}" for name, value in line.data.items())
            yield line.at.astimezone(UTC), f"world    {line.what} {data}".rstrip()


def command(scenario: Scenario, settings: Sequence[str] = (), *, of_book: bool = False) -> str:
    """The one command that repeats a run."""
    parts = [f"maewol simulate --seed {scenario.seed} --months {scenario.months:g}"]
    parts.append("--book" if of_book else f"--subscriptions {scenario.subscribers}")
    if scenario.chaos:
        parts.append("--chaos")
    if scenario.start is not None:
        parts.append(f"--start {scenario.start.isoformat()}")
    if scenario.only:
        parts.append(f"--only {','.join(map(str, scenario.only))}")
    if scenario.without:
        parts.append(f"--without {','.join(sorted(scenario.without))}")
    if scenario.twist:
        parts.append(f"--twist {scenario.twist}")
    return " ".join([*parts, *settings])
