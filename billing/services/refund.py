"""Give one payment back: propose, request, and work on it until the gateway's row says what is.

propose    look it up, check month, amount and owner; nothing is written
request    the wish, in one transaction; a second one is the same one
work_on    claim and send, or ask what became of it; from the claim's commit on money may move

A request that may have left is never repeated before look-ups proved that nothing was given back.
(The gateway would refuse the second one by its checksum; we do not lean on that alone.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert

from billing.domain.errors import Conflict, GatewayError, NotFound
from billing.domain.money import Won
from billing.domain.outcome import NotSent, Unknown
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.refund import (
    REFUND_TRANSITIONS,
    REFUSED_NEXT_MONTH,
    Cancelled,
    CancelOutcome,
    RefundStatus,
    month_of,
    refundable_until,
)
from billing.ports import PaymentGateway
from billing.services import take_back
from billing.services.answer import clean
from billing.services.clock_guard import (
    asked_at,
    check_day,
    compare_where_stale,
    is_doubted,
    proves_from,
)
from billing.services.fence import why_not_from
from billing.services.hold import stop
from billing.services.recorder import (
    FIRST_BACKOFF,
    FIRST_LOOK,
    LONGEST_BACKOFF,
    LOOKS_THAT_PROVE,
    over_at,
)
from billing.store import attempts, events, installation, refunds, subscriptions
from billing.store.refunds import RefundClaim
from billing.store.session import Book, Transaction, is_away
from billing.store.tables import Attempt, Cycle, Refund, Subscription
from billing.store.waiting import waits

_log = structlog.get_logger(__name__)

BATCH = 100
REASON_LENGTH = 200
# A question that the gateway could not answer, or answered with nothing, is asked again after this.
ASK_AGAIN = timedelta(minutes=1)
# One that cannot be worked on at all is told of again after this.
TELL_AGAIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A payment that could be given back, with what must be known before it is."""

    subscription_id: int
    customer_uid: str = field(repr=False)
    cycle_number: int | None
    imp_uid: str
    merchant_uid: str
    amount: Won
    refund_by: datetime
    # Whether its calendar month would be left without a payment.
    breaks_chain: bool
    # The month's other payments, by `imp_uid`: one of them that is not given back keeps the chain.
    others: tuple[str, ...] = ()
    # When the gateway gave it back already; None while it holds the money.
    cancelled_at: datetime | None = None

    @property
    def warning_en(self) -> str:
        """What must be said before it is done."""
        if not self.breaks_chain:
            return (
                f"{self.amount} go back to the customer. The month stays paid by another payment."
            )
        return (
            f"{self.amount} go back to the customer, and the month is left without a payment."
            f" {REFUSED_NEXT_MONTH[0]} This cannot be undone."
        )

    @property
    def warning_ko(self) -> str:
        """The same in Korean."""
        won = f"{self.amount.amount:,}원"
        if not self.breaks_chain:
            return f"{won}을 고객에게 환불합니다. 이번 달은 다른 결제로 유지됩니다."
        return (
            f"{won}을 고객에게 환불하며, 이번 달에는 결제가 없게 됩니다."
            f" {REFUSED_NEXT_MONTH[1]} 되돌릴 수 없습니다."
        )


