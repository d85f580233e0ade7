"""The gateway's list of payments beside the book: every difference by name, with its remedy.

read      the lists of paid and cancelled payments, into a file without a name (no transaction)
compare   in one snapshot the database lays them beside the book
confirm   every difference is looked up at the gateway by its own name: a list can miss a row
apply     only when asked to, and only what the design names: a payment found counts as its
          cycle's, a cancellation found makes its cycle refunded. Everything else is told, once
schedules the gateway's own scheduler is asked about, key by key: a second charger
conclude  what was told of and is gone is ended
prove     the days that are over, signed, when a folder for the proofs is named

Without `apply` nothing at all is written, and whoever may only read may run it.

A question without an answer costs itself alone: its case or its key is left out, nothing is
concluded about it, and what the list showed is applied all the same. So does a row of a list that
cannot be read. A run is whole when every row was read, every difference looked up, and the gateway
not given up on; only a whole run concludes and proves.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import structlog

from billing.domain.calendar import day_of, end_of, start_of
from billing.domain.errors import InvalidInput, RowsUnreadable
from billing.domain.policy import BillingPolicy
from billing.domain.reconciliation import Case, Difference, DifferenceKind, judge
from billing.domain.refund import month_after, month_of
from billing.ports import PaymentGateway
from billing.services import prove
from billing.services.confirm_difference import by_name
from billing.services.prove import Proofs
from billing.services.questions import Questions, Sleep
from billing.services.settle_difference import Settled, conclude, settle, tell, tell_unanswered
from billing.store import events, ledger
from billing.store.ledger import Compared, Key, PaidInBook, Scope
from billing.store.session import Book, Transaction
from billing.store.subscriptions import take_time

_log = structlog.get_logger(__name__)

# Differences that are looked up by name and told in one run. More than these have one cause, which
# the first of them show.
MOST_DIFFERENCES = 500
# Billing keys whose schedules are asked about in one run: so many where no more are charged within
# the coming week; else a seventh of those that are, so that each is asked about in the week before
# it is charged. Where more than so many would be in a month, every second month, every third …;
# and in one run no more than this, the nearest first (docs/adr/0008 tells how long all that takes).
FEW_KEYS = 10_000
KEYS_A_MONTH = 2_500_000
MOST_KEYS = 200_000
# The gateway tells at most three months of its schedule at once (docs/gateway.md §5).
SCHEDULE_SPAN = timedelta(days=89)
# How far back the daily run looks, beside the current month; and at most, when it was long away.
LAST_DAYS = 7
LONGEST_CATCH_UP = timedelta(days=92)
# Less than a day, so that each day's run tells, whatever minute it comes to it.
TELL_AGAIN = timedelta(hours=20)


@dataclass(frozen=True, slots=True)
class Span:
    """Days, Asia/Seoul, both included."""

    first: date
    last: date


@dataclass
class Report:
    """What one run found. `differences` is in the order in which a person should look."""

    span: Span
    at: datetime
    counts: dict[str, int]
    differences: list[Difference] = field(default_factory=list)
    # Differences that were counted and neither looked up nor told.
    beyond: int = 0
    applied: list[Difference] = field(default_factory=list)
    # Differences that nobody was told of before.
    news: int = 0
    # Questions to the gateway that had no answer.
    failed: int = 0
    # Whether nothing is missing of what a conclusion, or a proof, needs.
    whole: bool = True
    proofs: Proofs = field(default_factory=Proofs)

    @property
    def clean(self) -> bool:
        """Whether both sides agree, as far as they were compared."""
        unproved = self.proofs.disagree or self.proofs.changed
        found = self.differences or self.applied or self.beyond
        return not (found or self.failed or unproved)


def span_of_today(
    now: datetime, policy: BillingPolicy, last_run: datetime | None, proved_to: date | None
) -> Span:
    """What the daily run looks at: the current month, the last days, and all since its last run."""
    zone = policy.plan.zone
    today = day_of(now, zone)
    first = min(today.replace(day=1), today - timedelta(days=LAST_DAYS))
    if last_run is not None:
        first = min(first, day_of(last_run, zone) - timedelta(days=1))
    if proved_to is not None:
        first = min(first, proved_to)
    return Span(max(first, day_of(now - LONGEST_CATCH_UP, zone)), today)


async def reconcile(
    book: Book,
    gateway: PaymentGateway,
    policy: BillingPolicy,
    span: Span,
    *,
    apply: bool = False,
    proofs: Path | None = None,
    days: int = 1,
    sleep: Sleep = asyncio.sleep,
) -> Report:
    """Compare the days of `span`; ask about the keys of so many `days`, today the last. Raises
    `GatewayError` when a list is not to be had whole: then nothing is concluded and nothing is
    written; `InvalidInput` for a span that makes no sense, or leaves days without a proof."""
    now = await asyncio.to_thread(book.run, lambda tx: tx.now)
    scope, questions = _scope(span, now, policy), Questions(sleep)
    if proofs is not None:
        prove.check_follows(proofs, span.first)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        questions.failed = await _read(gateway, scope, now, policy.visibility, spool)
        compared = await asyncio.to_thread(_compare, book, scope, spool)
        report = Report(span, now, compared.counts, beyond=compared.beyond)
        report.differences = await _confirmed(questions, gateway, policy, compared)
        report.whole = not questions.failed
        if apply:
            # Before the thousands of questions that follow: whatever becomes of those, this stands.
            await asyncio.to_thread(_apply, book, policy, report)
        keys = await asyncio.to_thread(_keys, book, policy, days)
        asked, scheduled = await _schedules(questions, gateway, keys, now)
        report.differences = in_order(report.differences + scheduled, now)
        report.failed = questions.failed
        report.whole = report.whole and not questions.gave_up
        if apply:
            await asyncio.to_thread(_conclude, book, scope, report, scheduled, asked)
        if proofs is not None and report.whole:
            # After the book has followed: the proof is of both sides as they stand.
            report.proofs = await asyncio.to_thread(_prove, book, policy, scope, spool, proofs)
    return report


async def reconcile_today(
    book: Book,
    gateway: PaymentGateway,
    policy: BillingPolicy,
    last_run: datetime | None,
    proofs: Path | None,
    *,
    sleep: Sleep = asyncio.sleep,
) -> Report:
    """The daily run: applies what the design names, tells of the rest. Raises `GatewayError`; the
    next run looks back to the last one that was whole, `last_run`. Proofs that ended longer ago
    than it looks back wait for a person: a chain must leave no day out, and a list of so many
    months is not read unasked."""
    now = await asyncio.to_thread(book.run, lambda tx: tx.now)
    proved_to = prove.first_missing(proofs) if proofs is not None else None
    span = span_of_today(now, policy, last_run, proved_to)
    if proved_to is not None and proved_to < span.first:
        await asyncio.to_thread(_tell_unproved, book, proved_to)
        proofs = None
    days = days_of_keys(now, policy, last_run)
    return await reconcile(
        book, gateway, policy, span, apply=True, proofs=proofs, days=days, sleep=sleep
    )


def _tell_unproved(book: Book, since: date) -> None:
    """An alarm at most once a day, however often the day's run is made again."""

    def step(tx: Transaction) -> None:
        data = {"no_proof_since": since.isoformat()}
        events.alarm_unless_told(
            tx.session, at=tx.now, kind="reconcile.unproved", data=data, within=TELL_AGAIN
        )

    book.run(step)


