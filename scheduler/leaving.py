"""Beat ends when it is asked to, even in the middle of talking to the broker."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from celery import signals


@signals.beat_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _leave_for_sure(sender: Any, **_: object) -> None:
    """Celery's own handler only raises `SystemExit`. Where that strikes redis-py in a read, it
    comes out as a `ValueError` about a closed buffer, which beat takes for a tick that could not
    be sent, and goes on for ever. So the loop is told, too."""

    def leave(_: int, __: FrameType | None) -> None:
        sender.stop()
        raise SystemExit

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
