"""What became of each announced payment, by the gateway's own word: a tick.

agree     what the book knows already ends without a question
look up   the payment by its id (no transaction); "not there" is believed after some looks
lay       it and the key's other payments of the month beside the book, as reconciliation does
apply     in the place where each thing is applied: `inquire`, `settle`; the rest is told, once

Whatever was announced, the work of one tick is bounded, and a gateway that is down ends it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from billing.domain.attempt import AttemptStatus
from billing.domain.calendar import day_of, start_of
from billing.domain.errors import AnswerUnusable, GatewayError
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.reconciliation import Case, Difference
from billing.domain.webhook import LOOK_AGAIN, WebhookOutcome
from billing.ports import PaymentGateway
from billing.services.clock_guard import compare_where_stale, is_far_off
from billing.services.confirm_difference import by_name
from billing.services.inquire import inquire
from billing.services.settle_difference import Settled, settle, tell_one
from billing.store import ledger, webhooks
from billing.store.ledger import Owner, Scope
from billing.store.session import Book, Transaction, is_away
from billing.store.webhooks import Waiting

_log = structlog.get_logger(__name__)

# Looks of one tick, a minute long: at those that name an attempt of ours, and at all others. The
# gateway is asked once to four times about each.
OURS, OTHERS = 300, 60
# Questions that are open at the gateway at once: they must not crowd out charges.
WIDTH = 10
# A look whose process died is made again after this; no look takes so long.
LOST_AFTER = timedelta(minutes=5)
# What says something of our subscribers is kept for the season in which it can be disputed.
KEEP_FOR, OTHERS_FOR = timedelta(days=90), timedelta(days=7)
_BATCH = 1000
_MOST_CASES = 100


# Whether a payment of nobody in the book bought a subscription, which is enrolled then.
PickUp = Callable[[Payment], Awaitable[bool]]


class _NotYet(Exception):
    """Nothing can be concluded now: look again."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look came to, and the difference that a person must be told of."""

    outcome: WebhookOutcome
    told: Difference | None = None


def waiting(book: Book) -> bool:
    """Whether the gateway must be asked. Ends what needs no question, and deletes what is old."""

    def step(tx: Transaction) -> bool:
        webhooks.settle_agreeing(tx.session, tx.now, _BATCH)
        webhooks.prune(tx.session, tx.now, KEEP_FOR, OTHERS_FOR, _BATCH)
        return webhooks.any_due(tx.session, tx.now)

    return book.run(step)


async def look_at_webhooks(
    book: Book,
    gateway: PaymentGateway,
    policy: BillingPolicy,
    pick_up: PickUp | None = None,
) -> Counter[str]:
    """Look at what was announced; returns how many ended how. A gateway that cannot be asked
    proves nothing: they wait; so they do for a clock that is far off. What breaks in one look is
    its own: it is raised when the others are made. `pick_up` is offered each payment that belongs
    to nobody."""
    await compare_where_stale(book, gateway)
    taken = await asyncio.to_thread(book.run, _take)
    look = _Look(book, gateway, policy, pick_up)
    tally: Counter[str] = Counter()
    broken: list[BaseException] = []
    for start in range(0, len(taken), WIDTH):
        group = taken[start : start + WIDTH]
        ends = await asyncio.gather(*(look.at(one) for one in group), return_exceptions=True)
        tally += Counter(end for end in ends if isinstance(end, str))
        failed = [end for end in ends if isinstance(end, BaseException)]
        broken += [error for error in failed if not isinstance(error, GatewayError)]
        if any(isinstance(error, GatewayError) or is_away(error) for error in failed):
            # Whatever the gateway does not answer must not take with it what waits beside it.
            rest = [one.webhook_id for one in taken[start + WIDTH :]]
            await asyncio.to_thread(book.run, _giving_back(rest))
            break
    if broken:
        raise broken[0]
    return tally


def _take(tx: Transaction) -> Sequence[Waiting]:
    if is_far_off(tx):
        # By it a payment is of another month, or yet to come, and the book would seem to agree.
        return ()
    return webhooks.take(tx.session, tx.now, tx.now + LOST_AFTER, OURS, OTHERS)


def _ended(tx: Transaction, one: Waiting, outcome: WebhookOutcome) -> str:
    return str(outcome) if webhooks.finish(tx.session, tx.now, one, outcome) else "again"


def _giving_back(webhook_ids: Sequence[int]) -> Callable[[Transaction], None]:
    return lambda tx: webhooks.give_back(tx.session, tx.now, webhook_ids)


