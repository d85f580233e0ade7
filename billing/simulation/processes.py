"""The simulated processes: charging workers, the worker of the ticks, the operator's terminal.

Each does what `worker/tasks.py`, `scheduler/ticks.py` and the command line do around the same use
cases: unwrap, call, return.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

from billing.domain.errors import BrokerUnavailable, GatewayError
from billing.domain.refund import OPEN
from billing.portone.client import PortOneClient
from billing.ports import AccessToken
from billing.services import reconciled
from billing.services.answer import Result
from billing.services.charge import charge
from billing.services.clock_guard import ClockGuard
from billing.services.close_cycles import anything_ends, close_cycles
from billing.services.desk import Desk
from billing.services.dispatch import dispatch
from billing.services.inquire import find_unknown, inquire
from billing.services.look_at_webhooks import look_at_webhooks, waiting
from billing.services.open_cycles import anything_opens, open_cycles
from billing.services.refund import open_now, work_on_open
from billing.services.seal_events import seal_events
from billing.simulation.lookback import SLOTS
from billing.simulation.loop import HOST, Killed
from billing.simulation.ports import (
    MADE_UP,
    SimulatedBook,
    SimulatedQueue,
    SimulatedTokens,
    SimulatedWatermark,
)
from billing.simulation.wire import Wire
from billing.store.session import Transaction

if TYPE_CHECKING:
    from billing.simulation.world import World

# As `worker_concurrency` of the real workers.
THREADS: Final = 4
# A supervisor brings a dead process back after so many seconds.
_RESTART: Final = (1.0, 90.0)
# How often a stopped process is looked at whether it may go on, in seconds.
_LOOK_EVERY: Final = 2.0
# How long a transaction may take, seen from the event loop.
_THREAD_WAIT: Final = (0.002, 0.3)
_PROGRESS: Final = frozenset(Result) - {
    Result.NOT_SENT,
    Result.UNRECORDED,
    Result.TOO_LATE,
    Result.UNKNOWN,
    Result.HELD,
}


class Process:
    """One life of one process. It dies whole: what is dead has no effect any more."""

    def __init__(self, world: World, name: str, life: int = 1) -> None:
        self.world = world
        self.name = name
        self.life = life
        self.dead = False
        self.stopped = False
        self.busy = 0
        self.reconciling = False
        self.set_aside: list[asyncio.Handle] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.book = SimulatedBook(world.engine, world.database_time, self)
        self.desk = Desk(self.book, world.policy)
        self.queue = SimulatedQueue(self)
        self.guard = ClockGuard(world.loop.now, world.loop.time)
        self._client: PortOneClient | None = None
        self._context = Context()
        self._context.run(HOST.set, self)

    @property
    def client(self) -> PortOneClient:
        """The process's way to the gateway, built when it is first needed."""
        if self._client is None:
            world = self.world
            self._client = PortOneClient(
                "http://localhost",
                "simulated-key",
                "simulated-secret",
                tokens=SimulatedTokens(self),
                now=world.loop.now,
                monotonic=world.loop.time,
                charge_timeout=world.policy.deadline.total_seconds(),
                include_sandbox=world.policy.sandbox,
                transport=Wire(self, world.app),
            )
        return self._client

    def check(self) -> None:
        """At the door of every port: the dead do not pass."""
        if self.dead:
            raise Killed

    def thread_wait(self) -> float:
        return self.world.nemesis.between(*_THREAD_WAIT)

    def kill(self) -> None:
        """kill -9: nothing of it has any effect from now on; a supervisor starts it anew."""
        if self.dead:
            return
        self.dead = True
        self.world.tell("killed", process=self.name)
        for task in list(self.tasks):
            task.cancel()
        if self.stopped:
            self.world.loop.go_on(self)
        self.world.loop.later_outside(
            self.world.nemesis.between(*_RESTART), self.world.restart, self
        )

    async def stop(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Freeze the whole process, its time-outs included; go on after so long, or as soon as
        something is so."""
        if self.stopped or self.dead:
            return
        self.world.tell("stopped", process=self.name, seconds=round(seconds))
        awake: asyncio.Future[None] = self.world.loop.create_future()
        self.stopped = True
        end = self.world.loop.time() + seconds

        def go_on() -> None:
            left = end - self.world.loop.time()
            if left > 0 and not until():
                self.world.loop.later_outside(min(_LOOK_EVERY, left), go_on)
                return
            if not awake.done():
                awake.set_result(None)
            if self.stopped:
                self.world.loop.go_on(self)

        go_on()
        await awake
        self.check()

    def start(self, work: Callable[[Process], Coroutine[Any, Any, None]]) -> None:
        """Run one job in this process, beside its others."""
        self.busy += 1
        self.world.loop.create_task(self._done(work), context=self._context.copy())

    async def _done(self, work: Callable[[Process], Coroutine[Any, Any, None]]) -> None:
        try:
            await work(self)
        except Exception as error:
            if not is_expected(error):
                self.world.surprises.append(error)
        except (Killed, asyncio.CancelledError):
            if not self.dead:
                raise
        finally:
            self.busy -= 1
            self.world.mail.hand_over()
            self.world.wake()


def is_expected(error: BaseException) -> bool:
    """Whether a job may fail like this: a dependency was away, by the nemesis's hand."""
    if isinstance(error, DBAPIError):
        return MADE_UP in str(error.orig)
    return isinstance(error, (BrokerUnavailable, GatewayError))


@dataclass(frozen=True, slots=True)
class Message:
    """A hint on its way to the workers."""

    kind: str
    attempt_ids: tuple[int, ...]


class Mail:
    """The broker: carries hints, not always, not once, not in order, and keeps the token."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: deque[Message] = deque()
        self._filled = 0
        self.on_the_way = 0
        self.token: AccessToken | None = None
        self.watermarks: dict[str, int] = {}
        self.token_lock = asyncio.Lock()

    def send(self, kind: str, attempt_ids: tuple[int, ...]) -> None:
        nemesis = self._world.nemesis
        if nemesis.strikes("message_lost"):
            return
        copies = 2 if nemesis.strikes("message_doubled") else 1
        for _ in range(copies):
            late = nemesis.strikes("message_late")
            wait = nemesis.between(*((5, 400_000) if late else (0.001, 0.02)))
            self.on_the_way += 1
            self._world.loop.later_outside(
                wait, self._arrived, Message(kind, attempt_ids), self._filled
            )

    def flush(self) -> None:
        """Everything in it is gone."""
        self._filled += 1
        self._waiting.clear()
        self.token = None
        self.watermarks.clear()

    def hand_over(self) -> None:
        """Give waiting messages to workers with a free thread."""
        while self._waiting:
            free = [one for one in self._world.workers if not one.dead and one.busy < THREADS]
            if not free:
                return
            message = self._waiting.popleft()
            self._world.chosen(free).start(_jobs(message))

    def _arrived(self, message: Message, filled: int) -> None:
        self.on_the_way -= 1
        if filled != self._filled:
            return
        if message.kind == "dispatch":
            self._world.tick("dispatch")
            return
        self._waiting.append(message)
        self.hand_over()

    @property
    def charges_waiting(self) -> int:
        return sum(message.kind == "charge" for message in self._waiting)

    @property
    def is_empty(self) -> bool:
        return not self._waiting and not self.on_the_way


def _jobs(message: Message) -> Callable[[Process], Coroutine[Any, Any, None]]:
    async def job(process: Process) -> None:
        world, ids = process.world, message.attempt_ids
        if message.kind == "charge":
            seen = SimulatedWatermark(process)
            tally = await charge(
                process.book,
                process.client,
                world.policy,
                ids,
                watermark=seen,
                desk=process.desk,
            )
        else:
            tally = await inquire(process.book, process.client, world.policy, ids)
        world.note(message.kind, tally)
        if tally:
            with contextlib.suppress(BrokerUnavailable):
                process.queue.dispatch_soon()

    return job


def tick_job(name: str) -> Callable[[Process], Coroutine[Any, Any, None]]:
    """One tick, as in `scheduler/ticks.py`."""

    async def job(process: Process) -> None:
        world, book, queue = process.world, process.book, process.queue
        match name:
            case "open":
                await _watch_the_clock(process, anything_opens)
                done = await asyncio.to_thread(open_cycles, book, world.policy, process.guard)
                world.progress += done
                if done:
                    queue.dispatch_soon()
            case "dispatch":
                seen = await SimulatedWatermark(process).seen()
                await asyncio.to_thread(dispatch, book, queue, world.policy, seen)
            case "inquire":
                await asyncio.to_thread(find_unknown, book, queue, world.policy)
            case "seal":
                await asyncio.to_thread(seal_events, book)
            case "close":
                await _watch_the_clock(process, lambda tx: anything_ends(tx, world.policy))
                world.progress += await asyncio.to_thread(
                    close_cycles, book, world.policy, process.guard
                )
            case "refund":
                await _refund(process)
            case "webhooks":
                await _webhooks(process)
            case "reconcile" if not process.reconciling:
                await _reconcile(process)
            case "reconcile":
                # One at a time in a process.
                return
            case _:
                raise AssertionError(f"no such tick: {name}")

    return job


async def _refund(process: Process) -> None:
    world = process.world
    if not await asyncio.to_thread(open_now, process.book):
        return
    tally = await work_on_open(process.book, process.client, world.policy)
    world.progress += sum(count for status, count in tally.items() if status not in OPEN)


async def _webhooks(process: Process) -> None:
    world = process.world
    if not await asyncio.to_thread(waiting, process.book):
        return
    tally = await look_at_webhooks(process.book, process.client, world.policy)
    for outcome, count in tally.items():
        world.tallies[f"webhook:{outcome}"] += count
        world.progress += count if outcome != "again" else 0


async def _reconcile(process: Process) -> None:
    world, book = process.world, process.book

    def due(tx: Transaction) -> bool:
        return reconciled.is_due(tx, world.policy, SLOTS)

    process.reconciling = True
    try:
        await _watch_the_clock(process, due)
        may = await asyncio.to_thread(book.run, lambda tx: due(tx) and process.guard.may_end(tx))
        if not may:
            return
        begun_at = world.loop.now()
        report = await reconciled.make(book, process.client, world.policy, None)
        world.tallies["reconcile:runs"] += 1
        world.tallies["reconcile:applied"] += len(report.applied)
        if report.whole:
            world.look_back.was_whole(begun_at)
    finally:
        process.reconciling = False


async def _watch_the_clock(process: Process, waits: Callable[[Transaction], bool]) -> None:
    if await asyncio.to_thread(process.guard.must_compare, process.book, waits):
        await process.guard.compare(process.book, process.client)


def is_progress(tally: Counter[Result]) -> bool:
    """Whether a job changed anything but its own tries."""
    return any(result in _PROGRESS for result in tally)
