"""The part of a Celery worker that listens to the broker, made to outlive the broker.

Celery names it by a setting (`worker_consumer`), so this is loaded by workers only.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer import Consumer

_log = logging.getLogger(__name__)


class SturdyConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Connects again, whatever goes wrong between it and the broker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Both let workers watch each other, for which we have the book's heartbeats. Gossip fails
        # to start again after a lost connection; mingle waits a second at every start.
        super().__init__(*args, **kwargs, without_gossip=True, without_mingle=True)
        # Celery takes only the transport's own errors for a lost connection and ends the worker on
        # any other. But kombu acknowledges by a connection that it took apart (`AttributeError`),
        # and reads garbage from the queue as far as it gets (`TypeError`, `JSONDecodeError`, …).
        # Nothing in here is worth a worker: messages are hints, the book knows what is due.
        self.connection_errors = (Exception,)

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        # The same while the lost connection is put away, which Celery has let go of by then.
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:
            _log.warning("the lost connection was not closed cleanly (%s)", type(error).__name__)
            self.connection = None
