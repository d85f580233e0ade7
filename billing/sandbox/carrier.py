"""The carrier's rules of monthly phone billing: a pure decision from what is on record.

Nothing is random here and nothing is written. Where the sources leave a rule open
(docs/gateway.md §1, §12), `CarrierRules` holds both readings and the strict one is the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from billing.sandbox.clock import seoul_day
from billing.sandbox.model import BillingKey, Payment, Status, Terms, differences
from billing.sandbox.months import after, month_of, within
from billing.sandbox.texts import Decline, decline

# KG's smallest phone payment (docs/gateway.md §10).
MINIMUM_WON = 301

# A passing fault of the system, or "paid already", is not the customer's failure.
_NOT_COUNTED = ("A", "G")


class WindowReading(StrEnum):
    """From which day the carrier counts the margin: the documents contradict each other."""

    BOTH = "both"
    ANCHOR = "anchor"
    PREVIOUS = "previous"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class CarrierRules:
    """The settings of a carrier. `failures_per_day` is how many failures it takes in one day
    before it refuses for the rest of it; 0 for never."""

    window: WindowReading = WindowReading.BOTH
    margin_days: int = 5
    once_a_month: bool = True
    failures_per_day: int = 3


def decide(
    key: BillingKey,
    history: Sequence[Payment],
    asked: Terms,
    now: float,
    rules: CarrierRules,
) -> Decline | None:
    """None to approve. `history` are all payments of the customer, in the order they were made."""
    today = seoul_day(now)
    line = _Line(key, history)
    if rules.failures_per_day and line.failures_on(today) >= rules.failures_per_day:
        return decline("0039/repeated")
    if key.condition and not 0 < key.condition_until <= now:
        return decline(key.condition)
    if asked.amount < MINIMUM_WON:
        return decline("0096/minimum")
    return _chain(line, asked, today, rules) or _limit(line, asked, today)


def _chain(line: _Line, asked: Terms, today: date, rules: CarrierRules) -> Decline | None:
    """The monthly agreement: what 0060 stands for, and one payment in each month."""
    if not line.key.carrier_knows:
        return decline("0060/unregistered")
    if broken := line.broken_before(today):
        return broken
    if rules.once_a_month and line.paid_in(today):
        return decline("0039/recent")
    if differences(line.key, asked):
        return decline("0060/mismatch")
    # No code is named for "outside the margin"; the day is part of what must agree.
    if not all(within(today, day, rules.margin_days) for day in line.expected(today, rules)):
        return decline("0060/mismatch")
    return None


def _limit(line: _Line, asked: Terms, today: date) -> Decline | None:
    """The line's own limit of a calendar month: it starts anew on the 1st."""
    limit = line.key.monthly_limit
    if limit and line.spent_in(today) + asked.amount > limit:
        return decline("0031")
    return None


class _Line:
    """One phone line as the carrier sees it."""

    def __init__(self, key: BillingKey, history: Iterable[Payment]) -> None:
        self.key = key
        self.anchor = seoul_day(key.issued_at)
        # A key issued anew starts a chain of its own (docs/gateway.md §5).
        self._payments = [one for one in history if one.started_at >= key.issued_at]
        self._normal = [one for one in self._payments if one.status is Status.PAID]

    def failures_on(self, day: date) -> int:
        return sum(
            one.fail_class not in _NOT_COUNTED
            for one in self._payments
            if one.status is Status.FAILED and seoul_day(one.failed_at) == day
        )

    def paid_in(self, day: date) -> list[Payment]:
        month = month_of(day)
        return [one for one in self._normal if month_of(seoul_day(one.paid_at)) == month]

    def spent_in(self, day: date) -> int:
        return sum(one.amount for one in self.paid_in(day)) + self.key.spent_elsewhere

    def broken_before(self, today: date) -> Decline | None:
        """The first month, from the anchor's to the last, without a payment in normal state."""
        paid = {month_of(seoul_day(one.paid_at)) for one in self._normal}
        month = month_of(self.anchor)
        while month < month_of(today):
            if month not in paid:
                return decline(f"0060/{self._why_empty(month)}")
            month = after(month)
        return None

    def _why_empty(self, month: tuple[int, int]) -> str:
        cancelled = any(
            one.status is Status.CANCELLED and month_of(seoul_day(one.paid_at)) == month
            for one in self._payments
        )
        return "not_normal" if cancelled else "no_last_month"

    def expected(self, today: date, rules: CarrierRules) -> list[int]:
        """The days of the month from which the margin counts."""
        anchor = self.anchor.day
        last = max(
            (
                seoul_day(one.paid_at).day
                for one in self._normal
                if month_of(seoul_day(one.paid_at)) == after(month_of(today), -1)
            ),
            default=anchor,
        )
        match rules.window:
            case WindowReading.OFF:
                return []
            case WindowReading.ANCHOR:
                return [anchor]
            case WindowReading.PREVIOUS:
                return [last]
            case WindowReading.BOTH:
                return [anchor, last]