@dataclass(frozen=True, slots=True)
class Named:
    """What a payment is called; the book has at least one of the two."""

    merchant_uid: str | None
    imp_uid: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a refund stands now."""

    status: RefundStatus
    message: str | None
    cancelled_at: datetime | None
    ask_at: datetime | None


# -- propose ------------------------------------------------------------------------------------


async def propose(
    book: Book,
    gateway: PaymentGateway,
    policy: BillingPolicy,
    merchant_uid: str,
    imp_uid: str | None = None,
) -> Proposal:
    """Look up a payment of one of our subscribers that is to be given back.

    `imp_uid` says which, where several were made under one `merchant_uid`. Raises `NotFound`,
    `Conflict` (why it cannot be given back), `GatewayError`; also by a clock that is wrong by far.
    """
    await compare_where_stale(book, gateway)
    payment = await _the_payment(gateway, merchant_uid, imp_uid)
    now, owner, cycle = await asyncio.to_thread(book.run, lambda tx: _owned(tx, payment))
    zone = policy.plan.zone
    paid_at = payment.paid_at
    if paid_at is None:
        raise Conflict(f"{payment.imp_uid} was never paid (it is {payment.status})")
    if payment.status == "paid":
        _check_refundable(payment, refundable_until(paid_at, zone), now, policy)
    month = month_of(paid_at, zone)
    of_key = await gateway.payments_of_key(owner.customer_uid, paid_at - timedelta(days=32))
    others = tuple(
        one.imp_uid
        for one in of_key
        if one.status == "paid"
        and one.imp_uid != payment.imp_uid
        and one.paid_at is not None
        and month_of(one.paid_at, zone) == month
    )
    stays = await asyncio.to_thread(book.run, lambda tx: _month_stays(tx, others))
    return Proposal(
        subscription_id=owner.id,
        customer_uid=owner.customer_uid,
        cycle_number=cycle,
        imp_uid=payment.imp_uid,
        merchant_uid=payment.merchant_uid,
        amount=payment.amount,
        refund_by=refundable_until(paid_at, zone),
        breaks_chain=not stays,
        others=others,
        cancelled_at=None if payment.status == "paid" else payment.cancelled_at or now,
    )


def _month_stays(tx: Transaction, others: Sequence[str]) -> bool:
    """Whether one of these payments of the month is not given back, nor about to be."""
    return bool(set(others) - refunds.given_back(tx.session, others))


async def _the_payment(gateway: PaymentGateway, merchant_uid: str, imp_uid: str | None) -> Payment:
    rows = await gateway.payments_of_order(merchant_uid)
    if imp_uid is not None:
        rows = [row for row in rows if row.imp_uid == imp_uid]
    for status in ("paid", "cancelled"):
        found = [row for row in rows if row.status == status]
        if len(found) > 1:
            names = ", ".join(row.imp_uid for row in found)
            raise Conflict(f"several payments under {merchant_uid}: say which (--imp-uid): {names}")
        if found:
            return found[0]
    named = "" if imp_uid is None else f" with the imp_uid {imp_uid!r}"
    raise NotFound(f"the gateway has nothing that was paid under {merchant_uid!r}{named}")


def _owned(tx: Transaction, payment: Payment) -> tuple[datetime, Subscription, int | None]:
    """The moment, and whose payment it is then."""
    check_day(tx)
    return tx.now, *_owner(tx, payment)


def _owner(tx: Transaction, payment: Payment) -> tuple[Subscription, int | None]:
    """Whose payment it is by the book, and which cycle it pays. Never a stranger's."""
    name, session = payment.merchant_uid, tx.session
    cycle = session.execute(
        select(Cycle).where(Cycle.paid_imp_uid == payment.imp_uid)
    ).scalar_one_or_none()
    by_name = (
        select(Cycle.subscription_id)
        .join(Attempt, Attempt.cycle_id == Cycle.id)
        .where(Attempt.merchant_uid == name)
    )
    query = select(Subscription).where(
        Subscription.customer_uid == payment.customer_uid
        if payment.customer_uid is not None
        else or_(
            Subscription.id == (cycle.subscription_id if cycle else None),
            Subscription.id.in_(by_name),
            Subscription.initial_merchant_uid == name,
        )
    )
    owners = session.execute(query.limit(2)).scalars().all()
    if not owners:
        raise NotFound(f"{name!r} is not a payment of any subscription in this book")
    owner, *others = owners
    if others:
        raise Conflict(
            f"{payment.imp_uid} may be one of several customers' in our book; look first"
        )
    if cycle is not None and cycle.subscription_id != owner.id:
        raise Conflict(f"{payment.imp_uid} pays another customer's month in our book; look first")
    return owner, cycle.number if cycle is not None else None


def _check_refundable(
    payment: Payment, refund_by: datetime, now: datetime, policy: BillingPolicy
) -> None:
    if payment.sandbox != policy.sandbox:
        raise Conflict(f"{payment.imp_uid} is of the other kind (test or live): INCLUDE_SANDBOX?")
    if payment.cancelled_amount.amount:
        raise Conflict(
            f"{payment.imp_uid} was cancelled in part, which phone billing does not know: ask"
            " PortOne. 일부 취소된 결제입니다. 포트원에 문의하십시오."
        )
    if now >= refund_by:
        last = f"{refund_by.astimezone(policy.plan.zone):%Y-%m-%d %H:%M}"
        raise Conflict(
            f"the calendar month of {payment.imp_uid} ended at {last} (Seoul); the gateway takes"
            " nothing back after it. Pay it back by transfer. 결제한 달이 지나 취소할 수 없습니다."
            " 계좌로 환불하십시오."
        )


def payment_of_month(book: Book, policy: BillingPolicy, customer_uid: str) -> Named:
    """The names of the payment of this calendar month, refunded or not: of its cycle, or the
    initial payment in the month of the registration. Raises `NotFound` when there is none,
    `Conflict` while a charge may still turn out to be one, `GatewayUnavailable` where the clock was
    just found to be wrong by far."""
    return book.run(lambda tx: _of_month(tx, policy, customer_uid))


