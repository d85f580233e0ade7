"""Servers that go away, stand still and come back: every process works again within a minute, by
itself, without holding on to files, and ends when it is asked to, whoever is away."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from tests.chaos.campaign import BACK_WITHIN_SECONDS, probing
from tests.chaos.world import GRACE_SECONDS, World, running_world

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

AWAY_SECONDS = 20
FILES_MORE = 8


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="mw-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running_world(folder, seed=1, rate=8, charging=2) as started:
            started.mood({})
            with probing(started):
                _back(started, started.programs.daemons(), 0.0)
                yield started


def absence(world: World, what: str) -> AbstractContextManager[None]:
    match what:
        case "valkey away":
            return world.servers.valkey_away()
        case "postgres away":
            return world.servers.postgres_away()
        case "valkey frozen":
            return world.servers.frozen("valkey")
        case _:
            return world.servers.frozen("postgres")


WHAT = ("valkey away", "postgres away", "valkey frozen", "postgres frozen")


@pytest.mark.parametrize("what", WHAT)
def test_all_are_back_at_work_within_a_minute(world: World, what: str) -> None:
    before = world.programs.pids()
    with absence(world, what):
        time.sleep(AWAY_SECONDS)

    took = _back(world, world.programs.daemons(), time.time())

    ended = [name for name, pid in before.items() if world.programs.pids().get(name) != pid]
    print(f"\n{what} for {AWAY_SECONDS} s: back after {took}; ended meanwhile: {ended}")
    assert not ended


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("name", ["beat1", "ticks1", "charges1"])
def test_each_ends_when_asked_though_a_server_is_away(world: World, name: str, what: str) -> None:
    """Whoever waits for a server that stands still leaves once it answers, or gives up."""
    with absence(world, what):
        time.sleep(2)
        asked = time.time()
        pid = world.programs.signal(name, signal.SIGTERM)
        assert pid is not None
        gone = _ends(world, pid, GRACE_SECONDS)
    if not gone and "frozen" in what:
        gone = _ends(world, pid, GRACE_SECONDS)
    took = time.time() - asked
    if not gone:
        world.programs.signal(name, signal.SIGKILL)
    print(f"\n{name} ended {took:.1f} s after SIGTERM, {what}")
    assert gone
    _back(world, world.programs.daemons(), time.time())


def _ends(world: World, pid: int, seconds: float) -> bool:
    deadline = time.time() + seconds
    while world.programs.runs(pid) and time.time() < deadline:
        time.sleep(0.05)
    return not world.programs.runs(pid)


def test_no_files_are_held_after_many_restarts(world: World) -> None:
    _back(world, world.programs.daemons(), time.time())
    before = files(world)
    for _ in range(10):
        world.servers.kill_valkey()
        time.sleep(1)
        world.servers.restart_postgres("fast")
        time.sleep(1)
        _back(world, world.programs.daemons(), time.time())
    after = files(world)
    print(f"\nopen files before {before}, after {after}")
    assert all(after[name] <= count + FILES_MORE for name, count in before.items())


def files(world: World) -> dict[str, int]:
    return {name: psutil.Process(pid).num_fds() for name, pid in world.programs.pids().items()}


def _back(world: World, names: list[str], since: float) -> dict[str, float]:
    """Wait until all of these are seen at work after `since`; the seconds each took."""
    took: dict[str, float] = {}
    while len(took) < len(names):
        late = [name for name in names if name not in took]
        assert time.time() < max(since, world.began) + BACK_WITHIN_SECONDS, [
            (name, world.programs.log(name).read_text()[-3000:]) for name in late
        ]
        for name in late:
            if (at := world.programs.worked_after(name, since + 0.3)) is not None:
                took[name] = round(at - since, 1)
        time.sleep(0.1)
    return took