class _Look:
    """One look at a time; many side by side."""

    def __init__(
        self,
        book: Book,
        gateway: PaymentGateway,
        policy: BillingPolicy,
        pick_up: PickUp | None,
    ) -> None:
        self._book, self._gateway, self._policy = book, gateway, policy
        self._pick_up = pick_up

    async def at(self, one: Waiting) -> str:
        """Look at one announced payment. Raises `GatewayError`, and whatever breaks: then the look
        is made again later, and at last left to the daily reconciliation."""
        try:
            return await self._seen(one)
        except AnswerUnusable as error:
            # A sale in cents, perhaps. Taken for an outage it would end every tick that comes to
            # it, and what waits behind it would never be looked at.
            _log.warning("not read", imp_uid=one.imp_uid, why=str(error))
            return await asyncio.to_thread(self._put_off, one, WebhookOutcome.FAILED)
        except Exception as error:
            if not (isinstance(error, GatewayError) or is_away(error)):
                await asyncio.to_thread(self._put_off, one, WebhookOutcome.FAILED)
            raise

    async def _seen(self, one: Waiting) -> str:
        payment = await self._gateway.payment(one.imp_uid)
        try:
            found = await self._judged(payment) if payment is not None else None
        except _NotYet:
            return await asyncio.to_thread(self._put_off, one, WebhookOutcome.AGREES)
        if found is None:
            return await asyncio.to_thread(self._put_off, one, WebhookOutcome.NOT_FOUND)
        return await asyncio.to_thread(self._finish, one, found)

    def _put_off(self, one: Waiting, at_last: WebhookOutcome) -> str:
        """Look again later, and after enough looks believe it."""

        def step(tx: Transaction) -> str:
            if one.looks >= len(LOOK_AGAIN):
                return _ended(tx, one, at_last)
            webhooks.put_off(tx.session, one.webhook_id, tx.now + LOOK_AGAIN[one.looks])
            return "again"

        return self._book.run(step)

    def _finish(self, one: Waiting, found: _Found) -> str:
        def step(tx: Transaction) -> str:
            if found.told is not None:
                tell_one(tx, found.told)
            return _ended(tx, one, found.outcome)

        return self._book.run(step)

    async def _judged(self, payment: Payment) -> _Found:
        owner, attempt_id = await asyncio.to_thread(self._whose, payment)
        if attempt_id is not None:
            await inquire(self._book, self._gateway, self._policy, [attempt_id])
            return _Found(WebhookOutcome.INQUIRED)
        if owner is None:
            # Never paid: nothing that the book would count.
            return _Found(WebhookOutcome.AGREES)
        if owner.customer_uid is None:
            return await self._of_nobody(payment, owner)
        since = start_of(owner.month, self._policy.plan.zone)
        of_month = await self._gateway.payments_of_key(owner.customer_uid, since)
        case = await asyncio.to_thread(self._beside, payment, of_month)
        found = None if case is None else await by_name(self._gateway, self._policy, case)
        if found is None:
            return _Found(WebhookOutcome.AGREES)
        return await asyncio.to_thread(self._settled, found)

    def _whose(self, payment: Payment) -> tuple[Owner | None, int | None]:
        """Whose the payment is, and the attempt of its month whose outcome is unknown."""

        with self._book.snapshot(staging=True) as tx:
            ledger.stage(tx.session, [ledger.row_of(payment)], self._scope(tx.now))
            owner = ledger.owner(tx.session, payment.imp_uid)
            subscription_id = owner.subscription_id if owner else None
            month = owner.month if owner else None
            live = webhooks.live_attempt(tx.session, payment.merchant_uid, subscription_id, month)
        if live is not None and live.status == AttemptStatus.SENDING:
            # Its own answer comes first, or its lease runs out.
            raise _NotYet
        return owner, live.id if live is not None else None

    async def _of_nobody(self, payment: Payment, owner: Owner) -> _Found:
        """Under a name of our form, and yet nobody's here; or another business of the store's."""
        if not owner.named:
            bought = self._pick_up is not None and await self._pick_up(payment)
            return _Found(WebhookOutcome.ENROLLED if bought else WebhookOutcome.STRANGER)
        found = await by_name(self._gateway, self._policy, Case(payment, None, named=True))
        if found is None:
            return _Found(WebhookOutcome.AGREES)
        return _Found(WebhookOutcome.UNKNOWN_PAYMENT, told=found)

    def _beside(self, payment: Payment, of_month: Sequence[Payment]) -> Case | None:
        """The payment beside the book, among the others of its key and month; None when it
        simply matches."""

        rows = [ledger.row_of(one) for one in (payment, *of_month)]
        with self._book.snapshot(staging=True) as tx:
            scope = self._scope(tx.now)
            ledger.stage(tx.session, rows, scope)
            cases = ledger.differing(tx.session, scope, _MOST_CASES)
        return next((one for one in cases if one.payment.imp_uid == payment.imp_uid), None)

    def _settled(self, found: Difference) -> _Found:
        match settle(self._book, self._policy, found):
            case Settled.APPLIED:
                done = WebhookOutcome.COUNTED if found.countable else WebhookOutcome.REFUNDED
                return _Found(done)
            case Settled.GONE:
                raise _NotYet
            case Settled.LEFT:
                return _Found(WebhookOutcome.UNKNOWN_PAYMENT, told=found)

    def _scope(self, now: datetime) -> Scope:
        """All days: the payment was asked about by its name."""
        zone = self._policy.plan.zone
        return Scope(
            since=datetime(2010, 1, 1, tzinfo=UTC),
            until=now + timedelta(days=1),
            month_begins=start_of(day_of(now, zone).replace(day=1), zone),
            zone=zone,
            prefix=self._policy.merchant_uid_prefix,
            sandbox=self._policy.sandbox,
        )