def _of_month(tx: Transaction, policy: BillingPolicy, customer_uid: str) -> Named:
    check_day(tx)
    month = month_of(tx.now, policy.plan.zone)
    found = tx.session.execute(
        select(Cycle.paid_merchant_uid, Cycle.paid_imp_uid)
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .where(
            Subscription.customer_uid == customer_uid,
            Cycle.month == month,
            Cycle.paid_imp_uid.is_not(None),
        )
    ).first()
    if found is not None:
        return Named(*found)
    subscription = tx.session.execute(
        select(Subscription).where(Subscription.customer_uid == customer_uid)
    ).scalar_one_or_none()
    if subscription is None:
        raise NotFound(f"no subscription has the customer_uid {customer_uid!r}")
    if attempts.in_flight(tx.session, subscription.id):
        # It may turn out paid: whoever heard of no payment would cancel without a refund.
        raise Conflict(
            "a charge is at the gateway, or its answer was lost: whether it was paid is being asked"
            " about. Run this again when `maewol why CUSTOMER_UID` knows. 결제 결과를 아직 알 수"
            " 없습니다. 결과가 확인된 뒤 다시 실행하십시오."
        )
    if month_of(subscription.initial_paid_at, policy.plan.zone) != month:
        raise NotFound("there is no payment of this calendar month that could be given back")
    named = Named(subscription.initial_merchant_uid, subscription.initial_imp_uid)
    if named.merchant_uid is None and named.imp_uid is None:
        raise NotFound(
            "this month's payment is the initial one, of which the book has no id. Look its"
            " merchant_uid up at the gateway: `maewol refund MERCHANT_UID`, then cancel"
        )
    return named


# -- request ------------------------------------------------------------------------------------


def request(
    book: Book,
    proposal: Proposal,
    reason: str,
    also: Callable[[Transaction], object] = lambda _: None,
) -> int:
    """Write the wish down, and the end when the gateway had it cancelled already; `also` is done in
    the same transaction.

    Returns the refund's id; the standing one's when there is one. Raises `Conflict` when the month
    ended meanwhile."""

    def step(tx: Transaction) -> int:
        standing = refunds.standing(tx.session, proposal.imp_uid)
        if standing is None:
            standing = _new(tx, proposal, reason)
        also(tx)
        ends_now = standing.status in (RefundStatus.REQUESTED, RefundStatus.UNKNOWN)
        if proposal.cancelled_at is not None and ends_now:
            take_back.done(tx, standing, proposal.cancelled_at)
        return standing.id

    return book.run(step)


def _new(tx: Transaction, proposal: Proposal, reason: str) -> Refund:
    if proposal.cancelled_at is None and tx.now >= proposal.refund_by:
        raise Conflict("the calendar month of this payment ended; nothing was sent")
    # One after the other: of two payments of a month, given back at once, one is the last.
    subscriptions.lock(tx.session, proposal.subscription_id)
    breaks_chain = not _month_stays(tx, proposal.others)
    cycle_id = tx.session.execute(
        select(Cycle.id).where(Cycle.paid_imp_uid == proposal.imp_uid)
    ).scalar_one_or_none()
    row = insert(Refund).values(
        subscription_id=proposal.subscription_id,
        cycle_id=cycle_id,
        imp_uid=proposal.imp_uid,
        merchant_uid=proposal.merchant_uid[:100],
        amount=proposal.amount.amount,
        breaks_chain=breaks_chain,
        refund_by=proposal.refund_by,
        reason=clean(reason)[:REASON_LENGTH],
        status=RefundStatus.REQUESTED,
        requested_at=tx.now,
    )
    # Two at once: one of them makes the row, both then see it.
    made = tx.session.execute(row.on_conflict_do_nothing().returning(Refund.id)).first()
    standing = refunds.standing(tx.session, proposal.imp_uid)
    if standing is None:
        raise Conflict("this refund ended at this very moment; look at it again")
    if made is not None:
        take_back.told(tx, standing, "refund.requested")
    return standing


# -- work on it ---------------------------------------------------------------------------------