def days_of_keys(now: datetime, policy: BillingPolicy, last_run: datetime | None) -> int:
    """For how many days keys are to be asked about: for today, and for all since the last run."""
    if last_run is None:
        return ledger.PARTS
    zone = policy.plan.zone
    passed = (day_of(now, zone) - day_of(last_run, zone)).days
    return min(max(passed, 1), ledger.PARTS)


def _scope(span: Span, now: datetime, policy: BillingPolicy) -> Scope:
    zone = policy.plan.zone
    if span.first > span.last:
        raise InvalidInput("from", span.first.isoformat(), "lies after --to", "Swap the two")
    since = start_of(span.first, zone)
    if since >= now:
        raise InvalidInput("from", span.first.isoformat(), "lies in the future", "Use a past day")
    return Scope(
        since=since,
        # What is newer than this the gateway need not show yet.
        until=min(end_of(span.last, zone), now - policy.visibility),
        month_begins=start_of(day_of(now, zone).replace(day=1), zone),
        zone=zone,
        prefix=policy.merchant_uid_prefix,
        sandbox=policy.sandbox,
    )


# -- read ---------------------------------------------------------------------------------------


async def _read(
    gateway: PaymentGateway, scope: Scope, now: datetime, visibility: timedelta, spool: IO[str]
) -> int:
    """Whole calendar months, since two payments in one of them are a difference; cancellations up
    to now, since they may come long after the payment. Returns how many rows could not be read:
    then the run is not whole, yet what the others show is settled and told."""
    first = day_of(scope.since, scope.zone).replace(day=1)
    # A span that ends with its month ends at the first moment of the next one.
    after = month_after(day_of(scope.until - timedelta.resolution, scope.zone))
    since = start_of(first, scope.zone)
    # Beyond the span, too: the payment that is kept may be the later one.
    until = min(start_of(after, scope.zone), max(now - visibility, since))
    unread = 0
    for status, to in (("paid", until), ("cancelled", now)):
        try:
            async for portion in gateway.payments_between(status, since, to):
                spool.writelines(f"{json.dumps(ledger.row_of(payment))}\n" for payment in portion)
        except RowsUnreadable as error:
            _log.warning("not read", why=str(error))
            unread += len(error.problems)
    return unread


# -- compare ------------------------------------------------------------------------------------


def _compare(book: Book, scope: Scope, spool: IO[str]) -> Compared:
    with book.snapshot(staging=True) as tx:
        ledger.stage(tx.session, _rows(spool), scope)
        return ledger.compare(tx.session, scope, MOST_DIFFERENCES)


def _prove(book: Book, policy: BillingPolicy, scope: Scope, spool: IO[str], folder: Path) -> Proofs:
    with book.snapshot(staging=True) as tx:
        ledger.stage(tx.session, _rows(spool), scope)
        return prove.write_proofs(tx, policy, scope, folder)


