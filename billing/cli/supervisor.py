"""Keeps the processes of one machine running: starts, restarts, ends who hangs, gathers their
lines, stops.

For `maewol up` and the demo, where one terminal is all there is. In production the same commands
belong to systemd, Compose or Kubernetes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from billing import clock
from billing.cli.survivors import Survivors
from billing.settings import PREFIX

# A process that keeps dying is started again after 1, 2, 4 … seconds, at most this many.
LONGEST_PAUSE_SECONDS = 30.0
# Whoever lived this long has recovered: its next pause is the shortest again.
STEADY_SECONDS = 30.0
# How often it is looked who hangs.
LOOK_SECONDS = 5.0
# Who did not come to look for so many times as long stood still, as may have the others.
_STOOD_STILL = 6

OnLine = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Program:
    """A command to keep running; `env` comes on top of the supervisor's.

    One that leaves its `LIVENESS_FILE` (`billing/liveness.py`) alone for `hung_after` seconds is
    killed, and so started again; with 0 nobody looks. One that knows no such file is asked by
    `answers` instead, which takes a moment at most.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] | None = None
    hung_after: float = 0.0
    answers: Callable[[], bool] | None = None


@dataclass(slots=True)
class _Sign:
    """The last sign of life of one process: its file as it was, and since when it is so."""

    of: tuple[int, int]
    since: float


class Supervisor:
    """Keeps programs running until `stop`; a context manager, so that none is ever left behind.

    `on_line(program, line)` gets each line a program prints, and the supervisor's own remarks.
    `grace_seconds` is how long a program may take to end by itself: longer than one charge request,
    so that what is in flight is still recorded. Should the supervisor itself be killed, `survivors`
    stops the programs the same way.
    """

    def __init__(
        self,
        *,
        env: Mapping[str, str],
        cwd: Path | None,
        grace_seconds: float,
        on_line: OnLine,
    ) -> None:
        self._env = dict(env)
        self._cwd = cwd
        self._grace = grace_seconds
        self._on_line = on_line
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._keepers: list[threading.Thread] = []
        self._survivors = Survivors(grace_seconds)
        self._programs: dict[str, Program] = {}
        self._files = tempfile.TemporaryDirectory(prefix="maewol-up-", ignore_cleanup_errors=True)
        self._watcher = threading.Thread(target=self._watch, name="who hangs", daemon=True)

    def __enter__(self) -> Supervisor:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, program: Program) -> None:
        """Start a program and keep it running."""
        self._programs[program.name] = program
        self._spawn(program)
        keeper = threading.Thread(target=self._keep, args=(program,), name=program.name)
        self._keepers.append(keeper)
        keeper.start()

    def pids(self) -> dict[str, int]:
        """The process ids of what runs now, by program."""
        with self._lock:
            return {name: child.pid for name, child in self._running.items()}

    def stop(self) -> None:
        """Ask every program to end, wait for the grace time, then end what is left."""
        self._stopping.set()
        with self._lock:
            children = list(self._running.values())
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        deadline = clock.monotonic() + self._grace
        for keeper in self._keepers:
            keeper.join(max(0.0, deadline - clock.monotonic()))
        for child in children:
            _kill_group(child)
        for keeper in self._keepers:
            keeper.join()
        self._survivors.dismiss()
        self._files.cleanup()

    def _watch(self) -> None:
        """Kill who gives no sign of life for as long as its program says."""
        signs: dict[str, _Sign] = {}
        looked_at = clock.monotonic()
        while not self._stopping.wait(LOOK_SECONDS):
            now = clock.monotonic()
            if now - looked_at > _STOOD_STILL * LOOK_SECONDS:
                # This process was stopped, or all of a virtual machine.
                signs.clear()
            looked_at = now
            with self._lock:
                running = list(self._running.items())
            for name, child in running:
                self._ask(name)
                seen = (child.pid, self._touched_at(name))
                sign = signs.get(name)
                if sign is None or sign.of != seen:
                    signs[name] = _Sign(seen, now)
                elif 0 < (limit := self._programs[name].hung_after) < now - sign.since:
                    self._on_line(name, f"no sign of life for {limit:g} s: killed")
                    _kill_group(child)
                    signs[name] = _Sign(seen, now)

    def _ask(self, name: str) -> None:
        """Touch the file for a program that answers and does not touch it."""
        answers = self._programs[name].answers
        if answers is not None and answers():
            with contextlib.suppress(OSError):
                self._liveness_file(name).touch()

    def _liveness_file(self, name: str) -> Path:
        return Path(self._files.name) / name

    def _touched_at(self, name: str) -> int:
        try:
            return self._liveness_file(name).stat().st_mtime_ns
        except OSError:
            return 0

    def _keep(self, program: Program) -> None:
        pause, born = 1.0, clock.monotonic()
        ended = self._see_out(program)
        while not self._stopping.is_set():
            pause = 1.0 if clock.monotonic() - born > STEADY_SECONDS else pause
            self._on_line(program.name, f"{ended}; starting again in {pause:g} s")
            if self._stopping.wait(pause):
                return
            pause, born = min(pause * 2, LONGEST_PAUSE_SECONDS), clock.monotonic()
            try:
                self._spawn(program)
            except OSError as error:
                # No memory or no process to spare just now; nobody else would try again.
                ended = f"could not be started ({error.strerror})"
            else:
                ended = self._see_out(program)

    def _see_out(self, program: Program) -> str:
        """Pass its lines on until it ends; how it did."""
        child = self._running.get(program.name)
        if child is None:
            return "not started"
        self._pump(program, child)
        code = child.wait()
        self._forget(program, child)
        return f"ended ({_how(code)})"

    def _spawn(self, program: Program) -> None:
        with self._lock:
            # Under the lock that `stop` takes: nothing is started behind its back.
            if self._stopping.is_set():
                return
            env = {**self._env, **(program.env or {})}
            if program.hung_after and program.answers is None:
                env[f"{PREFIX}LIVENESS_FILE"] = str(self._liveness_file(program.name))
            child = subprocess.Popen(
                list(program.command),
                env=env,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                # A group of its own: Ctrl-C is ours to pass on, in an orderly way.
                start_new_session=True,
            )
            self._running[program.name] = child
            self._survivors.watch(child.pid)

    def _pump(self, program: Program, child: subprocess.Popen[str]) -> None:
        if child.stdout is not None:
            with child.stdout as lines:
                for line in lines:
                    self._on_line(program.name, line.rstrip("\n"))

    def _forget(self, program: Program, child: subprocess.Popen[str]) -> None:
        with self._lock:
            self._running.pop(program.name, None)
            self._survivors.forget(child.pid)


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, a termination or a closed terminal sets. For the main thread."""
    asked = threading.Event()
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {one: signal.signal(one, lambda *_: asked.set()) for one in wanted}
    try:
        yield asked
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _kill_group(child: subprocess.Popen[str]) -> None:
    """End the process and whatever it started, if it still runs (so its id is still its own)."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
