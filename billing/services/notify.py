"""Send the outbox to the merchant's own system: at least once, in the order of each subscription.

find      what is due, and who is gone for good; the ids go to a sender
claim     a few notices under a lease, in one transaction; a sender that dies loses only the lease
send      side by side, each with a deadline of its own (no transaction is open)
record    delivered, to be tried again, or dead; then the next few, until the round's time is over

One round runs at a time, for seconds, so that a slow receiver holds up nobody else.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from billing.domain.delivery import Delivered, Delivery, Unreachable, next_try_at
from billing.domain.notice import Outgoing, Trial, body
from billing.domain.policy import BillingPolicy
from billing.ports import NoticeQueue, Notifier
from billing.services.clock_guard import is_far_off
from billing.services.fence import why_not_yet
from billing.store import events, notices, receiver
from billing.store.notices import NoticeClaim
from billing.store.session import Book, Transaction

# What one message carries: enough for a round of a quick receiver.
BATCH = 500
# How many requests are open at the receiver at once.
WIDTH = 20
# Far longer than a request's deadline and the record after it.
LEASE = timedelta(seconds=60)
# No batch starts later than this in a round; the last one has its requests' deadline on top.
ROUND_SECONDS = 10.0
# Ended notices are kept so long, to be looked at and sent again.
KEPT = timedelta(days=90)
# Rows tidied in one tick; the next is a minute away.
_MOST_BATCHES = 20
# Enough to find them by; `maewol notices --status dead` shows all.
_MOST_IDS = 10


def find_due(book: Book, queue: NoticeQueue, policy: BillingPolicy, *, wanted: bool) -> int:
    """Send what is due to a sender and tidy up; returns how many were sent on.

    Not `wanted` (no NOTICE_URL): news is kept for three days, should it be set again soon, and then
    dropped. Raises `BrokerUnavailable`; the notices are found again by the next tick. Nothing in a
    book that was moved or went back in time, before a person releases it: what waits in a copy is
    the original's to tell, and what waits in a backup may be true no more.
    """
    if book.run(lambda tx: why_not_yet(tx, policy)):
        return 0
    if not book.run(is_far_off):
        # By such a clock everything is old enough.
        _tidy(book, wanted=wanted)
    if not wanted:
        return 0
    ids = book.run(lambda tx: notices.due(tx.session, tx.now, LEASE, BATCH))
    if ids:
        queue.notify(ids)
    return len(ids)


def _tidy(book: Book, *, wanted: bool) -> None:
    _until_less(book, lambda tx: notices.prune(tx.session, tx.now - KEPT))
    if wanted:
        _until_less(book, _give_up_unsent)
    else:
        _until_less(book, lambda tx: notices.drop(tx.session, tx.now, LEASE, BATCH))


def _until_less(book: Book, step: Callable[[Transaction], int]) -> None:
    for _ in range(_MOST_BATCHES):
        if book.run(step) < BATCH:
            return


def _give_up_unsent(tx: Transaction) -> int:
    """While the receiver is down, most notices are not tried at all: they die by age."""
    if not receiver.is_down(receiver.read(tx.session)):
        return 0
    ids = notices.give_up(tx.session, tx.now, LEASE, BATCH)
    _tell_of_dead(tx, ids, "the receiver did not answer for three days")
    return len(ids)


async def deliver(
    book: Book, notifier: Notifier, policy: BillingPolicy, notice_ids: Sequence[int]
) -> Counter[str]:
    """Send those of these notices that may be sent now; returns how many were `delivered`,
    `refused` or found the receiver `unreachable`.

    Ends early when the time of a round is over or the receiver is down. A message that comes twice,
    late or by mistake does nothing: the claim loses.
    """
    loop = asyncio.get_running_loop()
    over = loop.time() + ROUND_SECONDS
    tally: Counter[str] = Counter()
    mine: datetime | None = None
    try:
        while loop.time() < over:
            step = _taking(policy, notice_ids, mine)
            mine, claims = await asyncio.to_thread(book.run, step)
            if not claims:
                break
            went_on = await _send_batch(book, notifier, claims, tally)
            if not went_on:
                break
    finally:
        if mine is not None:
            await asyncio.to_thread(book.run, _leaving(mine))
    return tally


def _taking(
    policy: BillingPolicy, notice_ids: Sequence[int], mine: datetime | None
) -> Callable[[Transaction], tuple[datetime | None, Sequence[NoticeClaim]]]:
    def step(tx: Transaction) -> tuple[datetime | None, Sequence[NoticeClaim]]:
        if why_not_yet(tx, policy):
            return mine, ()
        room = receiver.room(tx.session, tx.now, LEASE, WIDTH, mine)
        if not room:
            return None, ()
        if mine is None:
            ids = notices.bury_what_says_nothing(tx.session, notice_ids, tx.now)
            _tell_of_dead(tx, ids, "what it tells is no message")
        return tx.now + LEASE, notices.claim(tx.session, notice_ids, tx.now, LEASE, room)

    return step


def _leaving(mine: datetime) -> Callable[[Transaction], None]:
    return lambda tx: receiver.leave(tx.session, mine)


async def _send_batch(
    book: Book, notifier: Notifier, claims: Sequence[NoticeClaim], tally: Counter[str]
) -> bool:
    """Send side by side and record; False when the receiver is down. What breaks in one is its own,
    and a try like any other: it would be sent again without end, and keep back what follows it."""
    ended = await asyncio.gather(
        *(notifier.send(claim.outgoing) for claim in claims), return_exceptions=True
    )
    answers: list[tuple[NoticeClaim, Delivery]] = []
    for claim, answer in zip(claims, ended, strict=True):
        if isinstance(answer, Exception):
            answers.append((claim, Unreachable(f"could not be sent ({type(answer).__name__})")))
        elif not isinstance(answer, BaseException):
            answers.append((claim, answer))
    is_up = await asyncio.to_thread(book.run, lambda tx: _record(tx, answers))
    tally.update(type(answer).__name__.lower() for _, answer in answers)
    for failure in ended:
        if isinstance(failure, BaseException):
            raise failure
    return is_up


def _record(tx: Transaction, answers: Sequence[tuple[NoticeClaim, Delivery]]) -> bool:
    dead = [claim.notice_id for claim, answer in answers if _dies(tx, claim, answer)]
    outage = receiver.note(
        tx.session,
        tx.now,
        answered=sum(not isinstance(answer, Unreachable) for _, answer in answers),
        unanswered=sum(isinstance(answer, Unreachable) for _, answer in answers),
        delivered=sum(isinstance(answer, Delivered) for _, answer in answers),
        problem=next((problem for _, answer in answers if (problem := _problem(answer))), None),
        pause=max((wait for _, answer in answers if (wait := _patience(answer))), default=None),
    )
    if outage is not None:
        data = {"hours": round(outage / timedelta(hours=1), 1)}
        events.add(tx.session, at=tx.now, kind="receiver.down", data=data, alarm=True)
    _tell_of_dead(tx, dead, "refused for three days")
    return not receiver.is_down(receiver.read(tx.session))


def _dies(tx: Transaction, claim: NoticeClaim, answer: Delivery) -> bool:
    """Record what became of one; whether it was given up with it."""
    problem = _problem(answer)
    if problem is None:
        notices.delivered(tx.session, claim, tx.now)
        return False
    chance = random.random()  # noqa: S311 - spreads retries only
    again_at = next_try_at(claim.tries, tx.now, claim.give_up_at, chance, _patience(answer))
    changed = notices.failed(tx.session, claim, tx.now, again_at, problem)
    return changed and again_at is None


def _problem(answer: Delivery) -> str | None:
    return None if isinstance(answer, Delivered) else answer.problem


def _patience(answer: Delivery) -> timedelta | None:
    return answer.retry_after if isinstance(answer, Unreachable) else None


def _tell_of_dead(tx: Transaction, notice_ids: Sequence[int], why: str) -> None:
    if notice_ids:
        data = {"notices": len(notice_ids), "first": list(notice_ids[:_MOST_IDS]), "why": why}
        alarm = receiver.deaths_are_news(tx.session, tx.now)
        events.add(tx.session, at=tx.now, kind="notice.dead", data=data, alarm=alarm)


async def try_out(notifier: Notifier, name: str, at: datetime) -> Delivery:
    """Send a signed notice that says nothing, past the outbox; `name` tells two of them apart."""
    trial = Trial()
    return await notifier.send(Outgoing(f"mw_test_{name}", body(trial.kind, at, trial.data())))
