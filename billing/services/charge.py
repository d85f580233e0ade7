"""Claim, call the gateway, record: the road of a batch of charges, side by side in one event loop.

claim     due → sending, in one transaction; from its commit on money may move
look up   is this month already paid, by anybody? (no transaction is open from here)
send      one request, one outcome
record    as answers come in, several in one transaction (`desk`)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from billing import trail
from billing.domain.errors import GatewayError, GatewayRefused
from billing.domain.finding import Finding, Nothing
from billing.domain.outcome import NotSent, Outcome, Unknown
from billing.domain.policy import BillingPolicy
from billing.domain.seal import is_as_enrolled
from billing.ports import PaymentGateway, Watermark
from billing.services import asking
from billing.services.answer import Answer, FactsChanged, GivenBack, Result
from billing.services.clock_guard import compare_clocks
from billing.services.desk import Desk
from billing.services.fence import Newest, fenced
from billing.store import attempts, events, health, installation
from billing.store.attempts import Claim
from billing.store.health import Permit
from billing.store.session import Book, Transaction, by_index

_log = structlog.get_logger(__name__)

# How old what is known of a hold may be when a request leaves, in seconds.
_HOLD_KNOWN_FOR = 0.25
# How often the gateway is asked for its `now` where its answers come late.
_COMPARED_AT_MOST = 3


class _Hold:
    """Whether all charging was stopped meanwhile: a claim that waits for its place under the
    ceiling, or for a slow look-up, is not sent after that."""

    def __init__(self, book: Book, known_at: float) -> None:
        """`known_at`: the moment, on the event loop's clock, at which there was none."""
        self._book = book
        self._known_at = known_at
        self._asked: asyncio.Future[str | None] | None = None

    async def stands(self) -> bool:
        """Asked of the book four times a second at most. One that does not answer may hold."""
        now = asyncio.get_running_loop().time()
        if now - self._known_at >= _HOLD_KNOWN_FOR:
            self._known_at = now
            self._asked = asyncio.ensure_future(
                asyncio.to_thread(self._book.run, lambda tx: health.hold_reason(tx.session))
            )
        try:
            return self._asked is not None and await asyncio.shield(self._asked) is not None
        except SQLAlchemyError:
            return True


@dataclass(frozen=True, slots=True)
class _Batch:
    """Claims won together. `started` and `lease_ends` are on the event loop's clock, taken before
    the claim, so that they err on the early side."""

    claims: Sequence[Claim]
    key: bytes
    claimed_at: datetime
    permit: Permit
    started: float
    lease_ends: float
    hold: _Hold
    newest: Newest | None
    # Why none of them may be sent.
    problem: NotSent | None = None


async def charge(
    book: Book,
    gateway: PaymentGateway,
    policy: BillingPolicy,
    attempt_ids: Sequence[int],
    watermark: Watermark | None = None,
    desk: Desk | None = None,
) -> Counter[Result]:
    """Charge those of these attempts that may be charged now; returns how many ended how.

    Attempts that are not due, or are another worker's, are left alone, so a message that comes
    twice, late or by mistake does nothing. With a `watermark`, a database that has forgotten
    events is noticed too. Tasks of one process share a `desk`.
    """
    # Asked first: what is committed in between can only make the book's own number higher.
    seen = {} if watermark is None else await watermark.seen()
    batch = await _claim(book, policy, attempt_ids, seen, trusting=False)
    if batch is None:
        problem = await _watch_the_clock(book, gateway)
        batch = await _claim(book, policy, attempt_ids, seen, trusting=problem is not None)
        if batch is None:
            # It leapt since. Nobody has them: they are handed out again.
            return Counter()
        batch = replace(batch, problem=problem)
    if watermark is not None and batch.newest is not None:
        await batch.newest.tell(watermark)
    if batch.claims:
        _log.info("claimed", attempts=[claim.attempt_id for claim in batch.claims])
    desk = desk or Desk(book, policy)
    works = [
        partial(_charge_one, gateway, policy, batch, place, claim)
        for place, claim in enumerate(batch.claims)
    ]
    return await desk.written(works, batch.lease_ends)


