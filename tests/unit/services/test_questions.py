"""Questions of one run: a few at once, thrice each, and not on and on to a gateway that is down."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from billing.domain.errors import (
    AnswerUnusable,
    GatewayError,
    GatewayRefused,
    GatewayUnavailable,
    InvalidInput,
)
from billing.services.questions import IN_VAIN, PAUSES, Questions


def asked(
    question: Callable[[int], Awaitable[int]], about: range
) -> tuple[Questions, list[tuple[int, int]], list[float]]:
    """The run, what was answered, and how long was waited."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> tuple[Questions, list[tuple[int, int]]]:
        questions = Questions(sleep)
        return questions, await questions.ask(question, about)

    return *asyncio.run(run()), pauses


def test_answers_keep_the_order_of_the_questions_and_ten_are_open_at_once() -> None:
    open_now = most = 0

    async def twice(one: int) -> int:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0)
        open_now -= 1
        return 2 * one

    questions, answered, pauses = asked(twice, range(25))
    assert answered == [(one, 2 * one) for one in range(25)]
    assert (most, questions.failed, questions.gave_up, pauses) == (10, 0, False, [])


def test_a_question_is_asked_three_times_and_then_left_out() -> None:
    tries = Counter[int]()

    async def sometimes(one: int) -> int:
        tries[one] += 1
        if one == 1 or tries[one] <= one:
            raise GatewayUnavailable("away")
        return one

    questions, answered, pauses = asked(sometimes, range(3))
    assert answered == [(0, 0), (2, 2)]
    assert tries == {0: 1, 1: 3, 2: 3}
    assert sorted(pauses) == sorted(2 * PAUSES) == [1.0, 1.0, 5.0, 5.0]
    assert (questions.failed, questions.gave_up) == (1, False)


def test_who_is_refused_is_not_asked_again() -> None:
    async def refused(_: int) -> int:
        raise GatewayRefused("no")

    questions, answered, pauses = asked(refused, range(1))
    assert (answered, questions.failed, pauses) == ([], 1, [])


def test_after_twenty_in_a_row_in_vain_nothing_more_is_asked() -> None:
    tries = Counter[int]()

    def away(*, but: int) -> Callable[[int], Awaitable[int]]:
        async def question(one: int) -> int:
            tries[one] += 1
            if one != but:
                raise GatewayRefused("no")
            return one

        return question

    assert IN_VAIN == 20
    questions, answered, _ = asked(away(but=99), range(45))
    assert answered == []
    assert sorted(tries) == list(range(20))
    assert (questions.failed, questions.gave_up) == (45, True)
    questions, _, _ = asked(away(but=99), range(19))
    assert (questions.failed, questions.gave_up) == (19, False)
    # One answer among them, and it is no outage.
    questions, answered, _ = asked(away(but=19), range(39))
    assert answered == [(19, 19)]
    assert (questions.failed, questions.gave_up) == (38, False)
    questions, _, _ = asked(away(but=0), range(30))
    assert (questions.failed, questions.gave_up) == (29, True)


@pytest.mark.parametrize(
    "error", [InvalidInput("imp_uid", "?", "none", "Give one"), AnswerUnusable("a sale in cents")]
)
def test_what_can_never_be_answered_is_no_outage(error: GatewayError | InvalidInput) -> None:
    """It is asked once, counted, and says nothing of the gateway."""
    tries = Counter[int]()

    async def question(one: int) -> int:
        tries[one] += 1
        if one < 2 * IN_VAIN:
            raise error
        return one

    questions, answered, pauses = asked(question, range(2 * IN_VAIN + 1))
    assert answered == [(2 * IN_VAIN, 2 * IN_VAIN)]
    assert set(tries.values()) == {1}
    assert (questions.failed, questions.gave_up, pauses) == (2 * IN_VAIN, False, [])
