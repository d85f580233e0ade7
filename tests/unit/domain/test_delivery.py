"""When a notice is tried again: soon at first, for three days, and once more at their end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.delivery import (
    JITTER,
    LONGEST_RETRY_AFTER,
    TRIED_FOR,
    WAITS,
    Delivered,
    Refused,
    Unreachable,
    meaning,
    next_try_at,
)

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
END = NOW + TRIED_FOR
chances = st.floats(0, 1, exclude_max=True)


def moments(chance: float) -> list[datetime]:
    """Every try of a notice that is never taken, from its first."""
    found, at = [NOW], NOW
    while (again := next_try_at(len(found), at, END, chance)) is not None:
        found.append(again)
        at = again
    return found


@given(chances)
def test_it_is_tried_for_three_days_and_lastly_at_their_end(chance: float) -> None:
    tries = moments(chance)
    assert tries[-1] == END
    assert tries[1] - NOW <= timedelta(seconds=72)
    assert 14 <= len(tries) <= 17
    waits = [after - before for before, after in pairwise(tries)]
    assert waits[:-1] == sorted(waits[:-1]), "each longer than the last"


@given(chances, st.integers(1, 1000), st.none() | st.timedeltas(timedelta(-9), timedelta(days=9)))
def test_a_wait_is_near_its_place_in_the_table_and_never_longer_than_asked_and_allowed(
    chance: float, tries: int, asked: timedelta | None
) -> None:
    again = next_try_at(tries, NOW, NOW + timedelta(days=30), chance, asked)
    assert again is not None
    wait, usual = again - NOW, WAITS[min(tries, len(WAITS)) - 1]
    assert wait >= usual * (1 - JITTER)
    assert wait <= max(usual * (1 + JITTER), LONGEST_RETRY_AFTER)
    if asked is not None:
        assert wait >= min(asked, LONGEST_RETRY_AFTER)


def test_what_is_over_is_over() -> None:
    assert next_try_at(1, END, END, 0.5) is None
    assert next_try_at(1, END + timedelta(days=9), END, 0.5) is None
    assert next_try_at(9, END - timedelta(seconds=1), END, 0.5) == END


def test_the_table_grows_and_the_spread_is_even() -> None:
    assert timedelta(days=3) == TRIED_FOR
    assert list(WAITS) == sorted(set(WAITS))
    early, late = (next_try_at(1, NOW, END, chance) for chance in (0.0, 0.999999))
    assert early == NOW + timedelta(seconds=48)
    assert late is not None
    assert abs(late - (NOW + timedelta(seconds=72))) < timedelta(milliseconds=1)


def test_the_moments_at_which_a_notice_that_is_never_taken_is_tried() -> None:
    """As docs/notices.md promises them: in minutes since the one before, then in hours."""
    tried = moments(0.5)
    minutes = [(after - before) / timedelta(minutes=1) for before, after in pairwise(tried)]
    hours = [minute / 60 for minute in minutes[5:]]
    assert minutes[:5] == [1, 2, 5, 15, 30]
    assert hours[:-1] == [1, 2, 4, 8, 12, 12, 12, 12]
    assert tried[-1] == END


def test_the_receiver_may_ask_for_patience_of_up_to_an_hour() -> None:
    def asked(**patience: float) -> timedelta:
        again = next_try_at(1, NOW, END, 0.5, timedelta(**patience))
        assert again is not None
        return again - NOW

    assert asked(seconds=10) == timedelta(minutes=1), "not sooner than we would"
    assert asked(minutes=10) == timedelta(minutes=10)
    assert asked(days=1) == timedelta(hours=1)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_delivered(status: int) -> None:
    assert meaning(status, None) == Delivered(status)


@pytest.mark.parametrize(
    "status", [199, 300, 301, 302, 307, 399, 400, 401, 404, 409, 410, 500, 501]
)
def test_other_answers_are_refusals(status: int) -> None:
    answer = meaning(status, timedelta(days=1))
    assert answer == Refused(status)
    assert str(status) in answer.problem
    assert ("redirects" in answer.problem) == (300 <= status < 400)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_overwhelmed_or_absent_receiver_says_nothing_about_the_notice(status: int) -> None:
    wait = timedelta(seconds=30)
    assert meaning(status, wait) == Unreachable(f"answered {status}", wait)
