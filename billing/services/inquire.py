"""Ask the gateway what happened, record. An unknown attempt is only ever asked about."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from billing.domain.attempt import AttemptStatus
from billing.domain.errors import GatewayError
from billing.domain.policy import BillingPolicy
from billing.ports import PaymentGateway, WorkQueue
from billing.services import asking
from billing.services.answer import Answer, Result
from billing.services.clock_guard import asked_at, compare_where_stale
from billing.services.desk import Desk
from billing.services.questions import WIDTH
from billing.store import attempts, events
from billing.store.attempts import Claim
from billing.store.session import Book, Transaction

_log = structlog.get_logger(__name__)

BATCH = 500


def find_unknown(book: Book, queue: WorkQueue, policy: BillingPolicy) -> int:
    """Make attempts whose lease ran out unknown, and send every open question to the workers.

    Returns how many were sent. Raises `BrokerUnavailable`; they are found again, a minute later or
    so.
    """
    book.run(lambda tx: _give_up_on_expired(tx, policy))
    again = policy.ask_again_after
    ids = book.run(lambda tx: attempts.take_to_ask(tx.session, tx.now, tx.now + again, BATCH))
    for start in range(0, len(ids), policy.charge_batch):
        queue.inquire(ids[start : start + policy.charge_batch])
    return len(ids)


def _give_up_on_expired(tx: Transaction, policy: BillingPolicy) -> None:
    """`sending` → `unknown`: the worker is gone or too slow. Its request may still be under way.

    "No such payment" proves something only after `settle`, counted from the end of the lease: the
    last moment at which its worker could have sent.
    """
    for attempt, subscription_id in attempts.expired(tx.session, tx.now, BATCH):
        assert attempt.lease_until is not None  # noqa: S101 - a CHECK constraint says the same
        attempt.status = AttemptStatus.UNKNOWN
        attempt.provable_at = attempt.lease_until + policy.settle
        attempt.ask_at = tx.now
        attempt.dispatched_at = None
        events.add(
            tx.session,
            at=tx.now,
            kind="attempt.unknown",
            subscription_id=subscription_id,
            cycle_id=attempt.cycle_id,
            attempt_id=attempt.id,
            data={"why": "the lease ran out"},
        )


async def inquire(
    book: Book, gateway: PaymentGateway, policy: BillingPolicy, attempt_ids: Sequence[int]
) -> Counter[Result]:
    """Ask about those of these attempts that are unknown; returns how many ended how.

    A gateway that cannot be asked proves nothing: the question stays open. So does one whose answer
    cannot be written down; the others are.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    await compare_where_stale(book, gateway)
    claims, at = await asyncio.to_thread(
        book.run, lambda tx: (attempts.open_questions(tx.session, attempt_ids), asked_at(tx))
    )
    if claims:
        _log.info("asking", attempts=[claim.attempt_id for claim in claims])
    door = asyncio.Semaphore(WIDTH)
    unanswered: Counter[str] = Counter()

    async def ask(claim: Claim, hand_in: Callable[[Answer], None]) -> None:
        async with door:
            try:
                found = await asking.what_became(gateway, policy, claim)
            except GatewayError as error:
                unanswered[str(error)] += 1
            else:
                hand_in(Answer(claim.attempt_id, claim.fence, found, at))

    works = [partial(ask, claim) for claim in claims]
    # Later than that it is asked about again.
    again_at = began + policy.ask_again_after.total_seconds()
    tally = await Desk(book, policy).written(works, again_at)
    if unanswered:
        # A gateway that writes its answers in another way is seen here, and nowhere else.
        _log.warning("not answered", why=dict(unanswered))
    return tally + Counter({Result.UNKNOWN: unanswered.total()})
