"""The part of a Celery worker that listens to the broker, made to outlive the broker.

Celery names it by a setting (`worker_consumer`), so this is loaded by workers only.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer import Consumer

_log = logging.getLogger(__name__)


class SturdyConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Connects again, whatever goes wrong while the lost connection is put away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Both let workers watch each other, for which we have the book's heartbeats. Gossip fails
        # to start again after a lost connection; mingle waits a second at every start.
        super().__init__(*args, **kwargs, without_gossip=True, without_mingle=True)

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        # kombu gives unacknowledged messages back by way of the connection that it has just taken
        # apart, and its AttributeError ends the worker. The messages are hints, the book knows
        # what is due; and Celery has let go of the connection by then, so it may start over.
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:
            _log.warning("the lost connection was not closed cleanly (%s)", type(error).__name__)
            self.connection = None
