"""The judge of the rig: who may end, and who ended by itself."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.campaign import _died


@pytest.mark.parametrize(
    ("exits", "work", "complaints"),
    [
        ([("ticks1", 0, 5.0), ("ticks1", -signal.SIGKILL, 9.0)], [1.0, 7.0], 0),
        # Asked to end before its first work: it was still being loaded.
        ([("ticks1", -signal.SIGKILL, 5.0), ("ticks1", -signal.SIGTERM, 7.0)], [1.0], 0),
        # At work, it has to end in order.
        ([("ticks1", -signal.SIGKILL, 5.0), ("ticks1", -signal.SIGTERM, 9.0)], [1.0, 7.0], 1),
        ([("ticks1", 1, 5.0)], [], 1),
    ],
)
def test_who_ended_by_itself(
    exits: list[tuple[str, int, float]], work: list[float], complaints: int
) -> None:
    world: Any = SimpleNamespace(programs=SimpleNamespace(exits=exits, work={"ticks1": work}))
    assert len(list(_died(world))) == complaints
