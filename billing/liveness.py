"""A file that a process touches while it really works: what a health check looks at.

A worker touches it at each heartbeat that its consumer sends, so not while its loop hangs or while
it has no broker; beat at each tick that the broker took. `find FILE -mmin -2` tells the rest.
"""

from __future__ import annotations

from pathlib import Path

from celery import signals


def keep(file: Path) -> None:
    """Touch `file` from now on, whatever kind of Celery process this is. Raises `OSError` at once
    where that is not possible; later a full disk must not stop a charge."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()

    def touch(**_: object) -> None:
        try:
            file.touch()
        except OSError:
            # The check then fails, which is what it is for.
            return

    signals.heartbeat_sent.connect(touch, weak=False)
    signals.after_task_publish.connect(touch, weak=False)
