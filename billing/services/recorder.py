"""What each answer does to an attempt, its cycle and its subscription, and which event lines and
notices tell of it. Used by `record` alone, in its transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from billing.domain.attempt import ATTEMPT_TRANSITIONS, MAX_ATTEMPT_NUMBER, AttemptStatus
from billing.domain.calendar import FIRST_MOMENT
from billing.domain.cycle import CYCLE_TRANSITIONS, CycleReason, CycleStatus, HoldReason
from billing.domain.declines import Decline, DeclineClass
from billing.domain.finding import (
    Contradiction,
    FailedThis,
    Nothing,
    PaidByEarlier,
    PaidByThis,
    PaidElsewhere,
    Pending,
)
from billing.domain.notice import News, Resumed
from billing.domain.outcome import Approved, Declined, NotSent, Unknown
from billing.domain.payment import Payment
from billing.domain.plan import Declines, NoRetry, NoRetryReason, RetryAt, next_attempt
from billing.domain.policy import BillingPolicy
from billing.domain.refund import RefundStatus, month_of
from billing.domain.subscription import CHAIN_AT_RISK, SubscriptionStatus, SuspensionReason
from billing.services import change_status, news
from billing.services.answer import Answer, FactsChanged, GivenBack, Result, clean
from billing.services.clock_guard import is_doubted, proves_from
from billing.services.open_cycles import another_attempt, planned, rules_of
from billing.store import attempts, events, refunds, settled
from billing.store.session import Transaction
from billing.store.tables import Attempt, Cycle, Refund, Subscription

# "No such payment" counts when it was seen so often, each time late enough (docs/protocol.md, 5).
LOOKS_THAT_PROVE = 2
# A request that did not leave goes again after 5 s, 10 s, 20 s … at most 15 minutes.
FIRST_BACKOFF = timedelta(seconds=5)
LONGEST_BACKOFF = timedelta(minutes=15)
# A first look soon after the answer was lost: most such payments are there already.
FIRST_LOOK = timedelta(seconds=5)
PENDING_AGAIN = timedelta(minutes=1)
CONTRADICTION_AGAIN = timedelta(hours=1)


def over_at(sent: Attempt | Refund, now: datetime) -> datetime:
    """When a request without an answer was given up: now; by a clock that leapt back its lease is
    all that is known."""
    leapt_back = sent.sent_at is not None and now < sent.sent_at
    return sent.lease_until or now if leapt_back else now


class Recorder:
    """Applies one answer to one attempt; its rows are locked by the caller."""

    def __init__(
        self,
        tx: Transaction,
        policy: BillingPolicy,
        attempt: Attempt,
        cycle: Cycle,
        subscription: Subscription,
        asked_at: datetime | None = None,
    ) -> None:
        """`asked_at`: when the look-up began that the answer comes from; None for the charge's own
        answer."""
        self.tx = tx
        self.policy = policy
        self.attempt = attempt
        self.cycle = cycle
        self.subscription = subscription
        self.asked_at = asked_at or tx.now
        self.is_from_the_charge = asked_at is None
        # What follows must not be reckoned by a clock that leaps just now. A charge's own answer is
        # of a moment between claim and end of lease; a look that proves was made by a clock that
        # agreed.
        self.ended_at = tx.now
        if is_doubted(tx):
            if asked_at is not None and asked_at != FIRST_MOMENT:
                self.ended_at = asked_at
            elif attempt.sent_at is not None and attempt.lease_until is not None:
                self.ended_at = min(max(tx.now, attempt.sent_at), attempt.lease_until)
        # Not yet followed by a retry, a hold, or the end of retries: see `follow`.
        self.decline: Decline | None = None

    def apply(self, answer: Answer) -> Result:
        if not self._is_newest(answer):
            if self._stands(answer):
                return Result.TOO_LATE
            self._event("answer.too_late", {"learnt": type(answer.learnt).__name__}, alarm=True)
            return Result.TOO_LATE
        match answer.learnt:
            case Approved(imp_uid=imp_uid, paid_at=paid_at):
                return self._paid_by_this(imp_uid, paid_at)
            case PaidByThis(payment, also):
                return self._paid_by_this(payment.imp_uid, _moment(payment), also)
            case Declined(message=message, imp_uid=imp_uid):
                return self._declined(message, imp_uid)
            case FailedThis(message=message, imp_uid=imp_uid):
                return self._found_failed(message, imp_uid)
            case NotSent(why=why, our_fault=our_fault):
                return self._not_sent(why, alarm=our_fault)
            case GivenBack(why=why):
                return self._given_back(why)
            case Unknown() as unknown:
                return self._unknown(unknown)
            case PaidByEarlier(payment, also):
                return self._paid_by_other(payment, CycleReason.PAID_LATE, also)
            case PaidElsewhere(payment, also):
                return self._paid_by_other(payment, CycleReason.PAID_ELSEWHERE, also)
            case Contradiction(why=why, cancelled=cancelled):
                return self._contradicted(why, cancelled)
            case FactsChanged():
                return self._held_before_sending(HoldReason.FACTS_CHANGED, "seal broken")
            case Pending(status=status):
                return self._pending(status)
            case Nothing():
                return self._nothing_found()

    def _is_newest(self, answer: Answer) -> bool:
        waiting = self.attempt.status in (AttemptStatus.SENDING, AttemptStatus.UNKNOWN)
        return waiting and self.attempt.fence == answer.fence

    def _stands(self, answer: Answer) -> bool:
        """Whether it was written down already: by a commit whose own answer was lost."""
        told: tuple[AttemptStatus, str | None]
        match answer.learnt:
            case Approved(imp_uid=imp_uid) | PaidByThis(Payment(imp_uid=imp_uid)):
                told = (AttemptStatus.APPROVED, imp_uid)
            case Declined(imp_uid=imp_uid) | FailedThis(imp_uid=imp_uid):
                told = (AttemptStatus.DECLINED, imp_uid)
            case NotSent() | GivenBack():
                told = (AttemptStatus.DUE, self.attempt.imp_uid)
            case _:
                return False
        same = (self.attempt.status, self.attempt.imp_uid) == told
        return same and self.attempt.fence == answer.fence

    # -- paid ---------------------------------------------------------------------------------

    def _paid_by_this(
        self, imp_uid: str, paid_at: datetime, also: Sequence[Payment] = ()
    ) -> Result:
        if why := self._why_not_this_months(imp_uid):
            # A gateway that gives an id out twice. Ours was sent all the same: ask, and tell.
            if self.attempt.status == AttemptStatus.SENDING:
                return self._unknown(Unknown(why, contradiction=True))
            return self._contradicted(why, cancelled=False)
        self._warn_of_more(imp_uid, also)
        self._settle_attempt(AttemptStatus.APPROVED)
        self.attempt.imp_uid = imp_uid
        self._settle_cycle_paid(imp_uid, self.attempt.merchant_uid, paid_at, None)
        return Result.APPROVED

    def _paid_by_other(
        self, payment: Payment, reason: CycleReason, also: Sequence[Payment]
    ) -> Result:
        """The month is paid, but not by this attempt: it must never be sent (again)."""
        if self._is_asked_early():
            # Ours may still be charged as well; first be sure that it was not.
            return self._ask_when_provable()
        if why := self._why_not_this_months(payment.imp_uid):
            # Made for the month before and charged when that was over: a payment of both by its
            # name and its day, which no rule of ours decides.
            return self._contradicted(why, cancelled=False)
        self._warn_of_more(payment.imp_uid, also)
        self._move_attempt(AttemptStatus.DUE)
        self._settle_attempt(AttemptStatus.WITHDRAWN)
        self._settle_cycle_paid(
            payment.imp_uid, payment.merchant_uid[:40], _moment(payment), reason
        )
        self._event(
            "payment.found_elsewhere", {"imp_uid": payment.imp_uid, "reason": reason}, alarm=True
        )
        return Result.ELSEWHERE

    def _why_not_this_months(self, imp_uid: str) -> str | None:
        counted = settled.is_counted(self.tx.session, imp_uid)
        return f"{imp_uid} pays another month" if counted else None

    def adopt(self, payment: Payment, reason: CycleReason) -> Result:
        if self.attempt.status in (AttemptStatus.SENDING, AttemptStatus.UNKNOWN):
            return Result.UNKNOWN
        if self.cycle.status not in (CycleStatus.OPEN, CycleStatus.MISSED):
            return Result.TOO_LATE
        standing = refunds.standing(self.tx.session, payment.imp_uid)
        if standing is not None and standing.status == RefundStatus.DONE:
            # Given back since it was looked up.
            return Result.TOO_LATE
        paid_at = _moment(payment)
        fits = payment.amount.amount == self.cycle.amount
        if not fits or month_of(paid_at, self.policy.plan.zone) != self.cycle.month:
            raise AssertionError("only a payment of the right amount and month is adopted")
        if self.attempt.status == AttemptStatus.DUE:
            self._end_due(payment)
        self._settle_cycle_paid(payment.imp_uid, payment.merchant_uid[:40], paid_at, reason)
        self._event(
            "payment.found_elsewhere", {"imp_uid": payment.imp_uid, "reason": reason}, alarm=True
        )
        return Result.ELSEWHERE

    def _end_due(self, payment: Payment) -> None:
        """The live attempt is not sent (again): it is itself the one that was paid, or too late."""
        if self.attempt.merchant_uid != payment.merchant_uid:
            self._settle_attempt(AttemptStatus.WITHDRAWN, {"why": "the month is paid already"})
            return
        self._move_attempt(AttemptStatus.SENDING)
        self._settle_attempt(AttemptStatus.APPROVED)
        self.attempt.imp_uid = payment.imp_uid

    def _warn_of_more(self, kept: str, also: Sequence[Payment]) -> None:
        """The customer paid more than once this month: never hidden, never refunded by itself."""
        for other in also:
            told = {"imp_uid": kept, "also": other.imp_uid, "won": other.amount.amount}
            self._event("payment.double", told, alarm=True)
            self._notice(news.paid_twice(kept, other, self.tx.now, self.policy))

    def _settle_cycle_paid(
        self, imp_uid: str, merchant_uid: str, paid_at: datetime, reason: CycleReason | None
    ) -> None:
        late = self.cycle.status == CycleStatus.MISSED
        CYCLE_TRANSITIONS.check(CycleStatus(self.cycle.status), CycleStatus.PAID)
        self.cycle.status = CycleStatus.PAID
        self.cycle.reason = CycleReason.PAID_LATE if late and reason is None else reason
        self.cycle.held = None
        self.cycle.settled_at = self.tx.now
        self.cycle.paid_imp_uid = imp_uid
        self.cycle.paid_merchant_uid = merchant_uid
        self.cycle.paid_at = paid_at
        self._event("cycle.paid", {"imp_uid": imp_uid, "merchant_uid": merchant_uid})
        self._notice(news.paid(self.cycle, paid_at))
        self._mend(merchant_uid, late=late)
        if self.subscription.status == SubscriptionStatus.CANCELLED:
            self._event("payment.after_cancel", {"imp_uid": imp_uid}, alarm=True)
            self._notice(news.paid_after_cancel(self.subscription, self.cycle, self.policy))
        if self.subscription.status_reason == CHAIN_AT_RISK:
            # The carrier went along: the refund of last month did no harm.
            self.subscription.status_reason = None
            self._event("subscription.chain_whole", {})

    def _mend(self, merchant_uid: str, *, late: bool) -> None:
        """A payment that was found takes a suspension back: proof after the close, since the chain
        was never broken; the very charge that was refused for good and is paid all the same, since
        its key works. What the next month has broken meanwhile it does not mend."""
        subscription = self.subscription
        if subscription.status != SubscriptionStatus.SUSPENDED:
            return
        unbroken = late and subscription.status_reason == SuspensionReason.CHAIN_BROKEN
        refused = merchant_uid == self.attempt.merchant_uid
        if subscription.next_closes_at <= self.ended_at or not (unbroken or refused):
            return
        subscription.status = SubscriptionStatus.ACTIVE
        subscription.status_reason = None
        self._event("subscription.mended", {}, alarm=True)
        if change_status.was_paused(self.tx, subscription):
            change_status.pause_again(self.tx, subscription, self.policy)
        else:
            self._notice(Resumed(before=SubscriptionStatus.SUSPENDED))

    # -- declined -----------------------------------------------------------------------------

    def _declined(self, message: str, imp_uid: str | None) -> Result:
        # By what the book keeps of it: whoever asks later, as a resumption does, has no more.
        message = clean(message)
        decline = self.policy.declines.classify(message)
        if decline.decline_class is DeclineClass.ALREADY_PAID and not self._is_provable():
            # "Already paid" is a word, not proof: ask until the look-ups show the payment.
            return self._unknown(Unknown("the gateway says it is already paid", refusal=message))
        self._settle_attempt(
            AttemptStatus.DECLINED,
            {"class": decline.decline_class, "code": decline.code, "message": message},
            alarm=decline.decline_class in _NEEDS_A_PERSON,
        )
        self.attempt.decline_class = decline.decline_class
        self.attempt.message = message
        self.attempt.imp_uid = imp_uid
        self.decline = decline
        return Result.DECLINED

    def _found_failed(self, message: str, imp_uid: str) -> Result:
        if self._is_asked_early():
            # Several rows may stand under one name (the gateway's console tries again by itself),
            # and the paid one may be the last to show.
            return self._ask_when_provable()
        return self._declined(message, imp_uid)

    def follow(self, decline: Decline, sent: Sequence[datetime]) -> None:
        """What comes after a decline. `sent`: when each declined attempt of the cycle was, this one
        among them."""
        paused = self.subscription.status == SubscriptionStatus.PAUSED
        if self.cycle.status != CycleStatus.OPEN or not (
            paused or self.subscription.status == SubscriptionStatus.ACTIVE
        ):
            return
        dates, plan = rules_of(self.subscription, self.cycle, self.policy)
        declines = Declines.counted(sent, self.ended_at, self.policy.plan.zone)
        step = next_attempt(decline, self.ended_at, declines, dates, plan)
        again_at: datetime | None = None
        match step:
            case RetryAt() if self.attempt.number >= MAX_ATTEMPT_NUMBER:
                # Withdrawn ones count, too: a month that was paused and resumed all the time.
                why = NoRetryReason.ATTEMPTS_USED_UP
                self._event("cycle.no_more_attempts", {"why": why})
            case RetryAt(at=at):
                # Paused while it was on its way: resuming plans what follows this decline.
                if not paused:
                    self._plan_retry(at)
                    again_at = at
            case NoRetry(why=NoRetryReason.PERMANENT):
                # Not suspended yet: with wrong keys everybody is "unknown" (`confirm`).
                self._hold_cycle(HoldReason.UNCONFIRMED)
            case NoRetry(why=NoRetryReason.HELD):
                self._hold_cycle(HoldReason.FACTS_MISMATCH)
            case NoRetry(why=NoRetryReason.ASK):
                self._hold_cycle(HoldReason.CONTRADICTION)
            case NoRetry(why=why):
                self._event("cycle.no_more_attempts", {"why": why})
        self._notice(news.declined(self.policy, self.cycle, self.attempt, again_at))

    def _plan_retry(self, at: datetime) -> None:
        number = self.attempt.number + 1
        retry = another_attempt(
            self.subscription, self.cycle, number, at, self.ended_at, self.policy
        )
        self.tx.session.add(retry)
        events.add(
            self.tx.session,
            at=self.tx.now,
            kind="attempt.planned",
            subscription_id=self.subscription.id,
            cycle_id=self.cycle.id,
            attempt_id=lambda: retry.id,
            data=planned(retry, self.policy),
        )

    # -- not sent, unknown --------------------------------------------------------------------

    def _not_sent(self, why: str, *, alarm: bool) -> Result:
        """Provably no charge: the same attempt and `merchant_uid` again, at no cost of a retry."""
        if self.attempt.status == AttemptStatus.UNKNOWN:
            # The lease ran out meanwhile; the look-ups will say the same.
            return Result.TOO_LATE
        self.attempt.not_sent += 1
        doubled = FIRST_BACKOFF * 2 ** min(self.attempt.not_sent - 1, 10)
        self._back_to_due(clean(why), min(doubled, LONGEST_BACKOFF), alarm=alarm)
        return Result.NOT_SENT

    def _given_back(self, why: str) -> Result:
        if self.attempt.status == AttemptStatus.UNKNOWN:
            return Result.TOO_LATE
        # A moment later: whatever kept it so long may keep it again.
        self._back_to_due(why, FIRST_BACKOFF)
        return Result.NOT_SENT

    def _back_to_due(self, why: str, wait: timedelta, *, alarm: bool = False) -> None:
        self._move_attempt(AttemptStatus.DUE)
        left = self.cycle.last_start_at - self.ended_at
        if left > timedelta(0):
            # No more than half of what its month has left: just before the last moment, as after
            # it, no tick would find it in time.
            wait = min(wait, max(left / 2, FIRST_BACKOFF))
        self.attempt.ready_at = self.ended_at + wait
        self.attempt.dispatched_at = None
        self.attempt.lease_until = None
        self.attempt.ask_at = self.attempt.provable_at = None
        self.attempt.refusal = None
        again = wait.total_seconds()
        self._event("attempt.not_sent", {"why": why, "again_in_seconds": again}, alarm=alarm)
        if self.cycle.status != CycleStatus.OPEN or (
            self.subscription.status != SubscriptionStatus.ACTIVE
        ):
            # Paused, cancelled or closed while it was on its way: it does not go again.
            self._settle_attempt(AttemptStatus.WITHDRAWN)

    def _unknown(self, unknown: Unknown) -> Result:
        refused = unknown.refusal is not None
        if self.attempt.status == AttemptStatus.SENDING:
            self._move_attempt(AttemptStatus.UNKNOWN)
        if self.is_from_the_charge:
            # A refused request is over; one without an answer may still be on its way. Told after
            # the lease ran out, it may have left later than was reckoned with.
            over = over_at(self.attempt, self.tx.now)
            over += self.policy.visibility if refused else self.policy.settle
            self.attempt.provable_at = max(self.attempt.provable_at or over, over)
        self.attempt.dispatched_at = None
        self.attempt.nothing_found = 0
        self.attempt.refusal = clean(unknown.refusal) if unknown.refusal is not None else None
        self._ask_again(self.tx.now + min(FIRST_LOOK, self.policy.visibility))
        if unknown.contradiction:
            self._hold_cycle(HoldReason.CONTRADICTION)
        self._event("attempt.unknown", {"why": clean(unknown.why)}, alarm=unknown.contradiction)
        return Result.UNKNOWN

    # -- what look-ups found ------------------------------------------------------------------

    def _contradicted(self, why: str, cancelled: bool) -> Result:
        reason = HoldReason.OUTSIDE_PAYMENT_CANCELLED if cancelled else HoldReason.CONTRADICTION
        if self.attempt.status == AttemptStatus.SENDING:
            return self._held_before_sending(reason, why)
        self._hold_cycle(reason)
        self._ask_again(self.tx.now + CONTRADICTION_AGAIN)
        self._event("attempt.contradicted", {"why": clean(why)}, alarm=True)
        return Result.HELD

    def _held_before_sending(self, reason: HoldReason, why: str) -> Result:
        """Nothing was sent. Told after the lease ran out, the look-ups say the same."""
        if self.attempt.status == AttemptStatus.SENDING:
            self._back_to_due(clean(why), FIRST_BACKOFF)
        self._hold_cycle(reason)
        return Result.HELD

    def _pending(self, status: str) -> Result:
        if self.attempt.status == AttemptStatus.SENDING:
            self._back_to_due(
                f"an earlier request is {clean(status)} at the gateway", PENDING_AGAIN
            )
            return Result.NOT_SENT
        self._ask_again(self.tx.now + PENDING_AGAIN)
        return Result.UNKNOWN

    def _nothing_found(self) -> Result:
        """Proof only when it is late enough, and seen often enough."""
        if not self._is_provable():
            return self._ask_when_provable()
        if self.attempt.refusal is not None:
            return self._declined(self.attempt.refusal, None)
        self.attempt.nothing_found += 1
        if self.attempt.nothing_found < LOOKS_THAT_PROVE:
            # Two questions asked at one moment are one look: the next counts a while after this.
            self.attempt.provable_at = self.asked_at + max(self.policy.visibility, FIRST_LOOK)
            self._ask_again(max(self.attempt.provable_at, self.tx.now))
            return Result.UNKNOWN
        self._back_to_due("proved not charged by the gateway's look-ups", timedelta(0))
        return Result.NOT_SENT

    def _is_provable(self) -> bool:
        if self.attempt.provable_at is None:
            return False
        self.attempt.provable_at = proves_from(self.tx, self.attempt.provable_at)
        return self.asked_at >= self.attempt.provable_at

    def _is_asked_early(self) -> bool:
        """Whether its request may have left, and this look cannot show yet what became of it."""
        return self.attempt.status == AttemptStatus.UNKNOWN and not self._is_provable()

    def _ask_when_provable(self) -> Result:
        self._ask_again(self.attempt.provable_at)
        return Result.UNKNOWN

    # -- the rows -----------------------------------------------------------------------------

    def _ask_again(self, at: datetime | None) -> None:
        self.attempt.ask_at = at or self.tx.now
        self.attempt.asked += 1

    def _move_attempt(self, status: AttemptStatus) -> None:
        ATTEMPT_TRANSITIONS.check(AttemptStatus(self.attempt.status), status)
        self.attempt.status = status
        if status is AttemptStatus.DUE:
            # Only proof that no request of it did anything brings an attempt back.
            self.attempt.sent_at = None

    def _settle_attempt(
        self, status: AttemptStatus, told: dict[str, object] | None = None, *, alarm: bool = False
    ) -> None:
        self._move_attempt(status)
        self.attempt.settled_at = self.ended_at
        self.attempt.dispatched_at = None
        self.attempt.lease_until = None
        self.attempt.ask_at = None
        data = {"merchant_uid": self.attempt.merchant_uid, **(told or {})}
        self._event(f"attempt.{status}", data, alarm=alarm)

    def _hold_cycle(self, reason: HoldReason) -> None:
        if self.cycle.status != CycleStatus.OPEN or self.cycle.held is not None:
            return
        self.cycle.held = reason
        # One that ends in a suspension is told of by that, and by the brake.
        self._event("cycle.held", {"reason": reason}, alarm=reason is not HoldReason.UNCONFIRMED)

    def _event(self, kind: str, data: dict[str, object], *, alarm: bool = False) -> None:
        events.add(
            self.tx.session,
            at=self.tx.now,
            kind=kind,
            subscription_id=self.subscription.id,
            cycle_id=self.cycle.id,
            attempt_id=self.attempt.id,
            data=data,
            alarm=alarm,
        )

    def _notice(self, told: News) -> None:
        events.notify(
            self.tx.session, at=self.tx.now, subscription_id=self.subscription.id, news=told
        )


def follow_declines(tx: Transaction, recorders: Sequence[Recorder]) -> None:
    """Plan what comes after the declines among what was applied, all of them at once: on a day of
    retries most answers are declines."""
    declined = [(one, one.decline) for one in recorders if one.decline is not None]
    if not declined:
        return
    # A cycle has one live attempt: the old ones must be written as ended before new ones are.
    tx.session.flush()
    sent = attempts.declined_sent_at(tx.session, [one.cycle.id for one, _ in declined])
    for one, decline in declined:
        one.follow(decline, sent[one.cycle.id])


_NEEDS_A_PERSON = frozenset(
    {DeclineClass.OPERATOR, DeclineClass.MISMATCH, DeclineClass.UNRECOGNIZED}
)


def _moment(payment: Payment) -> datetime:
    if payment.paid_at is None:
        raise AssertionError("finding.find lets no paid payment without a moment through")
    return payment.paid_at
