"""What the benchmarks conclude, and whom they charge. No test looks at the figures."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from benchmarks.rig.floor import LOOK, SCRIPT, below, heavier
from benchmarks.rig.processors import of_process, used
from benchmarks.rig.subscribers import MARGIN_MINUTES, first_paid_at, until_next_month
from billing.domain.calendar import cycle_dates, day_of

ZONE = ZoneInfo("Asia/Seoul")
FLOORS = {LOOK: 0.4, SCRIPT: 1.3}


def row(
    what: str, whole: int, *, delay: int = 50, doubles: int = 0, processor_ms: float = 0
) -> dict[str, Any]:
    # Steady says the opposite of `whole`: it must not be what is compared.
    return {
        "what": what,
        "whole": whole,
        "steady": 1_000_000 // whole,
        "delay_ms": delay,
        "doubles": doubles,
        "processor_ms": processor_ms,
    }


def a_run(maewol: int, *, doubles: int = 0) -> list[dict[str, Any]]:
    return [
        row(LOOK, 900),
        row("plain script, 2 x 32 threads", 300),
        row("maewol, 2 charging", maewol, doubles=doubles),
        row(LOOK, 1100),
    ]


@pytest.mark.parametrize("maewol", [390, 600, 1500])
def test_what_keeps_up_passes(maewol: int) -> None:
    assert below(a_run(maewol), FLOORS) == []


@pytest.mark.parametrize(
    ("maewol", "why"),
    [
        (350, "0.39 of bare loop, with look-up, below 0.4"),
        (380, "1.27 of plain script, below 1.3"),
    ],
)
def test_what_falls_behind_fails(maewol: int, why: str) -> None:
    assert any(why in problem for problem in below(a_run(maewol), FLOORS))


def test_a_double_charge_fails_whatever_the_speed() -> None:
    assert below(a_run(600, doubles=1), {}) == ["maewol, 2 charging: 1 charged twice"]


def test_a_floor_without_what_it_is_of_fails() -> None:
    assert below([row("maewol, 2 charging", 600), row(LOOK, 700, delay=300)], {LOOK: 0.4})
    assert below([row("maewol, 2 charging", 600)], {LOOK: None}) == []


@pytest.mark.parametrize(("maewol", "fails"), [(3.6, False), (3.7, True)])
def test_what_takes_too_much_of_a_processor_fails(maewol: float, fails: bool) -> None:
    found = [
        row(LOOK, 900, processor_ms=0.3),
        row("maewol, 2 charging", 600, processor_ms=maewol),
        row(LOOK, 900, processor_ms=0.4),
        row(LOOK, 900, delay=300, processor_ms=9),
    ]
    assert bool(heavier(found, 9)) == fails
    assert heavier(found, None) == []
    assert heavier(found[1:2], 9) != []


def test_processor_time_that_was_not_measured_is_not_judged() -> None:
    assert heavier([row(LOOK, 900), row("maewol, 2 charging", 600)], 9) == []


def test_a_process_at_work_is_seen_to_use_a_processor() -> None:
    before = of_process(os.getpid())
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    if Path("/proc/stat").exists():
        assert of_process(os.getpid()) - before >= 0.25
        assert 0 <= used(0.2) <= 1


def test_who_is_charged_is_due_on_every_day_of_a_year() -> None:
    for day in range(366):
        for hour in (0, 14, 15, 23):
            now = datetime(2027, 12, 31, hour, 30, tzinfo=UTC) + timedelta(days=day)
            today = day_of(now, ZONE)
            dates = cycle_dates(day_of(first_paid_at(now), ZONE), 1)
            assert dates.first_attempt_on <= dates.due_on <= today <= dates.window.closes_on
            assert dates.band.opens_on <= today <= dates.band.closes_on
            assert first_paid_at(now) < now


@pytest.mark.parametrize(
    ("now", "minutes"),
    [
        ("2026-11-30T23:47:59+09:00", 0),
        ("2026-11-30T23:48:01+09:00", 11),
        ("2026-11-30T14:59:00+00:00", 1),
        ("2026-12-01T00:00:00+09:00", 0),
        ("2026-12-30T23:59:00+09:00", 0),
        ("2028-02-29T23:50:00+09:00", 10),
    ],
)
def test_no_run_reaches_the_end_of_a_month(now: str, minutes: int) -> None:
    moment = datetime.fromisoformat(now)
    left = until_next_month(moment)
    assert left // timedelta(minutes=1) == minutes
    margin = timedelta(minutes=MARGIN_MINUTES)
    day = day_of(moment + left, ZONE)
    assert day_of(moment + left + margin, ZONE).month == day.month
