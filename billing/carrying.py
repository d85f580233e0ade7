"""The correlation id on its way: from the tick through Celery's headers to the last record.

A message to a tick begins a new trail, whoever sends it; every other message goes on with the trail
of its sender. So one trail is one tick, the tasks that it sent, and what they recorded. The id is a
header and never an argument: arguments are ids of attempts, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import signals

from billing import trail

HEADER = "correlation"
_TICK = "maewol.tick."

_log = structlog.get_logger(__name__)


def install(monotonic: Callable[[], float]) -> None:
    """Connect to Celery's signals; for every process that sends or runs tasks, beat too."""
    started: dict[str, float] = {}

    def sent(sender: str, headers: dict[str, Any], **_: object) -> None:
        known = trail.correlation()
        goes_on = known is not None and not sender.startswith(_TICK)
        headers[HEADER] = known if goes_on else trail.fresh()
        # A tick that a task asked for: the only thread between two trails.
        cause = {} if goes_on or known is None else {"cause": known}
        _log.info("sent", message=sender, id=headers["id"], **{HEADER: headers[HEADER]}, **cause)

    def begun(task_id: str, task: Any, **_: object) -> None:
        trail.begin(trail.checked(task.request.get(HEADER)), task_id)
        started[task_id] = monotonic()

    def ended(task_id: str, task: Any, state: str | None, retval: object, **_: object) -> None:
        took = monotonic() - started.pop(task_id, monotonic())
        if state == "SUCCESS":
            # Results are counts by outcome (worker.tasks, scheduler.ticks).
            counts = retval if isinstance(retval, dict) else {}
            line = f"{task.name} succeeded in {took:.3f} s"
            _log.info(line, seconds=round(took, 3), counts=counts)
        trail.end()

    for signal, handler in (
        (signals.before_task_publish, sent),
        (signals.task_prerun, begun),
        (signals.task_postrun, ended),
    ):
        signal.connect(handler, weak=False)
