"""Real processes for a test of this folder: a gateway, beats, ticks, charging workers, and a cast
whose every member must be paid exactly once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.builders import plain
from tests.chaos.cast import Ending, Member, NotToday, members
from tests.chaos.programs import Program
from tests.chaos.world import World, _python, _worker

PATIENCE_SECONDS = 50.0
# Charges take a moment, so that a blow in the middle of the work finds some at the gateway.
QUIET = {"lookup_lag_seconds": 0.3, "latency": {"charge": [40, 120], "lookup": [2, 10]}}


@dataclass(frozen=True)
class Addresses:
    """What the rig of chaos wants to know of its servers."""

    database_url: str
    broker_url: str


class Stage:
    """A world and its cast. Made by `a_stage`."""

    def __init__(self, world: World, cast: Sequence[Member], settings: Mapping[str, str]) -> None:
        self.world = world
        self.waiting = list(cast)
        self.cast: list[Member] = []
        self.settings = settings

    def enrol(self, count: int, code: Path | None = None) -> None:
        """Enrol so many more; `code` is another tree than this one, whose command does it."""
        more, self.waiting = self.waiting[:count], self.waiting[count:]
        env, ours = self.world.env, self.world.env["PYTHONPATH"]
        env["PYTHONPATH"] = ours if code is None else str(code)
        self.world.enrol(more)
        env["PYTHONPATH"] = ours
        self.cast += more

    def start(self, *names: str, env: Mapping[str, str] | None = None) -> None:
        """Start daemons by name: `beat1`, `ticks2`, `charges1` …"""
        for name in names:
            self.world.programs.start(daemon(name, {**self.settings, **(env or {})}))

    def stop(self, *names: str) -> None:
        """Stop daemons for good, as a deploy does, and wait until they have left."""
        self.world.programs.retire(names)

    def paid_at_gateway(self) -> Counter[str]:
        """Payments that were asked for, by customer, in the gateway's own ledger."""
        return Counter(
            row["customer_uid"]
            for row in self.world.payments()
            if row["origin"] == "again" and row["paid_at"]
        )

    def until_worked(self, *names: str) -> None:
        """Wait until each of these was seen to finish some work."""
        work = self.world.programs.work
        until(lambda: all(work[name] for name in names), self.told)

    def until_charged(self, count: int) -> None:
        """Wait until so many have been charged at the gateway."""
        until(lambda: len(self.paid_at_gateway()) >= count, self.told)

    def until_paid(self, database_url: str | None = None) -> None:
        """Wait until the book holds everybody of the cast as paid."""
        url = database_url or self.world.env["MAEWOL_DATABASE_URL"]
        until(lambda: paid_in_book(url) == len(self.cast), self.told)

    def told(self) -> str:
        """The last words of every process, for a test that waited in vain."""
        names = self.world.programs.names()
        return "\n".join(
            f"--- {name}\n{self.world.programs.log(name).read_text()[-1500:]}" for name in names
        )

    def all_is_well(self) -> None:
        """Everybody was charged once, by one request, and the book's facts hold."""
        everybody = Counter(one.customer_uid for one in self.cast)
        assert self.paid_at_gateway() == everybody
        verdict = self.world.ask("/sandbox/verdict", patience=10)
        assert verdict["ok"], verdict
        assert not [one for one in self.world.maewol("invariants") if one["rows"]]


@contextmanager
def a_stage(
    folder: Path,
    addresses: Addresses,
    *,
    count: int = 60,
    rate: float = 12,
    **settings: str,
) -> Iterator[Stage]:
    """A gateway, a migrated book, and a cast of so many that waits to be enrolled; no daemon."""
    try:
        plain = [one for one in members(2 * count, 7, datetime.now(UTC)) if not one.says]
    except NotToday as error:
        pytest.skip(str(error))
    cast = [one for one in plain if one.ending is Ending.PAID][:count]
    world = World(folder, 7, rate, addresses)  # type: ignore[arg-type]
    env = {f"MAEWOL_{name}": value for name, value in settings.items()}
    world.env.update(env)
    with world.programs:
        world.mood(QUIET)
        world.start_gateway()
        yield Stage(world, cast, env)


def daemon(name: str, env: Mapping[str, str]) -> Program:
    """One of the contract's commands."""
    match name.rstrip("0123456789"):
        case "beat":
            return Program(
                name, _python("celery", "-A", "scheduler", "beat"), works=r"beat", env=env
            )
        case "ticks":
            made = _worker(name, "scheduler", "ticks", r"succeeded in")
        case "charges":
            made = _worker(name, "worker", "charges", r"succeeded in")
        case _:
            raise AssertionError(name)
    return Program(made.name, made.command, made.works, env=env)


def paid_in_book(database_url: str) -> int:
    return int(ask(database_url, "SELECT count(*) FROM cycles WHERE status = 'paid'")[0][0])


def ask(database_url: str, statement: str) -> list[tuple[Any, ...]]:
    """A query, on a connection of its own."""
    with psycopg.connect(plain(database_url), autocommit=True) as session:
        return session.execute(statement).fetchall()  # type: ignore[call-overload,no-any-return]


def until(true: Callable[[], bool], told: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)
