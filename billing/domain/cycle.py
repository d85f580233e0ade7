"""Cycle: one calendar month of one subscription; paid at most once."""

from __future__ import annotations

from enum import StrEnum

from billing.domain.status import Transitions


class CycleStatus(StrEnum):
    OPEN = "open"
    PAID = "paid"
    MISSED = "missed"
    SKIPPED = "skipped"
    REFUNDED = "refunded"


class CycleReason(StrEnum):
    """Why a cycle ended as it did, other than by an ordinary charge of ours."""

    # paid
    PAID_ELSEWHERE = "paid_elsewhere"
    PAID_LATE = "paid_late"
    # missed
    DECLINED = "declined"
    NOT_ATTEMPTED = "not_attempted"
    UNPROVEN = "unproven"
    HELD = "held"
    # skipped
    PAUSED = "paused"
    CANCELLED = "cancelled"


class HoldReason(StrEnum):
    """Why an open cycle is not charged although it is due; a person must look."""

    FACTS_CHANGED = "facts_changed"
    FACTS_MISMATCH = "facts_mismatch"
    CONTRADICTION = "contradiction"
    FOREIGN_PAYMENT = "foreign_payment"
    OUTSIDE_PAYMENT_CANCELLED = "payment_cancelled"
    # Declined for good, but it may be our own mistake: decided when more is known (`brake`).
    UNCONFIRMED = "unconfirmed"


# What `maewol subscription correct` answers; for any other reason a person still has to look.
CORRECTABLE = frozenset({HoldReason.FACTS_CHANGED, HoldReason.FACTS_MISMATCH})
# What the gateway was asked about, and told otherwise than the book has it.
CONTRADICTED = frozenset({HoldReason.CONTRADICTION, HoldReason.OUTSIDE_PAYMENT_CANCELLED})

CYCLE_TRANSITIONS = Transitions(
    "cycle",
    {
        CycleStatus.OPEN: frozenset({CycleStatus.PAID, CycleStatus.MISSED, CycleStatus.SKIPPED}),
        CycleStatus.PAID: frozenset({CycleStatus.REFUNDED}),
        # Proof of a payment may come after the window closed; then it counts.
        CycleStatus.MISSED: frozenset({CycleStatus.PAID}),
        CycleStatus.SKIPPED: frozenset(),
        CycleStatus.REFUNDED: frozenset(),
    },
)
