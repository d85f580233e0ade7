"""One call for all who ask within a moment, and none of them forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from billing.spaced import Spaced


@dataclass
class Stage:
    """A clock to move, and what was planned on it."""

    now: float = 100.0
    called_at: list[float] = field(default_factory=list)
    planned: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    lost: list[Exception] = field(default_factory=list)
    broken: bool = False

    def action(self) -> None:
        self.called_at.append(self.now)
        if self.broken:
            raise ConnectionError

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.planned.append((self.now + seconds, action))

    def move(self, to: float) -> None:
        self.now = to
        ready = [action for at, action in self.planned if at <= to]
        self.planned = [(at, action) for at, action in self.planned if at > to]
        for action in ready:
            action()


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def ask(stage: Stage) -> Spaced:
    return Spaced(stage.action, 10, lambda: stage.now, stage.lost.append, stage.later)


def test_the_first_is_answered_at_once(stage: Stage, ask: Spaced) -> None:
    ask()
    assert stage.called_at == [100]


def test_all_who_ask_within_the_pause_share_one_call_at_its_end(stage: Stage, ask: Spaced) -> None:
    ask()
    for stage.now in (101, 102, 109):
        ask()
    assert stage.called_at == [100]
    stage.move(to=110)
    assert stage.called_at == [100, 110]
    stage.move(to=200)
    assert stage.called_at == [100, 110]


def test_after_the_pause_one_is_answered_at_once_again(stage: Stage, ask: Spaced) -> None:
    ask()
    stage.now = 110
    ask()
    assert stage.called_at == [100, 110]
    assert stage.planned == []


def test_a_late_call_begins_a_pause_too(stage: Stage, ask: Spaced) -> None:
    ask()
    stage.now = 101
    ask()
    stage.move(to=115)
    ask()
    assert stage.called_at == [100, 115]
    stage.move(to=125)
    assert stage.called_at == [100, 115, 125]


def test_whoever_asks_during_a_call_gets_another(stage: Stage) -> None:
    def action() -> None:
        stage.called_at.append(stage.now)
        if len(stage.called_at) == 2:
            ask()

    ask = Spaced(action, 10, lambda: stage.now, stage.lost.append, stage.later)
    ask()
    ask()
    stage.move(to=110)
    stage.move(to=120)
    assert stage.called_at == [100, 110, 120]


def test_what_fails_at_once_is_told_to_whoever_asked(stage: Stage, ask: Spaced) -> None:
    stage.broken = True
    with pytest.raises(ConnectionError):
        ask()
    assert stage.lost == []


def test_what_fails_later_is_not_silent_and_no_hindrance(stage: Stage, ask: Spaced) -> None:
    ask()
    stage.broken = True
    ask()
    stage.move(to=110)
    assert [type(error) for error in stage.lost] == [ConnectionError]
    stage.broken = False
    stage.move(to=130)
    ask()
    assert stage.called_at == [100, 110, 130]


def test_left_to_itself_it_waits_in_a_thread() -> None:
    came = threading.Event()
    calls: list[int] = []

    def action() -> None:
        calls.append(1)
        if len(calls) == 2:
            came.set()

    ask = Spaced(action, 0.01, lambda: 0.0, lambda error: None)
    ask()
    ask()
    assert came.wait(10)


def test_a_call_that_cannot_be_planned_just_now_stops_no_later_one(stage: Stage) -> None:
    def none_to_spare(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    ask = Spaced(stage.action, 10, lambda: stage.now, stage.lost.append, none_to_spare)
    for stage.now in (100, 101, 111):
        ask()
    assert stage.called_at == [100, 111]
    assert [type(one) for one in stage.lost] == [RuntimeError]
