"""When beat fires: at every slot of a cron line, also after a clock that ran ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from billing import clock
from billing.domain.calendar import SEOUL
from billing.domain.plan import Cron
from scheduler.schedule import CronSchedule

NOW = datetime(2026, 11, 20, 1, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("last", "due"),
    [
        (timedelta(0), False),
        (timedelta(seconds=-29), False),
        (timedelta(seconds=-31), True),
        (timedelta(days=-3), True),
        # As it is kept on disk after a host's clock was a day ahead when beat fired.
        (timedelta(days=1), True),
    ],
)
def test_a_slot_has_passed_since_the_last_firing(
    monkeypatch: pytest.MonkeyPatch, last: timedelta, due: bool
) -> None:
    monkeypatch.setattr(clock, "host_time", lambda: NOW)
    every_minute = CronSchedule(Cron.parse("* * * * *", field="SCAN_CRON"), SEOUL)
    state = every_minute.is_due(NOW + last)
    assert (state.is_due, state.next) == (due, 30.0)
