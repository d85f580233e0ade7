"""Decides what strikes whom: by the seed's rates, or exactly one fault at exactly one point."""

from __future__ import annotations

import random
from collections import Counter
from typing import Protocol

from billing.simulation.loop import VirtualLoop
from billing.simulation.swarm import Swarm

_MONTH_SECONDS = 30.4375 * 86_400


class Nemesis(Protocol):
    """What the wrappers around the ports ask at every call."""

    struck: Counter[str]

    def strikes(self, kind: str) -> bool:
        """Whether this kind of fault happens here and now."""
        ...

    def between(self, low: float, high: float) -> float:
        """How long something takes that a fault makes slow; tails are heavy."""
        ...

    def wait_for(self, kind: str) -> float | None:
        """Seconds to the next fault of a kind that comes by itself; None when it never does."""
        ...


class SwarmNemesis:
    """Faults by the rates of a swarm, from the start of a run until `until`; none after."""

    def __init__(self, loop: VirtualLoop, swarm: Swarm, seed: str, until: float) -> None:
        self._loop = loop
        self._swarm = swarm
        self._dice = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self.until = until
        self.struck: Counter[str] = Counter()

    def strikes(self, kind: str) -> bool:
        rate = self._swarm.rates.get(kind)
        if rate is None or self._loop.time() >= self.until or self._dice.random() >= rate:
            return False
        self.struck[kind] += 1
        return True

    def between(self, low: float, high: float) -> float:
        return float(low * (high / low) ** self._dice.random())

    def wait_for(self, kind: str) -> float | None:
        rate = self._swarm.rate(kind)
        wait = self._dice.expovariate(rate / _MONTH_SECONDS) if rate else 0.0
        if not rate or self._loop.time() + wait >= self.until:
            return None
        return wait


class OneFault:
    """Strikes once: at the `nth` moment (from 1) at which `kind` could happen.

    With `kind` empty nothing strikes, and `asked` tells how many such moments there are.
    """

    def __init__(self, kind: str = "", nth: int = 0, also: tuple[str, int] = ("", 0)) -> None:
        self._points = {(kind, nth), also}
        self.asked: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()

    def strikes(self, kind: str) -> bool:
        self.asked[kind] += 1
        if (kind, self.asked[kind]) not in self._points:
            return False
        self.struck[kind] += 1
        return True

    def between(self, low: float, high: float) -> float:
        return float((low * high) ** 0.5)

    def wait_for(self, kind: str) -> float | None:
        return None
