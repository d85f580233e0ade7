"""The way to the workers, where it is blocked."""

from __future__ import annotations

import time

import pytest
from celery import Celery

from billing.broker import CHARGES_QUEUE, CeleryWorkQueue
from billing.domain.errors import BrokerUnavailable


def test_where_every_connection_is_in_use_the_broker_cannot_be_seen() -> None:
    """By tasks that wait for a broker that does not answer: their charges are recorded by then."""
    app = Celery("busy", broker="memory://")
    app.conf.broker_pool_limit = 1
    with (
        app.pool.acquire(block=True),
        pytest.raises(BrokerUnavailable, match="ConnectionLimitExceeded"),
    ):
        CeleryWorkQueue(app, time.monotonic).waiting(CHARGES_QUEUE)
