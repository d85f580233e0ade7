"""SCAN_CRON beside the times it has to meet: what is taken, and what a person is told otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from billing.domain.errors import InvalidSetting
from billing.settings import Settings


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scan_cron": "* * * * * */2"},
        {"scan_cron": "*/13 * * * *", "close_margin_minutes": 30},
        {"scan_cron": "0 * * * *", "close_margin_minutes": 124},
        {"window_days": 0, "charge_cron": "28 23 * * *"},
        {"window_days": 0, "charge_cron": "40 23 * * *"},
        {"band_retry_days": 0, "charge_cron": "30 10,23 * * *"},
        {"charge_cron": "30 23 * * *"},
    ],
)
def test_what_meets_every_slot_is_taken(settings: dict[str, Any]) -> None:
    assert Settings.load(**settings)


@pytest.mark.parametrize(
    ("settings", "name", "problem", "remedy"),
    [
        (
            {"scan_cron": "0 3 * * *", "window_days": 0},
            "SCAN_CRON",
            "up to 1440 minutes",
            "'* * * * *'",
        ),
        (
            {"scan_cron": "*/14 * * * *"},
            "SCAN_CRON",
            "up to 14 minutes",
            "MAEWOL_CLOSE_MARGIN_MINUTES=32",
        ),
        # From the day's last to the next day's first.
        (
            {"scan_cron": "* 6-20 * * *", "close_margin_minutes": 720},
            "SCAN_CRON",
            "up to 541 minutes",
            "'* * * * *'",
        ),
        (
            {"scan_cron": "0 * * * *", "close_margin_minutes": 123},
            "SCAN_CRON",
            "up to 60 minutes",
            "MAEWOL_CLOSE_MARGIN_MINUTES=124",
        ),
        ({"window_days": 0, "charge_cron": "30 23 * * *"}, "CHARGE_CRON", "last day", "earlier"),
        (
            {"band_retry_days": 0, "charge_cron": "20 23 * * *", "scan_cron": "*/13 * * * *"},
            "CHARGE_CRON",
            "13 minutes",
            "earlier",
        ),
    ],
)
def test_what_would_miss_one_is_refused(
    settings: dict[str, Any], name: str, problem: str, remedy: str
) -> None:
    with pytest.raises(InvalidSetting) as refused:
        Settings.load(**settings)
    told = str(refused.value)
    assert told.startswith(f"{name}={settings[name.lower()]!r}")
    assert problem in told
    assert remedy in told
