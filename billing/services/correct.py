"""Put right what the book holds of a subscription, by its initial payment at the gateway.

propose    read the book, ask the gateway, compare; nothing is written
correct    facts, a new seal and the event line that tells of it, in one transaction; what was put
           aside for them goes on

The gateway's row is all that is believed, and only where it is this customer's: whoever can write
into the database can write the id of another payment there, but not the tag that belongs to it. A
month with a payment is never touched, and nothing while a charge is under way. (By a book that is
wrong the question what became of one may have no end: where the gateway's answer contradicts it,
and nothing can be on its way any more, that does not keep the book from being put right.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from billing.domain.attempt import AttemptStatus
from billing.domain.calendar import CalendarPolicy, cycle_dates, day_of
from billing.domain.correction import Differing, differing, proven
from billing.domain.cycle import CycleStatus, HoldReason
from billing.domain.errors import Conflict, NotFound, Unconfirmed
from billing.domain.plan import NoRetryReason
from billing.domain.policy import BillingPolicy
from billing.domain.seal import seal
from billing.domain.subscription import Facts
from billing.ports import PaymentGateway
from billing.services.change_status import found_one, live_of, open_cycle_of
from billing.services.clock_guard import asked_at, compare_where_stale
from billing.services.fence import why_not_yet
from billing.services.follow_facts import go_on, point_anew
from billing.services.initial_payment import REGISTER_ANEW, InBook, confirmed, in_book
from billing.store import attempts, corrections, events, subscriptions
from billing.store.corrections import Month
from billing.store.session import Book, Transaction
from billing.store.tables import Subscription


@dataclass(frozen=True, slots=True)
class Proposal:
    """What should be written, by which payment, and in which fields the book is not right."""

    customer_uid: str = field(repr=False)
    imp_uid: str | None
    merchant_uid: str | None
    facts: Facts
    differs: tuple[Differing, ...]
    held: str | None
    book: InBook

    @property
    def is_wrong(self) -> bool:
        """Whether anything must be written."""
        return bool(self.differs) or not self.book.is_sealed

    @property
    def is_needed(self) -> bool:
        """Whether anything must be done: a month may be put aside for facts that are right by now.
        (One that the carrier refuses although they are right is no matter of the book's.)"""
        return self.is_wrong or self.held == HoldReason.FACTS_CHANGED


@dataclass(frozen=True, slots=True)
class Corrected:
    """What became of the open month, if there is one: when it is tried next, or why it is not."""

    customer_uid: str = field(repr=False)
    was_held: str | None
    held: str | None
    at: datetime | None
    why_not: NoRetryReason | None


# -- propose ------------------------------------------------------------------------------------


async def propose(
    book: Book, gateway: PaymentGateway, policy: BillingPolicy, customer_uid: str
) -> Proposal:
    """Compare the book with the initial payment at the gateway.

    Raises `NotFound`; `Conflict` (its buyer data was erased, or this is not the book that charges);
    `Unconfirmed` where the gateway's row is not there, or not the one this subscription began with;
    `GatewayError`."""
    await compare_where_stale(book, gateway)
    known, held, now = await asyncio.to_thread(
        book.run, lambda tx: (*_read(tx, policy, customer_uid), tx.now)
    )
    new = await confirmed(gateway, policy, known, now)
    zone = policy.plan.zone
    facts = proven(known.facts, new.facts, known.is_sealed_over, zone)
    return Proposal(
        customer_uid=customer_uid,
        imp_uid=new.initial_imp_uid,
        merchant_uid=new.initial_merchant_uid,
        facts=facts,
        differs=differing(known.facts, known.anchor_on, facts, zone),
        held=held,
        book=known,
    )


def _read(tx: Transaction, policy: BillingPolicy, customer_uid: str) -> tuple[InBook, str | None]:
    """The facts as they are, and for what the open month is held."""
    if problem := why_not_yet(tx, policy):
        raise Conflict(
            f"{problem}: what the gateway shows may be another customer's. Look first"
            " (maewol reconcile), then maewol release"
        )
    subscription = subscriptions.found(tx.session, customer_uid)
    if subscription is None:
        raise NotFound(f"no subscription has the customer_uid {customer_uid!r}")
    if subscription.forgotten_at is not None:
        raise Conflict("its buyer data was erased on request; it is never charged again")
    cycle = open_cycle_of(tx, subscription)
    return in_book(tx, subscription), cycle.held if cycle is not None else None


# -- correct ------------------------------------------------------------------------------------


def correct(book: Book, policy: BillingPolicy, proposal: Proposal) -> Corrected:
    """Write what was proposed, and let go what was put aside for it.

    Raises `Conflict`, and nothing was changed: a charge is under way, the book is not as it was
    compared, or there is nothing to do; `Unconfirmed` where months that were paid contradict it."""
    return book.run(lambda tx: _correct(tx, policy, proposal))


def _correct(tx: Transaction, policy: BillingPolicy, proposal: Proposal) -> Corrected:
    subscription = found_one(tx, proposal.customer_uid)
    cycle = open_cycle_of(tx, subscription)
    live = None if cycle is None else live_of(tx, cycle)
    if _is_under_way(tx, policy, proposal, subscription):
        raise Conflict("a charge of it is under way; try again when it has ended")
    if subscription.forgotten_at is not None or in_book(tx, subscription) != proposal.book:
        raise Conflict("it was changed in the book meanwhile; compare again")
    if not proposal.is_needed:
        raise Conflict("there is nothing to correct")
    was_held = None if cycle is None else cycle.held
    if proposal.is_wrong:
        _write(tx, policy, proposal, subscription)
    planned = None if cycle is None else go_on(tx, policy, subscription, cycle, live)
    if live is not None and live.status == AttemptStatus.UNKNOWN:
        # A contradiction is asked about once an hour; by what is right now it may be none.
        live.ask_at = tx.now
    refused = planned if isinstance(planned, NoRetryReason) else None
    return Corrected(
        customer_uid=subscription.customer_uid,
        was_held=was_held,
        held=None if cycle is None else cycle.held,
        at=None if isinstance(planned, NoRetryReason) else planned,
        why_not=refused,
    )


def _is_under_way(
    tx: Transaction, policy: BillingPolicy, proposal: Proposal, subscription: Subscription
) -> bool:
    """Whether a charge is, as far as this correction is concerned. The days of a month whose charge
    is in question are never moved."""
    moved = day_of(proposal.facts.initial_paid_at, policy.plan.zone) != proposal.book.anchor_on
    if moved:
        return attempts.in_flight(tx.session, subscription.id)
    return attempts.unanswered(tx.session, subscription.id, asked_at(tx))


def _write(
    tx: Transaction, policy: BillingPolicy, proposal: Proposal, subscription: Subscription
) -> None:
    facts, session, subscription_id = proposal.facts, tx.session, subscription.id
    anchor_on = day_of(facts.initial_paid_at, policy.plan.zone)
    months = corrections.months_of(session, subscription_id)
    following = _next_number(proposal, months, subscription.next_cycle, anchor_on)
    _check_months(months, facts, anchor_on, policy.plan.calendar)
    taken = subscriptions.found(session, facts.customer_uid)
    if taken is not None and taken.id != subscription_id:
        raise Conflict(f"another subscription has the customer_uid {facts.customer_uid!r}")
    _tell(tx, proposal, subscription_id)
    sealed = seal(proposal.book.key, facts)
    corrections.write(session, subscription_id, facts, anchor_on, sealed)
    session.refresh(subscription)
    _keep_ids(subscription, proposal)
    if anchor_on != proposal.book.anchor_on:
        point_anew(subscription, following, policy)


def _next_number(proposal: Proposal, months: Sequence[Month], number: int, anchor_on: date) -> int:
    """The number of the next month. An anchor that was moved later than the months were numbered
    leaves the numbers as they are; one that was enrolled wrongly numbered them: the next calendar
    month stays the next."""
    was = proposal.book.anchor_on
    ahead = (anchor_on.year - was.year) * 12 + anchor_on.month - was.month
    enrolled_so = proposal.book.is_sealed and "initial_paid_at" in _names(proposal)
    if not ahead or not enrolled_so:
        return number
    if months:
        raise _months_contradict(anchor_on)
    return max(number - ahead, 1)


def _check_months(
    months: Sequence[Month], facts: Facts, anchor_on: date, calendar: CalendarPolicy
) -> None:
    for one in months:
        if corrections.has_payment(one) and one.amount != facts.amount.amount:
            raise Unconfirmed(
                "amount",
                facts.amount.amount,
                f"the initial payment's, but {one.month:%Y-%m} was paid with {one.amount}",
                "Compare both payments in the gateway's console; a month with a payment is never"
                " changed",
            )
        ended = one.status != CycleStatus.OPEN
        if ended and cycle_dates(anchor_on, one.number, calendar).month != one.month:
            raise _months_contradict(anchor_on)


def _months_contradict(anchor_on: date) -> Unconfirmed:
    return Unconfirmed(
        "anchor_on",
        anchor_on.isoformat(),
        "the initial payment's day, but the book's months are counted from another calendar month",
        REGISTER_ANEW,
    )


def _tell(tx: Transaction, proposal: Proposal, subscription_id: int) -> None:
    """The event line, before anything is changed: the database wants to see it first. Buyer data
    and customer_uid by their names alone."""
    told: dict[str, object] = {
        "imp_uid": proposal.imp_uid,
        "fields": _names(proposal),
        "why": None if proposal.book.is_sealed else "seal broken",
    }
    for one in proposal.differs:
        if one.field == "amount":
            told |= {"book_amount": one.book, "ledger_amount": one.gateway}
        elif one.field == "anchor_on":
            told |= {"anchor_was": one.book, "anchor_on": one.gateway}
    events.add(
        tx.session,
        at=tx.now,
        kind="subscription.corrected",
        subscription_id=subscription_id,
        data={name: value for name, value in told.items() if value is not None},
    )
    events.write(tx.session)


def _names(proposal: Proposal) -> list[str]:
    return [one.field for one in proposal.differs]


def _keep_ids(subscription: Subscription, proposal: Proposal) -> None:
    """By these the payment is found again; where the book has them they agree."""
    subscription.initial_imp_uid = proposal.imp_uid
    subscription.initial_merchant_uid = proposal.merchant_uid
