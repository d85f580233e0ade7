"""The charging worker's Celery app; and Flower's, which sees workers through the broker alone."""

from __future__ import annotations

import sys

from celery import Celery

from billing import daemon, flower
from billing.broker import CHARGES_QUEUE
from worker import alive


def _charging(process: daemon.Daemon) -> Celery:
    alive.tell(process.house.book)
    process.app.conf.update(include=["worker.tasks"], task_default_queue=CHARGES_QUEUE)
    return process.app


if flower.is_flower(sys.argv):
    app = daemon.start_watching("maewol-worker")
else:
    this_process = daemon.start("maewol-worker")
    app = _charging(this_process)
