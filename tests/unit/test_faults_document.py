"""The page of faults names tests and kinds of fault that exist, and every kind that is drawn."""

from __future__ import annotations

import re
from pathlib import Path

from billing.simulation.swarm import KINDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
_TEST = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)
LINES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| fault |")
]


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(\w+\.py)::(\w+)`", PAGE))
    there = {
        (path.name, test)
        for path in (ROOT / "tests").rglob("test_*.py")
        for test in _TEST.findall(path.read_text(encoding="utf-8"))
    }
    assert named - there == set()


def test_every_fault_has_a_test() -> None:
    assert len(LINES) > 40
    assert [line[0] for line in LINES if len(line) != 4 or "::" not in line[2]] == []


def test_the_kinds_that_are_simulated_are_those_that_are_drawn() -> None:
    named = {kind for line in LINES for kind in re.findall(r"`(\w+)`", line[3])}
    assert named == set(KINDS)
