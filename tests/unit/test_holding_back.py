"""A worker that does not reach the book begins nothing, and goes on by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from sqlalchemy.exc import ProgrammingError, TimeoutError

from billing.holding_back import HoldingBack

AWAY = TimeoutError("every connection is in use")
REFUSED = ProgrammingError("SELECT 1", None, Exception("no such table"))


@dataclass
class Stage:
    """A book that answers as `says` tells, one after the other."""

    says: list[Exception | None] = field(default_factory=list)
    asked: int = 0
    pauses: int = 0
    leaves: Callable[[], bool] = lambda: False

    def made(self) -> HoldingBack:
        return HoldingBack(self._ask, lambda: self.leaves(), self._pause)

    def _ask(self) -> None:
        self.asked += 1
        if self.says and (said := self.says.pop(0)) is not None:
            raise said

    def _pause(self, _: float) -> None:
        self.pauses += 1


@pytest.mark.parametrize("error", [None, REFUSED, ValueError("a task of its own")])
def test_while_the_book_answers_nobody_waits_and_nobody_asks(error: Exception | None) -> None:
    stage = Stage()
    held = stage.made()
    if error is not None:
        held.failed(error)
    held.wait()
    assert stage.asked == 0


def test_after_a_task_that_found_it_away_the_next_waits_until_it_answers() -> None:
    stage = Stage(says=[AWAY, AWAY, None])
    held = stage.made()
    held.failed(AWAY)
    held.wait()
    assert (stage.asked, stage.pauses) == (3, 2)
    held.wait()
    assert stage.asked == 3, "it is known to be there again"
    held.failed(AWAY)
    held.wait()
    assert stage.asked == 4


def test_a_book_that_answers_with_another_error_is_there() -> None:
    stage = Stage(says=[REFUSED])
    held = stage.made()
    held.failed(AWAY)
    held.wait()
    assert (stage.asked, stage.pauses) == (1, 0)


def test_who_is_to_leave_waits_no_longer() -> None:
    stage = Stage(says=[AWAY] * 100)
    stage.leaves = lambda: stage.pauses == 2
    held = stage.made()
    held.failed(AWAY)
    held.wait()
    assert stage.asked == 2


def test_one_asks_for_all() -> None:
    asking, may_answer = threading.Event(), threading.Event()
    asked: list[str] = []

    def ask() -> None:
        asked.append(threading.current_thread().name)
        asking.set()
        assert may_answer.wait(10)

    held = HoldingBack(ask, lambda: False)
    held.failed(AWAY)
    threads = [threading.Thread(target=held.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert asking.wait(10)
    # Long enough for the others to ask, too, if they did.
    time.sleep(0.2)
    may_answer.set()
    for thread in threads:
        thread.join(10)
    assert len(asked) == 1
