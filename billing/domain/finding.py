"""What the gateway's own look-ups prove about one cycle: exactly one of these.

Used before a charge (is this month already paid?) and after an unknown outcome (what became of
it?). Only the gateway's book is believed, never the text of an answer (docs/gateway.md §4).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import date
from zoneinfo import ZoneInfo

from billing.domain.calendar import day_of
from billing.domain.money import CURRENCY, Won
from billing.domain.payment import Payment


@dataclass(frozen=True, slots=True)
class Question:
    """What we want to know: the cycle's month, the attempt in question, and the other attempts."""

    customer_uid: str = field(repr=False)
    amount: Won
    month: date
    merchant_uid: str
    earlier: Collection[str]
    zone: ZoneInfo
    sandbox: bool


@dataclass(frozen=True, slots=True)
class PaidByThis:
    """The attempt in question is paid, with our amount and our billing key, or was and was given
    back since: that follows as for any payment of the book.

    `also` are further payments of the month: the customer paid more than once.
    """

    payment: Payment
    also: tuple[Payment, ...] = ()


@dataclass(frozen=True, slots=True)
class PaidByEarlier:
    """Another attempt of the cycle, once proved failed, is paid after all."""

    payment: Payment
    also: tuple[Payment, ...] = ()


@dataclass(frozen=True, slots=True)
class PaidElsewhere:
    """The month is paid with this key by somebody else: by hand, or a second charger."""

    payment: Payment
    also: tuple[Payment, ...] = ()


@dataclass(frozen=True, slots=True)
class Contradiction:
    """The gateway shows money that does not fit our request; a person must look."""

    why: str
    imp_uid: str
    # Paid and given back in this month: charging once more may or may not mend the chain.
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class FailedThis:
    """The attempt in question was tried and declined, with this text."""

    message: str
    imp_uid: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A row exists that is not final (`ready`, or a word we do not know)."""

    status: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """The gateway shows no payment for this month. Proof only when it is asked late enough."""


Finding = (
    PaidByThis | PaidByEarlier | PaidElsewhere | Contradiction | FailedThis | Pending | Nothing
)


def find(question: Question, payments: Iterable[Payment]) -> Finding:
    """Judge every payment the look-ups returned; money outranks everything else."""
    rows = {payment.imp_uid: payment for payment in payments}.values()
    relevant = [row for row in rows if _concerns(question, row)]
    return (
        _paid(question, [row for row in relevant if row.status == "paid"])
        or _cancelled(question, [row for row in relevant if row.status == "cancelled"])
        or _unsettled([row for row in relevant if row.merchant_uid == question.merchant_uid])
        or Nothing()
    )


def _concerns(question: Question, row: Payment) -> bool:
    """Ours by name, or this key's in this calendar month."""
    if row.merchant_uid == question.merchant_uid or row.merchant_uid in question.earlier:
        return True
    if row.customer_uid not in (None, question.customer_uid):
        return False
    moment = row.paid_at or row.started_at
    if moment is None:
        # Paid, and nobody says when: it may be this month's, and a person must look.
        return row.status == "paid"
    return day_of(moment, question.zone).replace(day=1) == question.month


def _paid(question: Question, rows: list[Payment]) -> Finding | None:
    """The payment that is nearest to us pays the month; any other is one too many. Of two that are
    equally near it is the one that fits, in whatever order the gateway shows them."""
    if not rows:
        return None

    def nearness(row: Payment) -> tuple[int, bool]:
        return _distance(question, row), _misfit(question, row) is not None

    nearest, *others = sorted(rows, key=nearness)
    problem = _misfit(question, nearest)
    if problem is not None:
        return Contradiction(problem, nearest.imp_uid)
    kinds = (PaidByThis, PaidByEarlier, PaidElsewhere)
    return kinds[_distance(question, nearest)](nearest, tuple(others))


def _distance(question: Question, row: Payment) -> int:
    if row.merchant_uid == question.merchant_uid:
        return 0
    return 1 if row.merchant_uid in question.earlier else 2


def _misfit(question: Question, row: Payment) -> str | None:
    if row.paid_at is None:
        return "paid without a moment of payment"
    if row.amount != question.amount:
        return f"paid {row.amount} instead of {question.amount}"
    if row.customer_uid not in (None, question.customer_uid):
        return "paid with another billing key"
    if row.currency not in (None, CURRENCY):
        return f"paid in {row.currency}"
    if row.sandbox != question.sandbox:
        return "a test payment" if row.sandbox else "a live payment, where test ones are expected"
    return None


def _cancelled(question: Question, rows: list[Payment]) -> Finding | None:
    for row in rows:
        if _distance(question, row) == 0 and _misfit(question, row) is None:
            # Else the question what became of it would have no end.
            return PaidByThis(row)
    for row in rows:
        return Contradiction("this month's payment was cancelled", row.imp_uid, cancelled=True)
    return None


def _unsettled(rows: list[Payment]) -> Finding | None:
    """The rows of the attempt itself: every one must have failed before it counts as failed."""
    for row in rows:
        if row.status != "failed":
            return Pending(row.status)
    for row in rows:
        return FailedThis(row.fail_reason or "", row.imp_uid)
    return None
