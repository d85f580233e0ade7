"""The scheduler's Celery app: the scans on SCAN_CRON, the check of all facts on CHECK_CRON,
reconciliation on RECONCILE_CRON and hourly where it is still missing, clearing up on PRUNE_CRON."""

from __future__ import annotations

from billing import daemon
from billing.broker import (
    TICK_CHECK,
    TICK_CLOSE,
    TICK_DISPATCH,
    TICK_INQUIRE,
    TICK_NOTIFY,
    TICK_OPEN,
    TICK_PRUNE,
    TICK_RECONCILE,
    TICK_REFUND,
    TICK_SEAL,
    TICK_WEBHOOKS,
    TICKS_QUEUE,
)
from billing.domain.plan import Cron
from scheduler.schedule import CronSchedule

# The next tick asks the same question: one that waited longer than this is not run any more.
EXPIRES_SECONDS = 300
# A reconciliation that did not come about, or was not whole, is made again at the next such slot;
# where the day has its own, the tick does nothing.
RECONCILE_AGAIN = "50 * * * *"
HOURLY_EXPIRES_SECONDS = 3600
# But the next clearing up is a day away.
DAILY_EXPIRES_SECONDS = 6 * 3600

this_process = daemon.start("maewol-scheduler")
app = this_process.app

_scan = Cron.parse(this_process.settings.scan_cron, field="SCAN_CRON", for_each_day=True)
_check = Cron.parse(this_process.settings.check_cron, field="CHECK_CRON", for_each_day=True)
reconcile_slots = Cron.parse(
    this_process.settings.reconcile_cron, field="RECONCILE_CRON", for_each_day=True
)
_again = Cron.parse(RECONCILE_AGAIN, field="RECONCILE_AGAIN", for_each_day=True)
_prune = Cron.parse(this_process.settings.prune_cron, field="PRUNE_CRON", for_each_day=True)
_scans = (
    TICK_OPEN,
    TICK_DISPATCH,
    TICK_INQUIRE,
    TICK_CLOSE,
    TICK_SEAL,
    TICK_REFUND,
    TICK_NOTIFY,
    TICK_WEBHOOKS,
)
_schedule = (
    *((tick, _scan) for tick in _scans),
    (TICK_CHECK, _check),
    (TICK_RECONCILE, reconcile_slots),
    (TICK_RECONCILE, _again),
    (TICK_PRUNE, _prune),
)
_expires = {TICK_RECONCILE: HOURLY_EXPIRES_SECONDS, TICK_PRUNE: DAILY_EXPIRES_SECONDS}
app.conf.update(
    # "leaving" is for beat, which loads what is included, too.
    include=["scheduler.ticks", "scheduler.leaving"],
    task_default_queue=TICKS_QUEUE,
    beat_scheduler="scheduler.schedule:SteadyScheduler",
    beat_schedule={
        f"{tick} at {cron.expression}": {
            "task": tick,
            "schedule": CronSchedule(cron, this_process.settings.zone),
            "options": {"expires": _expires.get(tick, EXPIRES_SECONDS), "queue": TICKS_QUEUE},
        }
        for tick, cron in _schedule
    },
)