@trail.spanned("claim")
async def _claim(
    book: Book,
    policy: BillingPolicy,
    attempt_ids: Sequence[int],
    seen: Mapping[str, int],
    *,
    trusting: bool,
) -> _Batch | None:
    """None, and nothing claimed, when the gateway's clock was last compared with ours too long ago;
    not when `trusting` what is known of it, since nothing is sent by it anyway."""
    started = asyncio.get_running_loop().time()
    # After the wait for a place under the ceiling there must be time for the look-ups.
    longest = policy.startable / 2

    def step(tx: Transaction) -> _Batch | None:
        if not trusting and health.skew_is_stale(tx.session, tx.now):
            return None
        by_index(tx.session)
        newest = fenced(tx, policy, seen)
        permit = health.NONE

        def places(wanted: int) -> int:
            nonlocal permit
            permit = health.reserve(tx.session, tx.now, wanted, policy.ceiling, longest)
            return permit.count

        claims = attempts.claim(tx.session, attempt_ids, tx.now, tx.now + policy.lease, places)
        for claim in claims:
            events.add(
                tx.session,
                at=tx.now,
                kind="attempt.sending",
                subscription_id=claim.subscription_id,
                cycle_id=claim.cycle_id,
                attempt_id=claim.attempt_id,
                data={
                    "merchant_uid": claim.request.merchant_uid,
                    "fence": claim.fence,
                    **trail.mark(),
                },
            )
        if newest is not None:
            # With the claim's own lines: a book that is set back to just before it has lost no
            # others.
            events.write(tx.session)
            newest = replace(newest, number=events.newest(tx.session))
        return _Batch(
            claims=claims,
            key=installation.stored_key(tx.session),
            claimed_at=tx.now,
            permit=permit,
            started=started,
            lease_ends=started + policy.lease.total_seconds(),
            hold=_Hold(book, started),
            newest=newest,
        )

    return await asyncio.to_thread(book.run, step)


async def _charge_one(
    gateway: PaymentGateway,
    policy: BillingPolicy,
    batch: _Batch,
    place: int,
    claim: Claim,
    hand_in: Callable[[Answer], None],
) -> None:
    """One claim to its answer. Whatever breaks in here is this one's own; neighbours go on."""
    sent = False
    try:
        learnt = await _before_sending(gateway, policy, batch, place, claim)
        if learnt is None:
            sent = True
            learnt = await gateway.charge(claim.request)
    except BaseException as error:
        # After the request may have left, everything that is not an answer is "unknown".
        why = f"{type(error).__name__} in the worker"
        learnt = Unknown(why) if sent else NotSent(why, our_fault=True)
        hand_in(Answer(claim.attempt_id, claim.fence, learnt))
        if not isinstance(error, Exception):
            raise
        return
    hand_in(Answer(claim.attempt_id, claim.fence, learnt))


async def _before_sending(
    gateway: PaymentGateway, policy: BillingPolicy, batch: _Batch, place: int, claim: Claim
) -> Outcome | Finding | FactsChanged | GivenBack | None:
    """Everything that may still stop a claimed attempt; None when it may be sent."""
    zone = policy.plan.zone
    if not is_as_enrolled(batch.key, claim.facts, claim.anchor_on, claim.seal, zone):
        return FactsChanged()
    if batch.problem is not None:
        return batch.problem
    await _wait_for_place(batch, place)
    if (late := _too_late(policy, batch, claim)) is not None:
        return late
    try:
        found = await asking.already_there(gateway, policy, claim)
    except GatewayError as error:
        return NotSent(f"look-up before the charge: {error}", isinstance(error, GatewayRefused))
    if not isinstance(found, Nothing):
        return found
    if await batch.hold.stands():
        return GivenBack("charging was stopped meanwhile")
    return _too_late(policy, batch, claim)


async def _wait_for_place(batch: _Batch, place: int) -> None:
    """Charges of a batch start one after the other, at the rate that was reserved."""
    rate = batch.permit.rate
    behind = batch.permit.wait.total_seconds() + (place / rate if rate else 0)
    left = batch.started + behind - asyncio.get_running_loop().time()
    if left > 0:
        await asyncio.sleep(left)


def _too_late(policy: BillingPolicy, batch: _Batch, claim: Claim) -> GivenBack | None:
    """Checked again immediately before each request: a batch may have waited."""
    now = asyncio.get_running_loop().time()
    if now > batch.started + policy.startable.total_seconds():
        return GivenBack("too little of the lease was left")
    if batch.claimed_at + timedelta(seconds=now - batch.started) > claim.last_start_at:
        return GivenBack("the band's last start has passed")
    return None


async def _watch_the_clock(book: Book, gateway: PaymentGateway) -> NotSent | None:
    """Compare billing time with the gateway's `now`, every few minutes (docs/reliability.md, A3).
    When that cannot be done, nothing is sent by a clock that nobody vouches for: returns why."""
    problem = NotSent("clocks not compared: the gateway's answers come late")
    for _ in range(_COMPARED_AT_MOST):
        try:
            if await compare_clocks(book, gateway, asyncio.get_running_loop().time):
                return None
        except GatewayError as error:
            refused = isinstance(error, GatewayRefused)
            problem = NotSent(f"clocks not compared: {error}", credentials=refused)
            if refused:
                break
    return problem
