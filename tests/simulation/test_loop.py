"""The event loop that jumps: its clock, its threads, its frozen and its dead processes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.simulation.loop import HOST, VirtualLoop

START = datetime(2026, 11, 20, tzinfo=UTC)


class Machine:
    """A process with nothing in it."""

    def __init__(self) -> None:
        self.stopped = False
        self.set_aside: list[asyncio.Handle] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def thread_wait(self) -> float:
        return 0.25


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    opened = VirtualLoop(START)
    yield opened
    opened.close()


def test_a_year_passes_at_once(loop: VirtualLoop) -> None:
    began = time.monotonic()
    loop.run_until_complete(asyncio.sleep(366 * 86_400))
    assert loop.now() == START + timedelta(days=366)
    assert time.monotonic() - began < 5


def test_waits_end_in_their_order(loop: VirtualLoop) -> None:
    ended: list[int] = []

    async def wait(number: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append(number)

    async def all_of_them() -> None:
        await asyncio.gather(wait(1, 30), wait(2, 10), wait(3, 20))

    loop.run_until_complete(all_of_them())
    assert ended == [2, 3, 1]
    assert loop.now() == START + timedelta(seconds=30)


def test_a_time_out_is_on_the_same_clock(loop: VirtualLoop) -> None:
    async def give_up() -> None:
        async with asyncio.timeout(60):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        loop.run_until_complete(give_up())
    assert loop.now() == START + timedelta(seconds=60)


def test_threads_run_here_a_moment_later(loop: VirtualLoop) -> None:
    async def in_thread() -> datetime:
        HOST.set(Machine())
        return await asyncio.to_thread(loop.now)

    assert loop.run_until_complete(in_thread()) == START + timedelta(seconds=0.25)


def test_an_error_in_a_thread_comes_back(loop: VirtualLoop) -> None:
    def fail() -> None:
        raise OSError("full")

    async def in_thread() -> None:
        await asyncio.to_thread(fail)

    with pytest.raises(OSError, match="full"):
        loop.run_until_complete(in_thread())


def test_a_frozen_process_does_not_see_its_time_outs(loop: VirtualLoop) -> None:
    """It goes on in the middle of what it did, and only then finds that it is late."""
    machine = Machine()
    seen: list[tuple[str, float]] = []

    async def work() -> None:
        awake: asyncio.Future[None] = loop.create_future()

        def go_on() -> None:
            awake.set_result(None)
            loop.go_on(machine)

        try:
            async with asyncio.timeout(60):
                machine.stopped = True
                loop.later_outside(600, go_on)
                await awake
                seen.append(("goes on", loop.time()))
                await asyncio.sleep(0)
                await asyncio.sleep(30)
        except TimeoutError:
            seen.append(("is late", loop.time()))

    async def world() -> None:
        HOST.set(machine)
        await asyncio.create_task(work())

    began = loop.time()

    async def outside() -> None:
        await loop.create_task(world())

    loop.run_until_complete(outside())
    assert seen == [("goes on", began + 600), ("is late", began + 600)]


def test_tasks_belong_to_the_process_that_started_them(loop: VirtualLoop) -> None:
    machine = Machine()

    async def child() -> None:
        await asyncio.sleep(1)

    async def parent() -> int:
        HOST.set(machine)
        started = [asyncio.create_task(child()) for _ in range(3)]
        outside = loop.outside(child())
        belonging = len(machine.tasks)
        await asyncio.gather(*started, outside)
        return belonging

    assert loop.run_until_complete(parent()) == 3
    assert machine.tasks == {}


def test_waiting_for_nothing_is_an_error(loop: VirtualLoop) -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="never comes"):
        loop.run_until_complete(wait())


def test_the_same_dice_make_the_same_run() -> None:
    def play(seed: int) -> list[tuple[float, int]]:
        loop, dice, told = VirtualLoop(START), random.Random(seed), []

        async def worker(number: int) -> None:
            for _ in range(20):
                await asyncio.sleep(dice.random())
                told.append((loop.time(), number))

        async def everybody() -> None:
            await asyncio.gather(*(worker(number) for number in range(5)))

        loop.run_until_complete(everybody())
        loop.close()
        return told

    assert play(1) == play(1)
    assert play(1) != play(2)
