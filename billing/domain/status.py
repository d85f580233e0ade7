"""How a status may follow another: one table per noun, one check for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

from billing.domain.errors import TransitionRefused

S = TypeVar("S", bound=StrEnum)


class Transitions(Generic[S]):
    """The transition table of one status. Every status has its row, final ones an empty one."""

    def __init__(self, noun: str, table: Mapping[S, frozenset[S]]) -> None:
        self.noun = noun
        self._table = dict(table)

    def allows(self, before: S, after: S) -> bool:
        return after in self._table[before]

    def check(self, before: S, after: S) -> None:
        """Raises `TransitionRefused` unless `after` may follow `before`."""
        if not self.allows(before, after):
            raise TransitionRefused(f"{self.noun}: {before} cannot become {after}")

    def after(self, before: S) -> frozenset[S]:
        return self._table[before]

    def sources(self, after: S) -> frozenset[S]:
        """Every status that `after` may follow."""
        return frozenset(before for before, targets in self._table.items() if after in targets)
