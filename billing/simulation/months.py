"""A run month by month: what our book says, and beside it what the gateway's ledger says."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date
from typing import Any

from billing.simulation.evidence import Evidence
from billing.simulation.ledger_judge import month_of


@dataclass(frozen=True, slots=True)
class MonthRow:
    """One calendar month: cycles by status and reason, money, and the gateway's own count."""

    month: date
    cycles: Counter[str]
    reasons: Counter[str]
    won: int
    requests: int
    gateway_payments: int
    gateway_won: int

    @property
    def differs(self) -> bool:
        """Whether book and ledger disagree about what was charged."""
        return self.gateway_won != self.won

    def as_json(self) -> dict[str, Any]:
        return {
            "month": f"{self.month:%Y-%m}",
            "cycles": {name: self.cycles[name] for name in _STATUSES},
            "reasons": dict(sorted(self.reasons.items())),
            "won_collected": self.won,
            "gateway": {
                "requests": self.requests,
                "payments": self.gateway_payments,
                "won": self.gateway_won,
            },
            "differs": self.differs,
        }


_STATUSES = ("open", "paid", "missed", "skipped", "refunded")


def month_rows(evidence: Evidence) -> list[MonthRow]:
    """Every month that had a cycle or a payment of ours, in order."""
    cycles: dict[date, Counter[str]] = defaultdict(Counter)
    reasons: dict[date, Counter[str]] = defaultdict(Counter)
    won: Counter[date] = Counter()
    counted = {(one.customer, one.order) for one in evidence.months if one.status == "paid"}
    for month in evidence.months:
        cycles[month.first][month.status] += 1
        if month.reason:
            reasons[month.first][f"{month.status}: {month.reason}"] += 1
        if month.status == "paid":
            won[month.first] += month.amount
    requests = Counter(month_of(one.at) for one in evidence.asked)
    # Ours, and those of others that our book counts as a month's payment; not what went back.
    taken = [
        one
        for one in evidence.paid
        if not one.cancelled_at and (one.ours or (one.customer, one.order) in counted)
    ]
    payments = Counter(month_of(one.at) for one in taken)
    gateway_won: Counter[date] = Counter()
    for payment in taken:
        gateway_won[month_of(payment.at)] += payment.amount
    return [
        MonthRow(
            month=month,
            cycles=cycles[month],
            reasons=reasons[month],
            won=won[month],
            requests=requests[month],
            gateway_payments=payments[month],
            gateway_won=gateway_won[month],
        )
        for month in sorted({*cycles, *requests, *payments})
    ]
