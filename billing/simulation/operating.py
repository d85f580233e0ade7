"""The operator at the terminal: commands, typed again until they succeed; charging released again;
a book that was restored caught up; a row that somebody edited put right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text

from billing.domain.calendar import day_of
from billing.domain.errors import BillingError, GatewayError
from billing.services import change_status, correct, hold
from billing.services.reconcile import Span, reconcile
from billing.simulation.people import SEOUL
from billing.simulation.processes import Process
from billing.simulation.world import World

_HOUR: Final = 3_600.0
_LOOKS_EVERY: Final = 12 * _HOUR
# How often somebody tries to put an edited row right: hourly, for some days.
_TRIES: Final = 100


async def by_hand(world: World, act: Callable[[Process], Any]) -> None:
    """A command typed by a person, who types it again when it failed."""
    await typed_again(world, lambda it: asyncio.to_thread(act, it))


async def typed_again(world: World, act: Callable[[Process], Awaitable[Any]]) -> None:
    """The same for a command that needs the gateway, too."""
    for _ in range(30):
        done: asyncio.Future[bool] = world.loop.create_future()
        world.operator.start(_typed(act, done))
        try:
            async with asyncio.timeout(120):
                if await done:
                    break
        except TimeoutError:
            pass
        await asyncio.sleep(world.nemesis.between(60, 3_600))
    world.wake()


def _typed(
    act: Callable[[Process], Awaitable[Any]], done: asyncio.Future[bool]
) -> Callable[[Process], Coroutine[Any, Any, None]]:
    async def job(process: Process) -> None:
        good = False
        try:
            await act(process)
            good = True
        except GatewayError:
            # Nothing was done; whoever typed it tries again.
            raise
        except BillingError:
            # Refused for good: a suspended subscription cannot be resumed.
            good = True
        finally:
            if not done.done():
                done.set_result(good)

    return job


async def releases(world: World) -> None:
    """The operator looks twice a day whether charging is held, and releases it."""
    while True:
        await asyncio.sleep(_LOOKS_EVERY)
        with world.engine.begin() as connection:
            held = connection.execute(text("SELECT hold_reason FROM installation")).scalar_one()
        if held is not None:
            if world.forgot:
                await _catch_up(world, *world.forgot[-1])
            await by_hand(world, _releasing(held))


def _releasing(reason: str) -> Callable[[Process], Any]:
    def release(it: Process) -> None:
        it.world.tell("released by the operator", reason=reason)
        hold.release(it.book, it.world.policy)
        it.world.broker_stays = False

    return release


async def _catch_up(world: World, copied_at: datetime, set_back_at: datetime) -> None:
    """What docs/backup.md says: let the book follow the gateway, and tell it again of those who
    cancelled meanwhile. Not everybody reads it, and nobody may be charged twice for that."""
    if world.dice.random() < 0.25:
        return
    first = day_of(copied_at, SEOUL)
    if set_back_at > world.caught_up_at:
        span = Span(first, day_of(world.loop.now(), SEOUL))
        world.tell("catching up", since=first)
        await typed_again(
            world,
            lambda it: reconcile(it.book, it.client, world.policy, span, apply=True),
        )
        lost = [who for who, at in world.cancelled.items() if copied_at <= at <= set_back_at]
        for who in lost:
            await by_hand(world, cancelling(world, who))
        world.caught_up_at = world.loop.now()


def cancelling(world: World, who: str) -> Callable[[Process], Any]:
    return lambda it: change_status.cancel(it.book, world.policy, who)


async def put_right(world: World, who: str) -> None:
    """`maewol subscription correct`, until the book agrees with the initial payment: not while a
    charge is under way, nor where the gateway does not show that payment any more."""
    right: list[bool] = []

    async def act(it: Process) -> None:
        proposal = await correct.propose(it.book, it.client, world.policy, who)
        if proposal.is_wrong:
            await asyncio.to_thread(correct.correct, it.book, world.policy, proposal)
        right.append(True)

    for _ in range(_TRIES):
        await typed_again(world, act)
        if right:
            world.tell("put right", customer=who)
            break
        await asyncio.sleep(_HOUR)
