"""The charging worker's Celery app, which Flower looks through, too."""

from __future__ import annotations

from billing import daemon
from billing.broker import CHARGES_QUEUE
from worker import alive

this_process = daemon.start("maewol-worker")
app = this_process.app
alive.tell(this_process.house.book)
app.conf.update(include=["worker.tasks"], task_default_queue=CHARGES_QUEUE)
