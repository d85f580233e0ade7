"""Processor time, read from /proc: known on Linux alone, and zero elsewhere."""

from __future__ import annotations

import os
import time
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def of_process(pid: int, *, children: bool = False) -> float:
    """The seconds that a process has used; with those of its children that have ended."""
    if not (_PROC / "stat").exists():
        return 0.0
    return (
        sum(int(ticks) for ticks in _fields(pid)[11 : 15 if children else 13]) / _TICKS_PER_SECOND
    )


def of_server(backend: int) -> float:
    """The seconds of a whole PostgreSQL, by the process id of one of its sessions."""
    if not (_PROC / "stat").exists():
        return 0.0
    server = _parent(backend)
    total = of_process(server, children=True)
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                if _parent(int(folder.name)) == server:
                    total += of_process(int(folder.name))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
    return total


def used(seconds: float) -> float:
    """The part of all processors that is not idle, as seen for so long; 0 where nobody tells."""
    before = _machine()
    time.sleep(seconds)
    idle, total = (now - then for now, then in zip(_machine(), before, strict=True))
    return 1 - idle / total if total else 0.0


def _machine() -> tuple[int, int]:
    """Ticks in which the processors were idle, and all ticks."""
    try:
        line = (_PROC / "stat").read_text().partition("\n")[0]
    except FileNotFoundError:
        return 0, 0
    # user nice system idle iowait irq softirq steal; what guests used is in user already.
    ticks = [int(one) for one in line.split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _parent(pid: int) -> int:
    return int(_fields(pid)[1])


def _fields(pid: int) -> list[str]:
    """What stands behind the name of a process, which may hold blanks."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
