"""The scheduler's Celery app: every tick on the settings' SCAN_CRON."""

from __future__ import annotations

from billing import daemon
from billing.broker import TICK_CLOSE, TICK_DISPATCH, TICK_INQUIRE, TICK_OPEN, TICKS_QUEUE
from billing.domain.plan import Cron
from scheduler.schedule import CronSchedule

# The next tick asks the same question: one that waited longer than this is not run any more.
EXPIRES_SECONDS = 300

this_process = daemon.start("maewol-scheduler")
app = this_process.app

_scan = Cron.parse(this_process.settings.scan_cron, field="SCAN_CRON", for_each_day=True)
app.conf.update(
    # "leaving" is for beat, which loads what is included, too.
    include=["scheduler.ticks", "scheduler.leaving"],
    task_default_queue=TICKS_QUEUE,
    beat_schedule={
        tick: {
            "task": tick,
            "schedule": CronSchedule(_scan, this_process.settings.zone),
            "options": {"expires": EXPIRES_SECONDS, "queue": TICKS_QUEUE},
        }
        for tick in (TICK_OPEN, TICK_DISPATCH, TICK_INQUIRE, TICK_CLOSE)
    },
)
