"""Plays the month's last days: the clock jumps when nothing is left to do, and one worker dies."""

from __future__ import annotations

import threading
from datetime import timedelta

from billing import clock
from billing.cli.demo import watch
from billing.cli.demo.cast import ENDS_AT
from billing.cli.demo.stage import Stage
from billing.cli.demo.view import View, moment
from billing.cli.demo.watch import Snapshot
from billing.domain.cycle import CycleStatus

_LOOK_SECONDS = 0.4
# What waits so long for a message, with nobody at work, has lost it. The book sends it again when
# it is a minute old; nobody need watch that minute pass.
_STRANDED_LOOKS = 10
_A_MINUTE = timedelta(seconds=61)
# Requests are going out all over the place: a good moment for a death.
_BUSY_ENOUGH = 10


def play(
    stage: Stage, view: View, asked: threading.Event, *, until: float | None, with_a_death: bool
) -> bool:
    """Play to the end; False when asked to stop, held, or out of time (`until`, monotonic)."""
    seen = 0
    calm = stranded = 0
    while not asked.wait(_LOOK_SECONDS):
        snapshot = watch.look(stage.book)
        events = watch.lines_after(stage.book, seen)
        seen = events[-1].id if events else seen
        view.show(snapshot, events)
        if snapshot.hold is not None or (until is not None and clock.monotonic() > until):
            return False
        if with_a_death and snapshot.in_flight >= _BUSY_ENOUGH:
            with_a_death = False
            pid = stage.kill_a_worker()
            view.tell(f"{moment(snapshot.at)}  charging worker 1 (process {pid}) is killed at work")
        stranded = stranded + 1 if snapshot.stranded else 0
        if stranded >= _STRANDED_LOOKS:
            stranded = 0
            stage.move_clock(snapshot.at + _A_MINUTE)
            view.tell(f"{moment(snapshot.at)}  messages were lost with the worker: a minute passes")
        # Twice in a row: a message may be on its way between two looks.
        calm = 0 if snapshot.busy else calm + 1
        if calm >= 2:
            if _is_over(snapshot):
                return True
            calm = 0
            _jump(stage, view, snapshot)
    return False


def _is_over(snapshot: Snapshot) -> bool:
    return snapshot.at >= ENDS_AT and not snapshot.cycles.get(CycleStatus.OPEN)


def _jump(stage: Stage, view: View, snapshot: Snapshot) -> None:
    """To what is planned next, at most to the end."""
    target = min(snapshot.next_at or ENDS_AT, ENDS_AT)
    if target <= snapshot.at:
        return
    stage.move_clock(target)
    view.tell(f"{moment(target)}  nothing was left to do: the clock is moved on")
