"""One month in figures: what was due, what became of it, and how sure that is.

Everything here is counted from groups of equal cycles, so that a month of a million costs no more
than one of a hundred.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum, auto

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleReason, CycleStatus
from billing.domain.money import Sum


class Way(StrEnum):
    """How the money of a cycle came in."""

    FIRST = auto()
    """Without a decline."""
    RETRY = auto()
    """After at least one decline."""
    LATE = auto()
    """By a charge that had failed or was lost, and proved paid later."""
    ELSEWHERE = auto()
    """By a payment that Maewol did not make."""


@dataclass(frozen=True, slots=True)
class Alike:
    """The cycles of a month that stand alike; `last_decline` is the class of the last refusal,
    None for those that were never declined."""

    status: CycleStatus
    reason: str | None
    held: bool
    last_decline: str | None
    sum: Sum

    @property
    def collected(self) -> bool:
        """Whether money came in, also if it was given back."""
        return self.status in (CycleStatus.PAID, CycleStatus.REFUNDED)

    @property
    def way(self) -> Way:
        if self.reason == CycleReason.PAID_ELSEWHERE:
            return Way.ELSEWHERE
        if self.reason == CycleReason.PAID_LATE:
            return Way.LATE
        return Way.FIRST if self.last_decline is None else Way.RETRY


@dataclass(frozen=True, slots=True)
class Unpaid:
    """Cycles that brought nothing, by reason and by the class of their last refusal."""

    reason: str | None
    last_decline: str | None
    sum: Sum


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of the cycles of a month. `to_come` are those that are still to open."""

    groups: Sequence[Alike]
    to_come: Sum = field(default_factory=Sum)

    @property
    def due(self) -> Sum:
        """collected + missed + skipped + held + open + to_come."""
        return _sum(self.groups) + self.to_come

    @property
    def collected(self) -> Sum:
        return _sum(one for one in self.groups if one.collected)

    @property
    def by_way(self) -> dict[Way, Sum]:
        """`collected` in parts: every way, also those that nobody went."""
        return {
            way: _sum(one for one in self.groups if one.collected and one.way is way) for way in Way
        }

    @property
    def refunded(self) -> Sum:
        """The part of `collected` that was given back."""
        return self._of(CycleStatus.REFUNDED)

    @property
    def missed(self) -> Sum:
        return self._of(CycleStatus.MISSED)

    @property
    def skipped(self) -> Sum:
        return self._of(CycleStatus.SKIPPED)

    @property
    def held(self) -> Sum:
        """Open, and waiting for a person."""
        return _sum(one for one in self.groups if one.status is CycleStatus.OPEN and one.held)

    @property
    def open(self) -> Sum:
        """Open, and going on by itself."""
        return self._of(CycleStatus.OPEN) - self.held

    @property
    def lost(self) -> list[Unpaid]:
        """`missed` in parts, the most won first."""
        return _unpaid(one for one in self.groups if one.status is CycleStatus.MISSED)

    @property
    def left_out(self) -> list[Unpaid]:
        """`skipped` in parts, the most won first."""
        return _unpaid(one for one in self.groups if one.status is CycleStatus.SKIPPED)

    def _of(self, status: CycleStatus) -> Sum:
        return _sum(one for one in self.groups if one.status is status)


def share(part: Sum, whole: Sum) -> float | None:
    """What part of them, counted by cycles, to four digits; None of nothing."""
    return round(part.count / whole.count, 4) if whole.count else None


@dataclass(frozen=True, slots=True)
class Unknowns:
    """Charges whose answer was lost, by what the gateway's look-ups made of them."""

    by_status: Mapping[AttemptStatus, int]

    @property
    def all(self) -> int:
        return sum(self.by_status.values())

    @property
    def charged(self) -> int:
        """The money had moved."""
        return self.by_status.get(AttemptStatus.APPROVED, 0)

    @property
    def declined(self) -> int:
        return self.by_status.get(AttemptStatus.DECLINED, 0)

    @property
    def withdrawn(self) -> int:
        """Proved not charged, and not sent again: paid otherwise, paused, cancelled, closed."""
        return self.by_status.get(AttemptStatus.WITHDRAWN, 0)

    @property
    def open(self) -> int:
        """Still asked about, or proved not charged and about to go again."""
        return self.all - self.charged - self.declined - self.withdrawn


class Proven(StrEnum):
    """What the daily proofs say of one day."""

    AGREES = auto()
    """Both sides agreed, and the book still says the same."""
    DIFFERED = auto()
    """The two sides did not agree when it was signed."""
    CHANGED = auto()
    """The book says something else by now."""
    DAMAGED = auto()
    """The proof was changed, cut, or does not follow the day before."""
    MISSING = auto()
    """The day is over and has no proof."""
    TO_COME = auto()
    """The day is not over."""


@dataclass(frozen=True, slots=True)
class DayProof:
    """One day of the month, the name of its proof's file, and what the proof says."""

    on: date
    file: str
    says: Proven


class Verdict(StrEnum):
    """Whether the book and the proofs agree about the month."""

    AGREE = auto()
    """About every day of it."""
    DISAGREE = auto()
    """Not about some day."""
    INCOMPLETE = auto()
    """Nothing disagrees, but days are missing or not over."""
    NONE = auto()
    """There is no proof of any day."""


_WRONG = frozenset({Proven.DIFFERED, Proven.CHANGED, Proven.DAMAGED})


def verdict(days: Iterable[DayProof]) -> Verdict:
    """What the days come to."""
    seen = {one.says for one in days}
    if seen & _WRONG:
        return Verdict.DISAGREE
    if Proven.AGREES not in seen:
        return Verdict.NONE
    return Verdict.AGREE if seen == {Proven.AGREES} else Verdict.INCOMPLETE


def _sum(groups: Iterable[Alike]) -> Sum:
    return sum((one.sum for one in groups), Sum())


def _unpaid(groups: Iterable[Alike]) -> list[Unpaid]:
    sums: dict[tuple[str | None, str | None], Sum] = defaultdict(Sum)
    for one in groups:
        sums[(one.reason, one.last_decline)] += one.sum
    found = [Unpaid(reason, last, total) for (reason, last), total in sums.items()]
    return sorted(found, key=lambda one: (-one.sum.won, one.reason or "", one.last_decline or ""))
