"""Comparing one payment of the gateway's ledger with the book: which difference it is, if any.

Pure: the facts of both sides come in, a kind comes out. What a person should do about each kind is
in `remedies`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from billing.domain.cycle import CycleStatus
from billing.domain.money import CURRENCY, Won
from billing.domain.payment import Payment
from billing.domain.refund import month_of, refundable_until
from billing.domain.subscription import GOES_ON, SubscriptionStatus


class DifferenceKind(StrEnum):
    # Paid at the gateway, not in our book.
    DOUBLE = "double"
    LATE_PAID = "late_paid"
    PAID_ELSEWHERE = "paid_elsewhere"
    NOT_IN_BOOK = "not_in_book"
    PAID_NOT_DUE = "paid_not_due"
    NOT_ENROLLED = "not_enrolled"
    STRANGER = "stranger"
    # Paid in our book, not at the gateway.
    CANCELLED = "cancelled_at_gateway"
    FAILED = "failed_at_gateway"
    MISSING = "missing_at_gateway"
    NOT_FINAL = "not_final_at_gateway"
    # On both sides, but not the same.
    AMOUNT = "amount_differs"
    CUSTOMER = "customer_differs"
    PARTLY_CANCELLED = "partly_cancelled"
    NOT_REFUNDED = "refund_not_at_gateway"
    SANDBOX = "sandbox_mixed"
    # Not a payment yet.
    SCHEDULED = "scheduled_at_gateway"


# Money that the customer paid and did not owe: named first, as long as it can be given back.
SURPLUS = frozenset({DifferenceKind.DOUBLE, DifferenceKind.PAID_NOT_DUE})
_REFUNDABLE = SURPLUS | {DifferenceKind.AMOUNT}
_FOUND_PAID = frozenset(
    {DifferenceKind.PAID_ELSEWHERE, DifferenceKind.LATE_PAID, DifferenceKind.NOT_IN_BOOK}
)


@dataclass(frozen=True, slots=True)
class BookSide:
    """What the book holds about the customer and the calendar month of a payment."""

    subscription_id: int
    customer_uid: str = field(repr=False)
    subscription_status: str
    amount: Won
    # Whether this is the payment that registered the billing key.
    initial: bool = False
    # Whether the payment was made in the month in which the key was registered.
    first_month: bool = False
    # The cycle of the payment's month, where there is one.
    cycle_id: int | None = None
    cycle_number: int | None = None
    cycle_status: str | None = None
    # Whether there is none only because the payment's month, the next one, is not open yet.
    coming: bool = False
    # Whether another payment keeps the month, should this one be given back.
    month_stands: bool = False
    # Whether a charge of this month is on its way: the inquiry settles that, not we.
    in_flight: bool = False
    # Whether this very payment is the one that the cycle counts, and under which name.
    counted: bool = False
    counted_as: str | None = None
    # The status of the attempt that bears the payment's merchant_uid.
    attempt_status: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One payment, seen from both sides. `named` says that its merchant_uid has our form."""

    payment: Payment
    book: BookSide | None
    named: bool = False
    # The payment of the same key and month that is to be kept, when this one is a second.
    double_of: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between the ledger and the book."""

    kind: DifferenceKind
    at: datetime
    imp_uid: str | None
    merchant_uid: str
    customer_uid: str | None = field(default=None, repr=False)
    subscription_id: int | None = None
    cycle_id: int | None = None
    cycle_number: int | None = None
    cycle_status: str | None = None
    coming: bool = False
    month: date | None = None
    paid_at: datetime | None = None
    ledger_amount: Won | None = None
    book_amount: Won | None = None
    keep: str | None = None
    # Until when the money can be given back through the gateway; None where that is no question.
    refund_by: datetime | None = None
    month_stands: bool = False
    # Whether a look-up by name said the same as the list. Nothing else is ever applied.
    confirmed: bool = True

    @property
    def key(self) -> str:
        """The same difference has the same key on every day it is seen."""
        return f"{self.kind}:{self.imp_uid or self.merchant_uid}"

    @property
    def countable(self) -> bool:
        """Whether the book can take the payment as its cycle's, by the design's own rules."""
        live = self.coming or self.cycle_status in (CycleStatus.OPEN, CycleStatus.MISSED)
        return self.confirmed and self.kind in _FOUND_PAID and live

    @property
    def takes_back(self) -> bool:
        """Whether the book can follow a cancellation: paid → refunded."""
        paid = self.cycle_status == CycleStatus.PAID
        return self.confirmed and self.kind is DifferenceKind.CANCELLED and paid


def judge(
    case: Case, *, sandbox: bool, zone: ZoneInfo, seen_at: datetime | None = None
) -> Difference | None:
    """The difference that a payment shows, None when both sides agree (or it is none of ours).

    `seen_at` is when a list, or the book, had it paid: a look-up may show it without any moment."""
    kind = _kind(case, sandbox)
    if kind is None:
        return None
    payment, book = case.payment, case.book
    at = payment.cancelled_at if kind is DifferenceKind.CANCELLED else None
    at = at or payment.paid_at or payment.failed_at or payment.started_at or seen_at
    if at is None:
        raise AssertionError("a payment without any moment is not compared")
    paid_at = payment.paid_at
    return Difference(
        kind=kind,
        at=at,
        imp_uid=payment.imp_uid,
        merchant_uid=payment.merchant_uid,
        customer_uid=book.customer_uid if book else payment.customer_uid,
        subscription_id=book.subscription_id if book else None,
        cycle_id=book.cycle_id if book else None,
        cycle_number=book.cycle_number if book else None,
        cycle_status=book.cycle_status if book else None,
        coming=book.coming if book else False,
        month=month_of(paid_at, zone) if paid_at else None,
        paid_at=paid_at,
        ledger_amount=payment.amount,
        book_amount=book.amount if book else None,
        keep=case.double_of if kind is DifferenceKind.DOUBLE else None,
        refund_by=refundable_until(paid_at, zone) if kind in _REFUNDABLE and paid_at else None,
        month_stands=book.month_stands if book else False,
    )


def _kind(case: Case, sandbox: bool) -> DifferenceKind | None:
    if case.book is None:
        return _of_nobody(case)
    if case.book.counted:
        return _of_counted(case.payment, case.book, sandbox)
    if case.payment.status == "cancelled" and case.book.initial:
        # Paused, too: once resumed it is charged, and these days are not looked at again.
        goes_on = case.book.subscription_status in GOES_ON
        return DifferenceKind.CANCELLED if goes_on else None
    if case.payment.status != "paid":
        # Declined, cancelled or unfinished, and nobody counts it: there is nothing to differ.
        return None
    return _of_uncounted(case, case.book, sandbox)


def _of_nobody(case: Case) -> DifferenceKind | None:
    payment = case.payment
    if payment.status != "paid":
        return None
    if case.named:
        return DifferenceKind.NOT_IN_BOOK
    if payment.customer_uid_usage is None or payment.pay_method not in (None, "phone"):
        # The store sells other things, too.
        return None
    issued = payment.customer_uid_usage == "issue"
    return DifferenceKind.NOT_ENROLLED if issued else DifferenceKind.STRANGER


def _of_counted(payment: Payment, book: BookSide, sandbox: bool) -> DifferenceKind | None:
    if payment.sandbox != sandbox:
        return DifferenceKind.SANDBOX
    match payment.status:
        case "paid":
            return _of_paid_on_both_sides(payment, book)
        case "cancelled":
            return _of_cancelled(payment, book)
        case "failed":
            return DifferenceKind.FAILED
    return DifferenceKind.NOT_FINAL


def _of_cancelled(payment: Payment, book: BookSide) -> DifferenceKind | None:
    if book.cycle_status != CycleStatus.PAID:
        return None
    whole = payment.cancelled_amount in (Won(0), payment.amount)
    return DifferenceKind.CANCELLED if whole else DifferenceKind.PARTLY_CANCELLED


def _of_paid_on_both_sides(payment: Payment, book: BookSide) -> DifferenceKind | None:
    if book.cycle_status == CycleStatus.REFUNDED:
        return DifferenceKind.NOT_REFUNDED
    if payment.cancelled_amount.amount:
        return DifferenceKind.PARTLY_CANCELLED
    if not _right_amount(payment, book):
        return DifferenceKind.AMOUNT
    same_name = book.counted_as in (None, payment.merchant_uid[:40])
    if not same_name or payment.customer_uid not in (None, book.customer_uid):
        return DifferenceKind.CUSTOMER
    return None


def _of_uncounted(case: Case, book: BookSide, sandbox: bool) -> DifferenceKind | None:
    """Paid with one of our keys, or under one of our names, and no cycle counts it."""
    payment = case.payment
    if payment.sandbox != sandbox:
        return DifferenceKind.SANDBOX
    if payment.customer_uid_usage == "issue" and not book.initial and not book.first_month:
        # The customer registered anew, under a name that the book has already.
        return DifferenceKind.NOT_ENROLLED
    if case.double_of is not None:
        return DifferenceKind.DOUBLE
    if book.initial or book.in_flight:
        return None
    if payment.customer_uid not in (None, book.customer_uid):
        return DifferenceKind.CUSTOMER
    ended = book.subscription_status != SubscriptionStatus.ACTIVE and not book.coming
    if book.cycle_status == CycleStatus.SKIPPED or (book.cycle_status is None and ended):
        return DifferenceKind.PAID_NOT_DUE
    if not _right_amount(payment, book):
        return DifferenceKind.AMOUNT
    if book.attempt_status is not None:
        return DifferenceKind.LATE_PAID
    return DifferenceKind.NOT_IN_BOOK if case.named else DifferenceKind.PAID_ELSEWHERE


def _right_amount(payment: Payment, book: BookSide) -> bool:
    return payment.amount == book.amount and payment.currency in (None, CURRENCY)
