"""Keeps what Celery prints for a person at a terminal from between lines of JSON.

Banners and parting words go to the terminal past every logger, so no formatter sees them.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from celery import Celery, signals
from celery.apps import worker as terminal

from billing import logs


def celery(app: Celery) -> None:
    """No banners; parting words as records."""
    signals.celeryd_init.connect(_no_banner, weak=False)

    class Beat(app.Beat):  # type: ignore[misc]
        """Beat without its banner: no signal comes before it."""

        def __init__(self, *positional: Any, **named: Any) -> None:
            super().__init__(*positional, **{**named, "quiet": True})

    app.Beat = Beat
    terminal.safe_say = _say


def _no_banner(instance: Any, **_: object) -> None:
    instance.quiet = True


def _say(text: str, _file: object = None) -> None:
    # In a signal handler, which may have interrupted whoever holds the loggers' locks: straight to
    # the file, as Celery itself does.
    with contextlib.suppress(OSError):
        os.write(2, logs.record("celery.apps.worker", text.strip()))
