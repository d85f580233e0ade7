"""Keeps what Celery prints for a person at a terminal from between the lines of a log, and from
ending a process whose output nobody takes.

Banners and parting words go to the terminal past every logger, so no formatter sees them; and where
the disk is full, Celery would end by the banner, or break off the orderly end by its parting words.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from celery import Celery, signals
from celery.apps import worker as terminal

from billing import logs


def celery(app: Celery, *, as_records: bool) -> None:
    """Banners only for a terminal, and never between records; parting words as records, too."""
    terminal.safe_say = _say_as_record if as_records else _say
    if not as_records and sys.stdout.isatty():
        return
    signals.celeryd_init.connect(_no_banner, weak=False)

    class Beat(app.Beat):  # type: ignore[misc]
        """Beat without its banner: no signal comes before it."""

        def __init__(self, *positional: Any, **named: Any) -> None:
            super().__init__(*positional, **{**named, "quiet": True})

    app.Beat = Beat


def _no_banner(instance: Any, **_: object) -> None:
    instance.quiet = True


def _say_as_record(text: str, _file: object = None) -> None:
    _write(logs.record("celery.apps.worker", text.strip()))


def _say(text: str, _file: object = None) -> None:
    _write(f"\n{text}\n".encode())


def _write(line: bytes) -> None:
    # In a signal handler, which may have interrupted whoever holds the loggers' locks: straight to
    # the file, as Celery itself does.
    with contextlib.suppress(OSError):
        os.write(2, line)
