"""The processes under test, and the simple supervisor that starts them again, as operators have.

It reads what they print: a line that tells of finished work is how a process is seen to work.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from billing.cli.survivors import Survivors

PAUSE_SECONDS = 0.5
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Program:
    """A command to keep running. A line that matches `works` shows it at work."""

    name: str
    command: Sequence[str]
    works: str
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """Its name without its number."""
        return self.name.rstrip("0123456789")


class Programs:
    """Keeps programs running until `stop`; a context manager, so that none is ever left behind.

    Should the rig itself be killed, `Survivors` stops the programs.
    """

    def __init__(self, env: Mapping[str, str], folder: Path, grace_seconds: float) -> None:
        self._env = dict(env)
        self._folder = folder
        self.grace = grace_seconds
        self._survivors = Survivors(grace_seconds)
        self._lock = threading.RLock()
        self._programs: dict[str, Program] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._due: dict[str, float] = {}
        self._read: dict[str, int] = defaultdict(int)
        self._stopping = False
        self.exits: list[tuple[str, int, float]] = []
        self.work: dict[str, list[float]] = defaultdict(list)
        self.most_memory: dict[str, int] = defaultdict(int)
        self.most_files: dict[str, int] = defaultdict(int)
        self._watcher = threading.Thread(target=self._watch, name="programs", daemon=True)

    def __enter__(self) -> Programs:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, program: Program) -> None:
        """Start a program and keep it running."""
        with self._lock:
            self._programs[program.name] = program
            self._spawn(program)

    def retire(self, names: Sequence[str]) -> None:
        """Ask programs to end and wait for it; they are not started again."""
        with self._lock:
            for name in names:
                del self._programs[name]
            ending = {name: self._running.pop(name) for name in names if name in self._running}
        for child in ending.values():
            _send(child, signal.SIGTERM)
        for name, child in ending.items():
            self.exits.append((name, child.wait(2 * self.grace), time.time()))
            self._survivors.forget(child.pid)

    def names(self, role: str | None = None) -> list[str]:
        """Every program, or those of a role."""
        return [one.name for one in self._programs.values() if role in (None, one.role)]

    def daemons(self) -> list[str]:
        """Every program of ours under test: all but the gateway."""
        return [name for name in self._programs if name != "gateway"]

    def pids(self) -> dict[str, int]:
        """The process ids of what runs now, by program."""
        with self._lock:
            return {name: child.pid for name, child in self._running.items()}

    def signal(self, name: str, number: signal.Signals) -> int | None:
        """Send a signal to what runs under this name now; its process id, None if nothing runs."""
        with self._lock:
            child = self._running.get(name)
            if child is None or child.poll() is not None:
                return None
            os.kill(child.pid, number)
            return child.pid

    def runs(self, pid: int) -> bool:
        """Whether this process, which we started, still runs."""
        with self._lock:
            return any(one.pid == pid and one.poll() is None for one in self._running.values())

    def worked_after(self, name: str, moment: float) -> float | None:
        """When the program was first seen to work after this moment."""
        return next((at for at in self.work[name] if at > moment), None)

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def stop(self) -> list[str]:
        """Ask everything to end; the names of those that had to be killed after the grace time."""
        with self._lock:
            if self._stopping:
                return []
            self._stopping = True
            children = dict(self._running)
        for child in children.values():
            _send(child, signal.SIGCONT, signal.SIGTERM)
        deadline = time.time() + self.grace
        late = []
        for name, child in children.items():
            try:
                child.wait(max(0.1, deadline - time.time()))
            except subprocess.TimeoutExpired:
                late.append(name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if self._watcher.is_alive():
            self._watcher.join()
        self._survivors.dismiss()
        return late

    def _spawn(self, program: Program) -> None:
        with self.log(program.name).open("ab") as log:
            child = subprocess.Popen(
                list(program.command),
                env={**self._env, **program.env},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running[program.name] = child
        self._survivors.watch(child.pid)

    def _watch(self) -> None:
        measured = 0.0
        while not self._stopping:
            now = time.time()
            with self._lock:
                for program in list(self._programs.values()):
                    self._keep(program, now)
            for program in list(self._programs.values()):
                self._follow(program, now)
            if now - measured > 2:
                self._measure()
                measured = now
            time.sleep(_POLL_SECONDS)

    def _keep(self, program: Program, now: float) -> None:
        if self._stopping:
            return
        child = self._running.get(program.name)
        if child is not None and child.poll() is not None:
            self.exits.append((program.name, child.returncode, now))
            self._survivors.forget(child.pid)
            del self._running[program.name]
            self._due[program.name] = now + PAUSE_SECONDS
        elif child is None and now >= self._due[program.name]:
            self._spawn(program)

    def _follow(self, program: Program, now: float) -> None:
        path = self.log(program.name)
        with path.open("rb") as log:
            log.seek(self._read[program.name])
            fresh = log.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read[program.name] += len(whole)
        if re.search(program.works.encode(), whole):
            self.work[program.name].append(now)

    def _measure(self) -> None:
        for name, pid in self.pids().items():
            with contextlib.suppress(psutil.Error):
                process, role = psutil.Process(pid), self._programs[name].role
                self.most_memory[role] = max(self.most_memory[role], process.memory_info().rss)
                self.most_files[role] = max(self.most_files[role], process.num_fds())


def _send(child: subprocess.Popen[bytes], *numbers: signal.Signals) -> None:
    for number in numbers:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)
