"""A Celery schedule made of a cron line of ours, so that every cron setting has one meaning."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from celery.beat import Scheduler
from celery.schedules import BaseSchedule, schedstate

from billing import clock
from billing.domain.plan import Cron


class CronSchedule(BaseSchedule):  # type: ignore[misc]  # Celery has no types
    """Fires at every slot of a cron line; slots missed while beat stood still are one firing."""

    def __init__(self, cron: Cron, zone: ZoneInfo) -> None:
        super().__init__(nowfun=clock.host_time)
        self._cron = cron
        self._zone = zone

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether a slot has passed since the last firing, and the seconds to the next one."""
        now = clock.host_time()
        # A moment that lies ahead was told by a clock that was wrong: nothing would fire before it
        # comes.
        due = last_run_at > now or self._cron.after(last_run_at, self._zone) <= now
        wait = (self._cron.after(now, self._zone) - now).total_seconds()
        return schedstate(is_due=due, next=wait)

    def remaining_estimate(self, last_run_at: datetime) -> object:
        return self._cron.after(last_run_at, self._zone) - clock.host_time()

    def __repr__(self) -> str:
        return f"<cron: {self._cron.expression}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CronSchedule) and other._cron == self._cron

    def __hash__(self) -> int:
        return hash(self._cron)

    def __reduce__(self) -> tuple[type[CronSchedule], tuple[Cron, ZoneInfo]]:
        return type(self), (self._cron, self._zone)


class SteadyScheduler(Scheduler):  # type: ignore[misc]  # Celery has no types
    """Celery's own, for a host whose clock may go back: what it planned by a clock that was ahead
    would wait until that time comes.

    The one that keeps nothing on disk: in a container there is none that beat could write, and
    without its file the other one does not start (ADR 5)."""

    _seen: datetime | None = None

    def tick(self, *arguments: object, **more: object) -> float:
        """Fire what is due; after a step back everything is planned anew."""
        now = clock.host_time()
        if self._seen is not None and now < self._seen:
            self._heap = None
        self._seen = now
        wait: float = super().tick(*arguments, **more)
        return wait
