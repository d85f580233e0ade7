"""Asking the gateway many things, one after the other: a question that fails costs itself alone,
and a gateway that is down is left in peace.

Nothing is concluded from a question without an answer: whoever asks gets back what was answered,
each beside what it was asked about, and how many were not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from billing.domain.errors import AnswerUnusable, GatewayError, GatewayRefused, InvalidInput

A = TypeVar("A")
T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

# Questions that are open at the gateway at once: they must not crowd out charges.
WIDTH = 10
# Seconds before a question is asked the second and the third time. A 503 or 429 is often over by
# then; what is not is left for the next run.
PAUSES = (1.0, 5.0)
# So many questions in a row without an answer: the gateway is down, and asking on helps nobody.
IN_VAIN = 20


class Questions:
    """The questions of one run. `failed` counts those without an answer, also those that were not
    asked any more because it `gave_up`."""

    def __init__(self, sleep: Sleep = asyncio.sleep) -> None:
        self.failed = 0
        self.gave_up = False
        self._sleep = sleep
        self._in_vain = 0

    async def ask(
        self, question: Callable[[A], Awaitable[T]], about: Sequence[A]
    ) -> list[tuple[A, T]]:
        """Ask about each, a few at once; what was answered, in the order of `about`."""
        answered: list[tuple[A, T]] = []
        for start in range(0, len(about), WIDTH):
            if self.gave_up:
                self.failed += len(about) - start
                break
            some = about[start : start + WIDTH]
            answers = await asyncio.gather(*(self._one(question, one) for one in some))
            answered += [(one, got[0]) for one, got in zip(some, answers, strict=True) if got]
        return answered

    async def _one(self, question: Callable[[A], Awaitable[T]], about: A) -> tuple[T] | None:
        for pause in (*PAUSES, None):
            try:
                answer = await question(about)
            except (InvalidInput, AnswerUnusable):
                # It cannot be asked at all, or has an answer that nobody can read, and will have it
                # again. Neither says that the gateway is down.
                self.failed += 1
                return None
            except GatewayError as error:
                # Who is refused is refused again.
                if pause is None or isinstance(error, GatewayRefused):
                    break
                await self._sleep(pause)
            else:
                self._in_vain = 0
                return (answer,)
        self.failed += 1
        self._in_vain += 1
        self.gave_up |= self._in_vain >= IN_VAIN
        return None
