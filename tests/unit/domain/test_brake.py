"""The brake: how many declines may be our own fault before the rest is stopped."""

from __future__ import annotations

import pytest

from billing.domain.brake import (
    KEPT,
    Verdict,
    are_believed,
    verdict_of,
    why_brake,
    with_new,
)
from billing.domain.declines import DeclineClass


@pytest.mark.parametrize(
    ("verdicts", "stops"),
    [
        ("", False),
        ("oo", False),
        ("ooo", True),
        ("oaooa", False),
        ("odod", False),
        ("ododo", True),
        ("ssss", False),
        ("sssss", True),
        ("ssdsds", False),
        ("ssdsdss", True),
        ("ssssas", False),
        ("oossa", False),
        ("aooss", False),
        ("aoosss", True),
        ("uuuuuuuuu", False),
        ("ssssuu", False),
    ],
)
def test_a_run_without_an_approval_stops_all_charging(verdicts: str, stops: bool) -> None:
    assert (why_brake(verdicts) is not None) is stops


@pytest.mark.parametrize("letter", "sou")
@pytest.mark.parametrize(("suspicious", "stops"), [(9, False), (10, True)])
def test_a_fifth_of_the_last_fifty_stops_even_among_approvals(
    suspicious: int, stops: bool, letter: str
) -> None:
    verdicts = f"{letter}a" * suspicious + "a" * (KEPT - 2 * suspicious)
    assert len(verdicts) == KEPT
    assert (why_brake(verdicts) is not None) is stops
    # Of fewer than fifty a fifth may be a single day's bad luck.
    assert why_brake(verdicts[:-1]) is None


def test_only_the_newest_are_kept() -> None:
    assert with_new("a" * KEPT, [Verdict.SUSPICIOUS]) == "a" * (KEPT - 1) + "s"
    assert with_new("d", [Verdict.APPROVED, Verdict.OPERATOR]) == "dao"


def test_what_each_class_says_about_us() -> None:
    suspicious = {
        DeclineClass.REGISTER_ANEW,
        DeclineClass.CHAIN_BROKEN,
        DeclineClass.MISMATCH,
    }
    for decline_class in DeclineClass:
        expected = Verdict.SUSPICIOUS if decline_class in suspicious else Verdict.ORDINARY
        if decline_class is DeclineClass.OPERATOR:
            expected = Verdict.OPERATOR
        if decline_class is DeclineClass.UNRECOGNIZED:
            expected = Verdict.UNREAD
        assert verdict_of(decline_class, first=True) is expected


def test_a_retry_of_an_unread_text_is_the_same_customer_again() -> None:
    assert verdict_of(DeclineClass.UNRECOGNIZED, first=False) is Verdict.ORDINARY
    assert verdict_of(DeclineClass.REGISTER_ANEW, first=False) is Verdict.SUSPICIOUS


@pytest.mark.parametrize(
    ("verdicts", "believed"),
    [("s", True), ("ss", True), ("sss", False), ("so", True), ("soo", False), ("sssa", True)],
)
def test_declines_are_believed_when_few_or_when_others_were_approved(
    verdicts: str, believed: bool
) -> None:
    assert are_believed(verdicts) is believed
