"""An asyncio event loop whose clock jumps: it never waits, and whatever it runs is repeatable.

Time stands still while something can run, then jumps to the next timer. Work meant for a thread
(`asyncio.to_thread`) runs inside the loop after a short virtual wait, so that what interleaves with
what depends on the waits alone, and those come from a seed. What belongs to one simulated process
carries a mark in its context; a stopped process (SIGSTOP, a frozen machine) does nothing until it
goes on, not even look at its own time-outs.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """The process is dead. Code that catches it runs on, but nothing it does has any effect."""


class Host(Protocol):
    """What the loop must know of a simulated process."""

    stopped: bool
    set_aside: list[asyncio.Handle]
    tasks: dict[asyncio.Task[Any], None]

    def thread_wait(self) -> float:
        """How long work in a thread takes from now, in seconds."""
        ...


# Whose code is running; None for the world around the processes.
HOST: ContextVar[Host | None] = ContextVar("host", default=None)


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs everything in one thread at moments of its own clock, which starts at `start`."""

    def __init__(self, start: datetime) -> None:
        super().__init__()
        self._virtual = (start - _EPOCH).total_seconds()
        self._ready: Any
        self._scheduled: Any
        self.steps = 0
        self.surprises: list[BaseException] = []
        self.set_task_factory(_make_task)  # type: ignore[arg-type]

    def time(self) -> float:
        """Seconds since 1970 on the clock of the world: the only clock there is."""
        return self._virtual

    def now(self) -> datetime:
        """The same as an aware moment, exact to a microsecond."""
        return _EPOCH + timedelta(microseconds=round(self._virtual * 1e6))

    def outside(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that belongs to no process: the network, the gateway, the world."""
        return self.create_task(work, context=Context())

    def later_outside(self, seconds: float, callback: Callable[..., Any], *arguments: Any) -> None:
        """Call back after so long, whatever becomes of the process that asked for it."""
        self.call_later(seconds, callback, *arguments, context=Context())

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, work: Callable[..., T], *arguments: Any
    ) -> asyncio.Future[T]:
        """Run `work` a moment later, whole, and give its result when it is done."""
        done: asyncio.Future[T] = self.create_future()
        host = HOST.get()

        def run() -> None:
            if done.cancelled():
                return
            try:
                result = work(*arguments)
            except BaseException as error:
                if not done.cancelled():
                    done.set_exception(error)
            else:
                done.set_result(result)

        self.call_later(host.thread_wait() if host else 0.0, run)
        return done

    def set_aside(self, host: Host) -> None:
        """Stop a process: from now on nothing of it runs."""
        host.stopped = True

    def go_on(self, host: Host) -> None:
        """Let a stopped process go on where it was."""
        host.stopped = False
        self._ready.extend(host.set_aside)
        host.set_aside.clear()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody looked at: the run is judged by it."""
        error = context.get("exception")
        if error is not None and not isinstance(error, (Killed, asyncio.CancelledError)):
            self.surprises.append(error)

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        if not ready:
            while scheduled and scheduled[0].cancelled():
                heapq.heappop(scheduled)
            if not scheduled:
                raise RuntimeError("the simulated world waits for something that never comes")
            self._virtual = max(self._virtual, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self._virtual:
            timer = heapq.heappop(scheduled)
            if not timer.cancelled():
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            host = handle._context.get(HOST)
            if host is not None and host.stopped:
                host.set_aside.append(handle)
                continue
            self.steps += 1
            handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their turn comes."""

    def _write_to_self(self) -> None:
        """Nobody is asleep who would have to be woken."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets."""


def _make_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    host = HOST.get() if context is None else context.get(HOST)
    if host is not None:
        host.tasks[task] = None
        task.add_done_callback(lambda done: host.tasks.pop(done, None))
    return task
