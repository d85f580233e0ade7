"""What reconciliation may change by itself, and how it tells of the rest: once, with an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import structlog
from sqlalchemy import select

from billing.domain.cycle import CycleReason, CycleStatus
from billing.domain.money import Won
from billing.domain.notice import UnknownPayments
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.reconciliation import Difference, DifferenceKind
from billing.domain.refund import RefundStatus, refundable_until
from billing.services import news, take_back
from billing.services.answer import Result
from billing.services.open_cycles import open_ahead
from billing.services.record import adopt
from billing.store import differences, events, refunds
from billing.store.ledger import Scope
from billing.store.session import Book, Transaction, is_away
from billing.store.tables import Cycle, Refund, Subscription

_log = structlog.get_logger(__name__)

# So many news have one cause: one loud alarm, not a thousand.
MOST_ALARMS = 20
# Money at the gateway that the book has no place for; the other kinds are for the operator alone.
_UNKNOWN = frozenset(
    {
        DifferenceKind.DOUBLE,
        DifferenceKind.LATE_PAID,
        DifferenceKind.PAID_ELSEWHERE,
        DifferenceKind.NOT_IN_BOOK,
        DifferenceKind.PAID_NOT_DUE,
        DifferenceKind.NOT_ENROLLED,
        DifferenceKind.STRANGER,
        DifferenceKind.AMOUNT,
    }
)
_WHY_CANCELLED = "found cancelled by reconciliation"


class Settled(StrEnum):
    """What became of one difference."""

    APPLIED = "applied"
    # The book moved on meanwhile, or a request of ours is on its way: that is settled first.
    GONE = "gone"
    # Nothing that may be changed by itself: a person must look.
    LEFT = "left"


class _Gone(Exception):
    """It is not so any more; what was begun for it is taken back."""


def settle(book: Book, policy: BillingPolicy, found: Difference) -> Settled:
    """Make the book follow the ledger where the design names how.

    A payment that is found counts as its month's (also late: that mends the chain; also early, of a
    paused subscription, too: that opens the month); a payment that was given back makes its month
    refunded. Each in the one place where that is applied. One that cannot be applied is left to a
    person, and keeps nothing else from being applied."""
    try:
        return _settled(book, policy, found)
    except Exception as error:
        if is_away(error):
            raise
        # Never the error's own text: it may hold a row of somebody's data.
        _log.error("not applied", imp_uid=found.imp_uid, error=type(error).__name__)
        return Settled.LEFT


def _settled(book: Book, policy: BillingPolicy, found: Difference) -> Settled:
    if found.countable:
        try:
            book.run(lambda tx: _count(tx, policy, found))
        except _Gone:
            return Settled.GONE
        return Settled.APPLIED
    if found.takes_back:
        followed = book.run(lambda tx: _follow_cancellation(tx, policy, found))
        return Settled.APPLIED if followed else Settled.GONE
    return Settled.LEFT


def _count(tx: Transaction, policy: BillingPolicy, found: Difference) -> None:
    if found.imp_uid is None or found.paid_at is None:
        raise AssertionError("a countable payment has an id and a moment")
    cycle_id = found.cycle_id
    if cycle_id is None:
        cycle_id = open_ahead(tx, policy, found.subscription_id, found.month)
    payment = Payment(
        imp_uid=found.imp_uid,
        merchant_uid=found.merchant_uid,
        status="paid",
        amount=found.ledger_amount or Won(0),
        customer_uid=found.customer_uid,
        paid_at=found.paid_at,
    )
    late = found.kind is DifferenceKind.LATE_PAID
    reason = CycleReason.PAID_LATE if late else CycleReason.PAID_ELSEWHERE
    if cycle_id is None or adopt(tx, policy, cycle_id, payment, reason) is not Result.ELSEWHERE:
        raise _Gone


def _follow_cancellation(tx: Transaction, policy: BillingPolicy, found: Difference) -> bool:
    cycle = tx.session.execute(
        select(Cycle)
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .where(
            Cycle.paid_imp_uid == found.imp_uid,
            Cycle.status == CycleStatus.PAID,
        )
        .with_for_update(of=[Subscription, Cycle])
    ).scalar_one_or_none()
    if cycle is None or found.imp_uid is None:
        return False
    standing = refunds.standing(tx.session, found.imp_uid)
    if standing is None:
        standing = _unasked(tx, policy, found, cycle)
    if standing.status == RefundStatus.DONE:
        # Given back while its charge was still in question: the month counted it afterwards.
        take_back.apply(tx, standing, standing.cancelled_at or found.at)
        return True
    if standing.status == RefundStatus.SENDING:
        # Our own request is on its way: its answer, or the question about it, settles that.
        return False
    # A request of ours that was not answered did it; any other was not sent: somebody else did.
    ours = standing.status == RefundStatus.UNKNOWN
    take_back.done(tx, standing, found.at, found=not ours)
    return True


def _unasked(tx: Transaction, policy: BillingPolicy, found: Difference, cycle: Cycle) -> Refund:
    """The refund that nobody here asked for, so that every one has its row."""
    if cycle.paid_imp_uid is None or cycle.paid_merchant_uid is None or cycle.paid_at is None:
        raise AssertionError("a CHECK constraint says that a paid cycle has all three")
    refund = Refund(
        subscription_id=cycle.subscription_id,
        cycle_id=cycle.id,
        imp_uid=cycle.paid_imp_uid,
        merchant_uid=cycle.paid_merchant_uid,
        amount=cycle.amount,
        breaks_chain=not found.month_stands,
        refund_by=refundable_until(cycle.paid_at, policy.plan.zone),
        reason=_WHY_CANCELLED,
        status=RefundStatus.REQUESTED,
        requested_at=tx.now,
        fence=0,
    )
    tx.session.add(refund)
    return refund


def tell(book: Book, left: Sequence[Difference]) -> int:
    """Keep what a person must look at and tell of it, once. Returns the news."""

    def step(tx: Transaction) -> int:
        fresh = [found for found in left if differences.note(tx.session, tx.now, found)]
        for found in fresh:
            _tell(tx, found, alarm=len(fresh) <= MOST_ALARMS)
        if len(fresh) > MOST_ALARMS:
            data = {"differences": len(fresh)}
            events.add(tx.session, at=tx.now, kind="reconcile.many", data=data, alarm=True)
        _notify(tx, fresh)
        return len(fresh)

    return book.run(step)


def conclude(
    book: Book, scope: Scope, left: Sequence[Difference], asked: Sequence[int], *, all_seen: bool
) -> None:
    """End what a whole run did not find again. `all_seen` says that no payment was left out, so
    that what was not seen is gone. `asked` are the subscriptions whose schedules are known."""

    def step(tx: Transaction) -> None:
        seen = [found.key[: differences.KEY_LENGTH] for found in left]
        if all_seen:
            differences.resolve_unseen(tx.session, tx.now, scope.since, scope.until, seen)
        differences.resolve_unscheduled(tx.session, tx.now, asked, seen)

    book.run(step)


def tell_unanswered(book: Book, questions: int, *, whole: bool) -> None:
    """Write down that a run asked some things in vain. No alarm: the next run asks them again, and
    a whole run that stays away for long has an alarm of its own (`reconciled`)."""
    data = {"questions": questions, "whole": whole}
    book.run(lambda tx: events.add(tx.session, at=tx.now, kind="reconcile.unanswered", data=data))


def _notify(tx: Transaction, found: Sequence[Difference]) -> None:
    """Tell the merchant's own system of payments that the book cannot count."""
    unknown = [one for one in found if one.kind in _UNKNOWN]
    if len(unknown) > MOST_ALARMS:
        many = UnknownPayments(payments=len(unknown))
        events.notify(tx.session, at=tx.now, subscription_id=None, news=many)
        return
    for one in unknown:
        events.notify(
            tx.session,
            at=tx.now,
            subscription_id=one.subscription_id,
            news=news.unknown(one, tx.now),
        )


def tell_one(tx: Transaction, found: Difference) -> None:
    """Tell of one difference, once."""
    if differences.note(tx.session, tx.now, found):
        _tell(tx, found, alarm=True)
        _notify(tx, [found])


def _tell(tx: Transaction, found: Difference, *, alarm: bool) -> None:
    events.add(
        tx.session,
        at=tx.now,
        kind="reconcile.difference",
        subscription_id=found.subscription_id,
        cycle_id=found.cycle_id,
        data={
            "kind": found.kind,
            "imp_uid": found.imp_uid,
            "merchant_uid": found.merchant_uid[:100],
            "ledger_amount": found.ledger_amount.amount if found.ledger_amount else None,
            "book_amount": found.book_amount.amount if found.book_amount else None,
            "keep": found.keep,
            "refund_by": found.refund_by.isoformat() if found.refund_by else None,
        },
        alarm=alarm,
    )