def _rows(spool: IO[str]) -> Iterator[list[Any]]:
    spool.seek(0)
    for line in spool:
        yield json.loads(line)


# -- confirm ------------------------------------------------------------------------------------


async def _confirmed(
    questions: Questions, gateway: PaymentGateway, policy: BillingPolicy, compared: Compared
) -> list[Difference]:
    async def case(one: Case) -> Difference | None:
        return await by_name(gateway, policy, one)

    async def unseen(one: PaidInBook) -> Difference | None:
        return await _missing(gateway, policy, one)

    found = [answer for _, answer in await questions.ask(case, compared.cases)]
    found += [answer for _, answer in await questions.ask(unseen, compared.unseen)]
    return [one for one in found if one is not None]


async def _missing(
    gateway: PaymentGateway, policy: BillingPolicy, paid: PaidInBook
) -> Difference | None:
    try:
        payment = await gateway.payment(paid.imp_uid)
    except InvalidInput:
        # No gateway gives out such an id.
        payment = None
    if payment is not None:
        case = Case(payment, paid.book)
        zone, seen_at = policy.plan.zone, paid.paid_at
        return judge(case, sandbox=policy.sandbox, zone=zone, seen_at=seen_at)
    return Difference(
        kind=DifferenceKind.MISSING,
        at=paid.paid_at,
        imp_uid=paid.imp_uid,
        merchant_uid=paid.merchant_uid,
        customer_uid=paid.book.customer_uid,
        subscription_id=paid.book.subscription_id,
        cycle_id=paid.book.cycle_id,
        cycle_number=paid.book.cycle_number,
        cycle_status=paid.book.cycle_status,
        month=month_of(paid.paid_at, policy.plan.zone),
        paid_at=paid.paid_at,
        book_amount=paid.book.amount,
    )


def _keys(book: Book, policy: BillingPolicy, days: int) -> list[Key]:
    zone = policy.plan.zone

    def step(tx: Transaction) -> list[Key]:
        # Of millions the week's keys may take longer to read than a tick has time.
        take_time(tx.session)
        today = day_of(tx.now, zone)
        share = ledger.Share(
            # Seven whole days before they are charged, each of which has its own part of them.
            before=end_of(today + timedelta(days=ledger.PARTS), zone),
            parts=[(today.toordinal() - ago) % ledger.PARTS for ago in range(days)],
            many=max(1, -(-ledger.active_keys(tx.session) // KEYS_A_MONTH)),
        )
        return ledger.keys_to_ask(tx.session, share, FEW_KEYS, MOST_KEYS)

    return book.run(step)


async def _schedules(
    questions: Questions, gateway: PaymentGateway, keys: Sequence[Key], now: datetime
) -> tuple[list[Key], list[Difference]]:
    """What the gateway's own scheduler is going to charge with our keys: a second charger. Returns
    the keys that it told about, too."""

    async def one(key: Key) -> list[Difference]:
        held = await gateway.scheduled_payments(key.customer_uid, now, now + SCHEDULE_SPAN)
        return [
            Difference(
                kind=DifferenceKind.SCHEDULED,
                at=scheduled.scheduled_at,
                imp_uid=None,
                merchant_uid=scheduled.merchant_uid,
                customer_uid=key.customer_uid,
                subscription_id=key.subscription_id,
                ledger_amount=scheduled.amount,
            )
            for scheduled in held
            if scheduled.status == "scheduled"
        ]

    answered = await questions.ask(one, keys)
    return [key for key, _ in answered], [found for _, group in answered for found in group]


def in_order(found: Sequence[Difference], now: datetime) -> list[Difference]:
    """As a person should look: what can still be given back first, the nearest deadline before all;
    then the rest, the oldest first. Of one moment by kind."""
    return sorted(found, key=lambda one: _order(one, now))


def _order(found: Difference, now: datetime) -> tuple[bool, datetime, str, datetime]:
    refundable = found.refund_by is not None and found.refund_by > now
    deadline = found.refund_by if refundable and found.refund_by else found.at
    return not refundable, deadline, found.kind, found.at


# -- apply --------------------------------------------------------------------------------------


def _apply(book: Book, policy: BillingPolicy, report: Report) -> None:
    found = in_order(report.differences, report.at)
    ends = [(settle(book, policy, one), one) for one in found]
    report.applied = [one for end, one in ends if end is Settled.APPLIED]
    report.differences = [one for end, one in ends if end is Settled.LEFT]
    report.news = tell(book, report.differences)


# -- conclude -----------------------------------------------------------------------------------


def _conclude(
    book: Book,
    scope: Scope,
    report: Report,
    scheduled: Sequence[Difference],
    asked: Sequence[Key],
) -> None:
    report.news += tell(book, scheduled)
    if report.failed:
        tell_unanswered(book, report.failed, whole=report.whole)
    if report.whole:
        ids = [key.subscription_id for key in asked]
        conclude(book, scope, report.differences, ids, all_seen=not report.beyond)
