"""A worker that cannot reach the book leaves the work to those who can.

Each of its tasks would fail, at once where the book refuses it, and its message be gone: of three
workers two that did not reach the book took most of the messages, and a third of the charges were
made. So what it has begun to take waits, and the rest stays in the queue for others. What waits for
longer than the broker's visibility timeout is given to somebody else, too: the claim decides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from celery import bootsteps, signals
from celery.worker import state

from billing.store import heartbeats
from billing.store.session import Book, is_away

# Soon enough to be back within seconds, and seldom enough to be no load on a book in trouble.
_EVERY_SECONDS = 1.0
_ENDING = (bootsteps.CLOSE, bootsteps.TERMINATE)

_log = structlog.get_logger(__name__)


class HoldingBack:
    """Lets tasks begin while the book answers. `ask` raises what the book says; `leaving` is true
    once the process is to end, and then nobody is kept waiting any more."""

    def __init__(
        self,
        ask: Callable[[], object],
        leaving: Callable[[], bool],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ask = ask
        self._leaving = leaving
        self._pause = pause
        self._is_away = False
        self._asking = threading.Lock()

    def failed(self, error: BaseException) -> None:
        """A task ended with this."""
        if is_away(error) and not self._is_away:
            self._is_away = True
            _log.warning("the database is away: no more work is begun until it answers")

    def wait(self) -> None:
        """Return when the book answers, or the process is to end."""
        while self._is_away and not self._leaving():
            # One asks for all.
            if self._asking.acquire(timeout=_EVERY_SECONDS):
                try:
                    self._look()
                finally:
                    self._asking.release()

    def _look(self) -> None:
        if not self._is_away:
            return
        try:
            self._ask()
        except Exception as error:
            if is_away(error):
                self._pause(_EVERY_SECONDS)
                return
        # Whatever else it says is for the tasks to meet and to tell.
        self._is_away = False
        _log.info("the database answers again")


def install(book: Book) -> None:
    """Connect to Celery's signals, before whatever of ours measures a task. (Flower's run time of a
    task begins earlier.)"""
    workers: list[Any] = []

    def leaving() -> bool:
        # A signal's flags come before the end begins; without a signal there is the end alone.
        return (
            state.should_stop is not None
            or state.should_terminate is not None
            or any(one.blueprint.state in _ENDING for one in workers)
        )

    held = HoldingBack(
        lambda: book.run(lambda tx: heartbeats.can_be_kept(tx.session), tries=1), leaving
    )

    def born(sender: Any, **_: Any) -> None:
        workers.append(sender)

    def begins(**_: Any) -> None:
        held.wait()

    def failed(exception: BaseException, **_: Any) -> None:
        held.failed(exception)

    signals.worker_init.connect(born, weak=False)
    signals.task_prerun.connect(begins, weak=False)
    signals.task_failure.connect(failed, weak=False)
