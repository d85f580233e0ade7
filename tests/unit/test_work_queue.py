"""The way to the workers, where it is blocked."""

from __future__ import annotations

import time

import pytest
from celery import Celery

from billing import broker
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


@pytest.mark.timeout(30)
def test_nor_is_it_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick would stand still, one of the four that there are, for as long as the others do."""
    monkeypatch.setattr(broker, "_WAITED_FOR_SECONDS", 0.1)
    app = Celery("busy", broker="memory://")
    app.conf.broker_pool_limit = 1
    queue = CeleryWorkQueue(app, time.monotonic)
    with app.pool.acquire(block=True), pytest.raises(BrokerUnavailable, match="was not sent"):
        queue.charge([1])
    queue.charge([1])
