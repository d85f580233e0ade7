"""Many seeds on several processes: finds the seed that breaks something, and sums up the rest."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.queues import SimpleQueue
from typing import Final

from sqlalchemy import Engine

from billing import logs
from billing.settings import Settings
from billing.simulation import stage
from billing.simulation.counters import CLASSES
from billing.simulation.ledger_judge import Breach
from billing.simulation.run import Report, Scenario, simulate

# One seed of so many is run twice; everything that happened must be the same.
TWICE_EVERY: Final = 100


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one seed came to: small enough to pass between processes."""

    scenario: Scenario
    breaches: tuple[Breach, ...]
    figures: Counter[str]
    struck: Counter[str]
    sometimes: Counter[str]
    digest: str
    days: float
    seconds: float
    repeated: bool = False

    @classmethod
    def of(cls, report: Report) -> Verdict:
        return cls(
            scenario=report.scenario,
            breaches=tuple(report.breaches[:20]),
            figures=report.figures,
            struck=report.struck,
            sometimes=report.sometimes,
            digest=report.digest,
            days=report.days,
            seconds=report.seconds,
        )


@dataclass(slots=True)
class Campaign:
    """The sum of many seeds."""

    seeds: int = 0
    repeated: int = 0
    days: float = 0.0
    figures: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    sometimes: Counter[str] = field(default_factory=Counter)
    failed: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        self.seeds += 1
        self.repeated += verdict.repeated
        self.days += verdict.days
        self.figures.update(verdict.figures)
        self.struck.update(verdict.struck)
        self.sometimes.update(verdict.sometimes)
        if verdict.breaches:
            self.failed.append(verdict)

    @property
    def never(self) -> list[str]:
        """What must happen sometimes and never did: nothing is proved about it."""
        return [name for name in CLASSES if not self.sometimes[name]]


def run_seeds(
    scenarios: Sequence[Scenario],
    settings: Settings,
    *,
    processes: int = 1,
    announce: Callable[[str], None] = lambda _: None,
) -> Iterator[Verdict]:
    """Run scenarios, in any order; each process has a PostgreSQL of its own.

    Raises `EmbeddedServerError`.
    """
    if processes <= 1:
        with one_database(announce) as engine:
            for scenario in scenarios:
                yield _one(engine, settings, scenario)
        return
    processes = min(processes, len(scenarios))
    with ExitStack() as servers:
        context = multiprocessing.get_context("spawn")
        urls: SimpleQueue[str] = context.SimpleQueue()
        for _ in range(processes):
            urls.put(servers.enter_context(stage.server(announce)))
        with ProcessPoolExecutor(processes, context, _begin, (urls, settings)) as pool:
            try:
                asked = [pool.submit(_in_pool, scenario) for scenario in scenarios]
                for answered in as_completed(asked):
                    yield answered.result()
            except BaseException:
                # Nobody waits for the rest, some of which is under way. Their databases go with
                # the servers, which are ours alone.
                for child in multiprocessing.active_children():
                    child.kill()
                raise


_pool: dict[str, tuple[Engine, Settings]] = {}


def _begin(urls: SimpleQueue[str], settings: Settings) -> None:
    # As in the process that began us, whose stdout is ours: only the results may go there.
    logs.configure("console", "ERROR")
    # Ctrl-C is for the process that began us: it sums up what is done, and ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    opened = stage.database(urls.get())
    _pool["mine"] = opened.__enter__(), settings
    _kept.append(opened)


# Held open as long as the process lives.
_kept: list[object] = []


def _in_pool(scenario: Scenario) -> Verdict:
    engine, settings = _pool["mine"]
    return _one(engine, settings, scenario)


def _one(engine: Engine, settings: Settings, scenario: Scenario) -> Verdict:
    verdict = Verdict.of(simulate(scenario, engine, settings=settings))
    if scenario.seed % TWICE_EVERY:
        return verdict
    again = simulate(scenario, engine, settings=settings)
    if again.digest == verdict.digest:
        return replace(verdict, repeated=True)
    what = "the same seed made another run: something reads a real clock, or chance without a seed"
    return replace(verdict, breaches=(*verdict.breaches, Breach("determinism", "", what)))


@contextmanager
def one_database(announce: Callable[[str], None]) -> Iterator[Engine]:
    """A server and a database for single runs. Raises `EmbeddedServerError`."""
    with stage.server(announce) as url, stage.database(url) as engine:
        yield engine
