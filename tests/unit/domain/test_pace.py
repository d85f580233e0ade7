"""The pace: halved at once, back step by step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from billing.domain.pace import (
    AFTER_AN_OUTAGE,
    FULL,
    ONE_BURST,
    SLOWEST,
    UNLIMITED,
    pace_at,
    rate_at,
    slower,
)

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, 0.5), (14.9, 0.5), (15, 0.6), (60, 0.9), (75, 1), (9999, 1)]
)
def test_it_returns_by_itself(seconds: float, expected: float) -> None:
    assert pace_at(0.5, NOW, NOW + timedelta(seconds=seconds)) == pytest.approx(expected)


def test_never_slowed_is_full() -> None:
    assert pace_at(0.1, None, NOW) == FULL


def test_a_clock_that_was_set_back_a_little_speeds_nothing_up() -> None:
    """Further than the whole way back takes, it would stay slow for as long as it was set back."""
    assert pace_at(0.25, NOW, NOW - timedelta(seconds=150)) == 0.25
    assert pace_at(0.25, NOW, NOW - timedelta(seconds=150.1)) == FULL


def test_each_burst_halves_it_once() -> None:
    pace, since = slower(FULL, None, NOW)
    assert (pace, since) == (0.5, NOW)
    within = NOW + ONE_BURST - timedelta(microseconds=1)
    assert slower(pace, since, within) == (0.5, NOW)
    assert slower(pace, since, NOW + ONE_BURST) == (0.25, NOW + ONE_BURST)


def test_two_refusals_in_the_same_moment_are_one_burst() -> None:
    assert slower(0.5, NOW, NOW) == (0.5, NOW)


def test_it_halves_what_it_had_become() -> None:
    assert slower(0.5, NOW, NOW + timedelta(seconds=45))[0] == pytest.approx(0.4)


def test_it_never_stops() -> None:
    pace, since, now = FULL, None, NOW
    for _ in range(20):
        now += ONE_BURST
        pace, since = slower(pace, since, now)
    assert pace == SLOWEST == 1 / 64


def test_what_the_numbers_are() -> None:
    """Operators read them in the documents, and nothing else here depends on their size."""
    assert AFTER_AN_OUTAGE == 0.1
    assert timedelta(seconds=5) == ONE_BURST
    assert UNLIMITED == 200


def test_a_share_of_the_ceiling() -> None:
    assert rate_at(50, FULL) == 50
    assert rate_at(50, 0.5) == 25
    assert rate_at(0, FULL) == 0
    assert rate_at(0, 0.5) == UNLIMITED / 2
