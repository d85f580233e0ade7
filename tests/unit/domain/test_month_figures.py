"""A month in figures: its parts come to the whole, and what days without proof mean."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleReason, CycleStatus
from billing.domain.money import Sum
from billing.domain.month_figures import (
    Alike,
    DayProof,
    Outcomes,
    Proven,
    Unknowns,
    Unpaid,
    Verdict,
    Way,
    share,
    verdict,
)

SUMS = st.builds(Sum, st.integers(1, 1000), st.integers(301, 10_000_000))
GROUPS = st.lists(
    st.builds(
        Alike,
        status=st.sampled_from(CycleStatus),
        reason=st.none() | st.sampled_from(CycleReason),
        held=st.booleans(),
        last_decline=st.none() | st.sampled_from(["not_today", "register_anew"]),
        sum=SUMS,
    ),
    max_size=20,
)


def alike(status: CycleStatus, reason: str | None = None, last_decline: str | None = None) -> Alike:
    return Alike(status, reason, False, last_decline, Sum(2, 19_800))


@given(GROUPS, SUMS)
def test_the_parts_come_to_the_whole(groups: list[Alike], to_come: Sum) -> None:
    found = Outcomes(groups, to_come)
    ends = (found.collected, found.missed, found.skipped, found.held, found.open, found.to_come)
    assert sum(ends, Sum()) == found.due
    assert sum(found.by_way.values(), Sum()) == found.collected
    assert sum((one.sum for one in found.lost), Sum()) == found.missed
    assert sum((one.sum for one in found.left_out), Sum()) == found.skipped
    assert found.refunded.won <= found.collected.won
    assert set(found.by_way) == set(Way)


@pytest.mark.parametrize(
    ("reason", "last_decline", "way"),
    [
        (None, None, Way.FIRST),
        (None, "not_today", Way.RETRY),
        (CycleReason.PAID_LATE, "not_today", Way.LATE),
        (CycleReason.PAID_ELSEWHERE, "not_today", Way.ELSEWHERE),
    ],
)
def test_how_the_money_came_in(
    reason: CycleReason | None, last_decline: str | None, way: Way
) -> None:
    assert alike(CycleStatus.PAID, reason, last_decline).way is way


def test_what_was_given_back_came_in_first() -> None:
    found = Outcomes([alike(CycleStatus.PAID), alike(CycleStatus.REFUNDED)])
    assert (found.collected, found.refunded) == (Sum(4, 39_600), Sum(2, 19_800))


def test_what_is_open_is_held_or_goes_on_by_itself() -> None:
    held, free = Sum(1, 500), Sum(2, 900)
    found = Outcomes(
        [
            Alike(CycleStatus.OPEN, None, True, None, held),
            Alike(CycleStatus.OPEN, None, False, None, free),
            # A month that was held when it ended is what it ended as.
            Alike(CycleStatus.MISSED, CycleReason.HELD, True, None, Sum(4, 7_000)),
        ]
    )
    assert (found.held, found.open) == (held, free)


def test_no_answer_was_lost() -> None:
    none = Unknowns({})
    ends = (none.all, none.charged, none.declined, none.withdrawn, none.open)
    assert ends == (0, 0, 0, 0, 0)


def test_losses_are_told_by_reason_and_last_refusal_the_most_won_first() -> None:
    one = alike(CycleStatus.MISSED, "declined", "not_today")
    found = Outcomes([alike(CycleStatus.MISSED, "not_attempted"), one, one])
    assert found.lost == [
        Unpaid("declined", "not_today", Sum(4, 39_600)),
        Unpaid("not_attempted", None, Sum(2, 19_800)),
    ]


def test_losses_of_as_much_won_go_by_reason_then_by_last_refusal_what_has_none_first() -> None:
    order: list[tuple[str | None, str | None]] = [
        (None, "register_anew"),
        # Between them by the alphabet, were a text to stand for what has none.
        ("Held", None),
        ("declined", None),
        ("declined", "Another"),
        ("declined", "not_today"),
    ]
    found = Outcomes([alike(CycleStatus.MISSED, *one) for one in reversed(order)])
    assert [(one.reason, one.last_decline) for one in found.lost] == order


def test_a_share_of_nothing_is_none() -> None:
    assert share(Sum(), Sum()) is None
    assert share(Sum(1, 5), Sum(3, 7)) == 0.3333


def test_lost_answers_end_somehow() -> None:
    found = Unknowns({status: 1 for status in AttemptStatus})
    assert (found.charged, found.declined, found.withdrawn, found.open) == (1, 1, 1, 3)
    assert found.all == 6


def days(*says: Proven) -> list[DayProof]:
    return [DayProof(date(2026, 11, day), "", one) for day, one in enumerate(says, start=1)]


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ([Proven.AGREES, Proven.AGREES], Verdict.AGREE),
        ([Proven.AGREES, Proven.MISSING], Verdict.INCOMPLETE),
        ([Proven.AGREES, Proven.TO_COME], Verdict.INCOMPLETE),
        ([Proven.MISSING, Proven.TO_COME], Verdict.NONE),
        ([], Verdict.NONE),
        ([Proven.AGREES, Proven.CHANGED], Verdict.DISAGREE),
        ([Proven.MISSING, Proven.DIFFERED], Verdict.DISAGREE),
        ([Proven.DAMAGED], Verdict.DISAGREE),
    ],
)
def test_the_verdict(says: list[Proven], expected: Verdict) -> None:
    assert verdict(days(*says)) is expected
