"""When beat fires: at every slot of a cron line, also after a clock that ran ahead."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery

from billing import clock
from billing.domain.calendar import SEOUL
from billing.domain.plan import Cron

NOW = datetime(2026, 11, 20, 1, 0, 30, tzinfo=UTC)


def _loaded() -> ModuleType:
    """The module alone: with its package comes a daemon, which is started by being imported."""
    file = Path(__file__).parents[2] / "scheduler" / "schedule.py"
    spec = importlib.util.spec_from_file_location("schedule_alone", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


schedule = _loaded()


@pytest.mark.parametrize(
    ("last", "due"),
    [
        (timedelta(0), False),
        (timedelta(seconds=-29), False),
        (timedelta(seconds=-31), True),
        (timedelta(days=-3), True),
        # After a host's clock was a day ahead when beat fired.
        (timedelta(days=1), True),
    ],
)
def test_a_slot_has_passed_since_the_last_firing(
    monkeypatch: pytest.MonkeyPatch, last: timedelta, due: bool
) -> None:
    monkeypatch.setattr(clock, "host_time", lambda: NOW)
    every_minute = schedule.CronSchedule(Cron.parse("* * * * *", field="SCAN_CRON"), SEOUL)
    state = every_minute.is_due(NOW + last)
    assert (state.is_due, state.next) == (due, 30.0)


def test_a_clock_that_goes_back_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host was a day ahead for one firing, and beat goes on."""
    now, fired = [NOW], list[datetime]()
    monkeypatch.setattr(clock, "host_time", lambda: now[0])

    class Beat(schedule.SteadyScheduler):  # type: ignore[misc, name-defined]
        def apply_async(self, *_: Any, **__: Any) -> None:
            fired.append(now[0])

    app = Celery("beat", broker="memory://")
    every_minute = schedule.CronSchedule(Cron.parse("* * * * *", field="SCAN_CRON"), SEOUL)
    app.conf.beat_schedule = {"a tick": {"task": "a.tick", "schedule": every_minute}}
    beat = Beat(app)
    for ahead in (timedelta(0), timedelta(days=1), timedelta(minutes=1), timedelta(minutes=2)):
        now[0] = NOW + ahead
        while beat.tick() == 0:
            pass
    beat.close()
    assert fired == [NOW + ahead for ahead in (timedelta(days=1), *map(minutes, (1, 2)))]


def test_beat_needs_no_folder_that_it_could_write(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the containers its disk is read-only; as root, only a folder that is gone is like that."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    app = Celery("beat", broker="memory://")
    beat = schedule.SteadyScheduler(app, schedule_filename="celerybeat-schedule")
    beat.close()


def minutes(count: int) -> timedelta:
    return timedelta(minutes=count)