async def work_on_open(
    book: Book, gateway: PaymentGateway, policy: BillingPolicy
) -> Counter[RefundStatus]:
    """Take every open refund one step further; a tick's work. Returns how many stand how. What
    breaks in one is its own, and told once a day: the others are worked on."""
    tally: Counter[RefundStatus] = Counter()
    for refund_id in await asyncio.to_thread(open_now, book):
        if not await compare_where_stale(book, gateway):
            # The next ones, too, would wait for nobody's answer; and by a clock in doubt nothing is
            # sent or proved.
            break
        try:
            standing = await _work_on(book, gateway, policy, refund_id)
        except Exception as error:
            if is_away(error):
                raise
            # Never the error's own text: it may hold a row of somebody's data.
            why = type(error).__name__
            _log.error("refund not worked on", refund=refund_id, error=why)
            await asyncio.to_thread(book.run, _tell_stuck(refund_id, why))
        else:
            tally[standing.status] += 1
    return tally


def _tell_stuck(refund_id: int, why: str) -> Callable[[Transaction], None]:
    def step(tx: Transaction) -> None:
        refund = tx.session.get(Refund, refund_id)
        kind = "refund.stuck"
        if refund is None or events.was_told_of(
            tx.session, refund.subscription_id, kind, tx.now, TELL_AGAIN
        ):
            return
        take_back.told(tx, refund, kind, why=why, alarm=True)

    return step


def open_now(book: Book) -> list[int]:
    """Refunds that wait for something to be done now."""
    return list(book.run(lambda tx: refunds.open_now(tx.session, tx.now, BATCH)))


