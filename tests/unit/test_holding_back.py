"""A worker that does not reach the book begins nothing, and goes on by itself."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from celery import bootsteps
from celery.utils.dispatch import Signal
from sqlalchemy.exc import ProgrammingError, TimeoutError
from structlog.testing import capture_logs

from billing import holding_back
from billing.holding_back import HoldingBack, install

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


def test_it_is_told_once_each_time() -> None:
    """Of a hundred tasks that fail while it is away the first tells, and the end is told, too."""
    held = Stage(says=[AWAY, None]).made()
    with capture_logs() as told:
        for _ in range(2):
            held.failed(AWAY)
        held.wait()
        held.wait()
        held.failed(AWAY)
    assert [one["log_level"] for one in told] == ["warning", "info", "warning"]


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


class Worker:
    """As Celery shows it."""

    def __init__(self) -> None:
        self.blueprint = SimpleNamespace(state=bootsteps.RUN)


def test_a_worker_hears_of_its_tasks_and_of_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = SimpleNamespace(worker_init=Signal(), task_prerun=Signal(), task_failure=Signal())
    flags = SimpleNamespace(should_stop=None, should_terminate=None)
    monkeypatch.setattr(holding_back, "signals", heard)
    monkeypatch.setattr(holding_back, "state", flags)
    asked: list[int] = []

    def run(_: object, tries: int) -> None:
        asked.append(tries)

    book: Any = SimpleNamespace(run=run)
    install(book)
    worker = Worker()
    heard.worker_init.send(sender=worker)
    # Nobody else holds what hears of it.
    gc.collect()
    heard.task_prerun.send(sender=None)
    heard.task_failure.send(sender=None, exception=AWAY)
    for holder, name, leaving in (
        (flags, "should_stop", 0),
        (flags, "should_terminate", 0),
        (worker.blueprint, "state", bootsteps.CLOSE),
        (worker.blueprint, "state", bootsteps.TERMINATE),
    ):
        before = getattr(holder, name)
        setattr(holder, name, leaving)
        heard.task_prerun.send(sender=None)
        assert asked == [], f"who is to leave waits for nothing: {name}"
        setattr(holder, name, before)
    heard.task_prerun.send(sender=None)
    assert asked == [1], "made again at once, it would only be refused again"
