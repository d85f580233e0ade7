"""Plays the month's last days: the clock jumps when nothing is left to do, and one worker dies."""

from __future__ import annotations

import threading
from datetime import timedelta

from billing import clock
from billing.cli.demo import watch
from billing.cli.demo.cast import ENDS_AT, STARTS_AT
from billing.cli.demo.stage import Stage
from billing.cli.demo.view import View, moment
from billing.cli.demo.watch import Snapshot
from billing.domain.cycle import CycleStatus

_LOOK_SECONDS = 0.4
# What waits so long for a message, with nobody at work, has lost it. The book sends it again when
# it is a minute old; nobody need watch that minute pass.
_STRANDED_LOOKS = 10
_A_MINUTE = timedelta(seconds=61)
# On the second day, when both workers are warm and have batches in hand: a good moment for a death.
_DEATH_FROM = STARTS_AT + timedelta(hours=12)
_BUSY_ENOUGH = 20
# Leases, time-outs and pauses of the demo are far shorter: who waits so long waits in vain.
_STUCK_SECONDS = 120.0


def play(
    stage: Stage, view: View, asked: threading.Event, *, until: float | None, with_a_death: bool
) -> str | None:
    """Play to the end; None once it is reached, else why it was not (`until` is monotonic)."""
    seen = 0
    calm = stranded = 0
    moved_at = clock.monotonic()
    while not asked.wait(_LOOK_SECONDS):
        snapshot = watch.look(stage.book)
        events = watch.lines_after(stage.book, seen)
        if events:
            seen, moved_at = events[-1].id, clock.monotonic()
        view.show(snapshot, events)
        if given_up := _given_up(snapshot, clock.monotonic(), moved_at, until):
            return given_up
        busy = snapshot.in_flight >= _BUSY_ENOUGH and snapshot.at > _DEATH_FROM
        if with_a_death and busy:
            with_a_death = not _a_worker_dies(stage, view, snapshot)
        stranded = stranded + 1 if snapshot.stranded else 0
        if stranded >= _STRANDED_LOOKS:
            stranded = 0
            stage.move_clock(snapshot.at + _A_MINUTE)
            view.tell(f"{moment(snapshot.at)}  messages were lost with the worker: a minute passes")
        # Twice in a row: a message may be on its way between two looks.
        calm = 0 if snapshot.busy else calm + 1
        if calm >= 2:
            if _is_over(snapshot):
                return None
            calm, moved_at = 0, clock.monotonic()
            _jump(stage, view, snapshot)
    return "it was asked to stop"


def _given_up(snapshot: Snapshot, now: float, moved_at: float, until: float | None) -> str | None:
    if snapshot.hold is not None:
        return f"all charging is held: {snapshot.hold}"
    if now - moved_at > _STUCK_SECONDS:
        return f"nothing has happened for {_STUCK_SECONDS:.0f} s"
    if until is not None and now > until:
        return "it was still not over"
    return None


def _a_worker_dies(stage: Stage, view: View, snapshot: Snapshot) -> bool:
    pid = stage.kill_a_worker()
    if pid is not None:
        view.tell(f"{moment(snapshot.at)}  charging worker 1 (process {pid}) is killed at work")
    return pid is not None


def _is_over(snapshot: Snapshot) -> bool:
    return snapshot.at >= ENDS_AT and not snapshot.cycles.get(CycleStatus.OPEN)


def _jump(stage: Stage, view: View, snapshot: Snapshot) -> None:
    """To what is planned next, at most to the end."""
    target = min(snapshot.next_at or ENDS_AT, ENDS_AT)
    if target <= snapshot.at:
        return
    stage.move_clock(target)
    view.tell(f"{moment(target)}  nothing was left to do: the clock is moved on")