async def see_through(
    book: Book, gateway: PaymentGateway, policy: BillingPolicy, refund_id: int, seconds: float
) -> Standing:
    """Work on one refund until it ended, for so many seconds at most. What is left then, the tick
    goes on with."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        standing = await work_on(book, gateway, policy, refund_id)
        ended = not REFUND_TRANSITIONS.after(standing.status)
        if ended or loop.time() >= until:
            return standing
        await asyncio.sleep(min(1.0, until - loop.time()))


async def work_on(
    book: Book, gateway: PaymentGateway, policy: BillingPolicy, refund_id: int
) -> Standing:
    """Send a refund, or ask what became of it, whichever is due; then write down what was learnt.

    Commit, call out, commit: no transaction is open while the gateway is asked."""
    await compare_where_stale(book, gateway)
    return await _work_on(book, gateway, policy, refund_id)


async def _work_on(
    book: Book, gateway: PaymentGateway, policy: BillingPolicy, refund_id: int
) -> Standing:
    """The same, where the clocks were just compared."""
    taken = await asyncio.to_thread(book.run, lambda tx: _take(tx, policy, refund_id))
    if taken is not None and taken.sends:
        outcome = await gateway.cancel(taken.claim.request)
        await asyncio.to_thread(book.run, lambda tx: _record(tx, policy, taken.claim, outcome))
    elif taken is not None:
        # One that nobody answers is put again later: `_take` has said when.
        with contextlib.suppress(GatewayError):
            found = await gateway.payment(taken.claim.request.imp_uid)
            await asyncio.to_thread(book.run, lambda tx: _conclude(tx, policy, taken, found))
    return await asyncio.to_thread(book.run, lambda tx: _standing(tx, refund_id))


@dataclass(frozen=True, slots=True)
class _Taken:
    """A claim to send, or a question to ask, and since when."""

    claim: RefundClaim
    sends: bool
    at: datetime


def _take(tx: Transaction, policy: BillingPolicy, refund_id: int) -> _Taken | None:
    """What is to be done now, if anything."""
    refund = refunds.locked(tx.session, refund_id)
    if refund is None:
        return None
    if refund.status == RefundStatus.SENDING:
        if refund.lease_until is None or refund.lease_until >= tx.now:
            return None
        # Its sender is gone, or too slow: the request may still be under way.
        _make_unknown(tx, refund, refund.lease_until + policy.settle, "the lease ran out")
    if waits(refund.ask_at, tx.now):
        return None
    if refund.status == RefundStatus.UNKNOWN:
        # Two who ask at one moment see one thing; and so late it is asked again in any case.
        refund.ask_at = tx.now + ASK_AGAIN
        return _Taken(refunds.as_claim(refund), sends=False, at=asked_at(tx))
    if is_doubted(tx):
        # Its month may not be over, or may be: neither is found out by such a clock.
        refund.ask_at = tx.now + ASK_AGAIN
    elif tx.now >= refund.refund_by:
        take_back.refused(tx, refund, "the calendar month of the payment ended before it was sent")
    elif problem := why_not_from(tx, policy, installation.identity(tx.session, policy.store)):
        # A copy of the book gives back nothing of the original's either.
        stop(tx, problem)
        refund.ask_at = tx.now + ASK_AGAIN
    elif claim := refunds.claim(tx.session, refund_id, tx.now, policy.lease):
        take_back.told(tx, refund, "refund.sending")
        return _Taken(claim, sends=True, at=tx.now)
    return None


def _record(
    tx: Transaction, policy: BillingPolicy, claim: RefundClaim, outcome: CancelOutcome
) -> None:
    """Apply what one request learnt. An answer to an older claim changes nothing (fencing)."""
    refund = _newest(tx, claim)
    if refund is None:
        return
    match outcome:
        case Cancelled(cancelled_at=cancelled_at):
            take_back.done(tx, refund, cancelled_at)
        case NotSent(why=why):
            # Where the lease ran out meanwhile, the look-ups will say the same.
            if refund.status == RefundStatus.SENDING:
                wait = min(FIRST_BACKOFF * 2 ** min(refund.fence - 1, 10), LONGEST_BACKOFF)
                _back_to_requested(tx, refund, wait, why)
        case Unknown(why=why, refusal=refusal, contradiction=contradiction):
            over = policy.settle if refusal is None else policy.visibility
            refund.refusal = None if refusal is None else clean(refusal)
            wait = min(FIRST_LOOK, policy.visibility)
            provable_at = over_at(refund, tx.now) + over
            _make_unknown(tx, refund, provable_at, refusal or why, wait, contradiction)


def _conclude(tx: Transaction, policy: BillingPolicy, taken: _Taken, found: Payment | None) -> None:
    """Apply what the gateway's own row of the payment says. A payment that we know of and they do
    not show, or show as neither paid nor cancelled, proves nothing either way."""
    refund = _newest(tx, taken.claim)
    if refund is None or found is None:
        return
    if found.status == "cancelled" and found.cancelled_amount.amount in (0, refund.amount):
        take_back.done(tx, refund, found.cancelled_at or tx.now)
    elif found.cancelled_amount.amount:
        take_back.refused(tx, refund, f"cancelled in part: {found.cancelled_amount}")
    elif found.status == "paid":
        _still_paid(tx, policy, refund, taken.at)


def _still_paid(tx: Transaction, policy: BillingPolicy, refund: Refund, asked_at: datetime) -> None:
    """Proof that nothing was given back, when it is late enough and seen often enough."""
    if refund.provable_at is not None:
        refund.provable_at = proves_from(tx, refund.provable_at)
    if refund.provable_at is not None and asked_at < refund.provable_at:
        refund.ask_at = refund.provable_at
        return
    if refund.refusal is not None:
        take_back.refused(tx, refund, refund.refusal)
        return
    refund.still_paid += 1
    if refund.still_paid < LOOKS_THAT_PROVE:
        # Two questions asked at one moment are one look: the next counts a while after this.
        refund.provable_at = asked_at + max(policy.visibility, FIRST_LOOK)
        refund.ask_at = max(refund.provable_at, tx.now)
        return
    _back_to_requested(tx, refund, timedelta(0), "proved not given back by the gateway's look-ups")


def _newest(tx: Transaction, claim: RefundClaim) -> Refund | None:
    """The refund, where this claim is its newest and nothing else has ended or undone it."""
    refund = refunds.locked(tx.session, claim.refund_id)
    if refund is None or refund.fence != claim.fence or refund.status == RefundStatus.REQUESTED:
        return None
    return refund


def _make_unknown(
    tx: Transaction,
    refund: Refund,
    provable_at: datetime,
    why: str,
    wait: timedelta = timedelta(0),
    alarm: bool = False,
) -> None:
    if refund.status == RefundStatus.SENDING:
        refund.status = RefundStatus.UNKNOWN
    # Told after the lease ran out, it may have left later than was reckoned with.
    refund.provable_at = max(refund.provable_at or provable_at, provable_at)
    refund.still_paid = 0
    refund.lease_until = None
    refund.ask_at = tx.now + wait
    take_back.told(tx, refund, "refund.unknown", why=why, alarm=alarm)


def _back_to_requested(tx: Transaction, refund: Refund, wait: timedelta, why: str) -> None:
    REFUND_TRANSITIONS.check(RefundStatus(refund.status), RefundStatus.REQUESTED)
    refund.status = RefundStatus.REQUESTED
    refund.lease_until = refund.provable_at = None
    refund.ask_at = tx.now + wait
    take_back.told(tx, refund, "refund.not_sent", why=why)


def _standing(tx: Transaction, refund_id: int) -> Standing:
    found = tx.session.get(Refund, refund_id)
    if found is None:
        raise NotFound(f"no refund has the id {refund_id}")
    return Standing(RefundStatus(found.status), found.message, found.cancelled_at, found.ask_at)
