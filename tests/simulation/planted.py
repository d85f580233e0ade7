"""Plants every bug in turn and shows after how many seeds and seconds the simulation finds it.

`make planted`, or `python -m tests.simulation.planted [words of a name]`; exit 1 for one not found.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from billing import logs
from billing.settings import Settings
from billing.simulation.campaign import one_database
from billing.simulation.ledger_judge import Breach
from billing.simulation.run import Scenario, simulate
from tests.simulation.bugs import BUGS, Bug


@dataclass(frozen=True)
class Found:
    bug: Bug
    seeds: int
    seconds: float
    breach: Breach | None


def hunt(bug: Bug, engine: Engine) -> Found:
    """Seed after seed, until a promise that this bug breaks is seen broken."""
    began = time.monotonic()
    recipe = {"months": 1.2, "subscribers": 8, **bug.recipe}
    with bug.plant():
        for seed in range(1, bug.seeds + 1):
            report = simulate(Scenario(seed=seed, **recipe), engine, settings=Settings.load())
            for breach in report.breaches:
                if breach.rule.partition(" ")[0] in bug.breaks:
                    return Found(bug, seed, time.monotonic() - began, breach)
    return Found(bug, bug.seeds, time.monotonic() - began, None)


def main(wanted: Sequence[str]) -> int:
    bugs = [bug for bug in BUGS if all(word in bug.name for word in wanted)]
    if not bugs:
        print(f"no planted mistake has all of these words in its name: {' '.join(wanted)}")
        return 2
    missed = 0
    logs.configure("console", "CRITICAL")
    print(f"{'planted bug':58} {'seeds':>5} {'seconds':>8}  found by")
    with one_database(lambda text: print(text, file=sys.stderr)) as engine:
        for bug in bugs:
            found = hunt(bug, engine)
            missed += found.breach is None
            by = "NOT FOUND" if found.breach is None else f"{found.breach.rule} {found.breach.what}"
            print(f"{bug.name:58} {found.seeds:5} {found.seconds:8.1f}  {by[:90]}", flush=True)
    print(f"{len(bugs) - missed} of {len(bugs)} found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
