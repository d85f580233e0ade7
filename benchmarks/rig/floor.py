"""The bounded check of continuous integration: whether Maewol keeps up with what ran beside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

# What the rows of a run are called, or begin with.
LOOK = "bare loop, with look-up"
SCRIPT = "plain script"
MAEWOL = "maewol"


def below(found: Sequence[Mapping[str, Any]], floors: Mapping[str, float | None]) -> list[str]:
    """Where Maewol falls short of a floor, by ratios of `whole` within one run, so that a slow
    machine changes little."""
    problems = []
    for row in found:
        if row["what"].startswith(MAEWOL):
            if row["doubles"]:
                problems.append(f"{row['what']}: {row['doubles']} charged twice")
            for name, floor in floors.items():
                if floor is not None:
                    problems += _beside(row, name, floor, found)
    return problems


def _beside(
    row: Mapping[str, Any], name: str, floor: float, found: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What is wrong with one row beside the rows of a name. Where those differ, since the machine
    changed between them, behind is what is behind the slowest."""
    what, delay = row["what"], row["delay_ms"]
    others = [
        other["whole"]
        for other in found
        if other["delay_ms"] == delay and other["what"].startswith(name)
    ]
    if not others:
        return [f"{what}: no {name} was run to compare it with"]
    most, least = row["whole"] / min(others), row["whole"] / max(others)
    between = f"{least:.2f}" if len(others) == 1 else f"{least:.2f} to {most:.2f}"
    print(f"{what}: {between} of {name} (floor {floor})", file=sys.stderr)
    if most < floor:
        return [f"{what}: {most:.2f} of {name}, below {floor}"]
    return []


def heavier(found: Sequence[Mapping[str, Any]], most: float | None) -> list[str]:
    """Where Maewol takes more than so many times the processor time of the same requests, which
    holds beside other work, too. Both are told; of several, the one that took the most counts."""
    problems = []
    for row in found:
        beside = [
            other["processor_ms"]
            for other in found
            if other["what"] == LOOK and other["delay_ms"] == row["delay_ms"]
        ]
        if most is None or not row["what"].startswith(MAEWOL) or not row["processor_ms"]:
            continue
        if not beside:
            problems.append(f"{row['what']}: no {LOOK} was run to compare it with")
            continue
        ratio = row["processor_ms"] / max(beside)
        told = f"{row['what']}: {ratio:.1f} times the processor time of {LOOK}"
        print(f"{told} (at most {most})", file=sys.stderr)
        if ratio > most:
            problems.append(f"{told}, above {most}")
    return problems
