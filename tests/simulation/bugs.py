"""Planted bugs: the tests of the simulation. Each is a mistake that somebody could make; a
simulation that does not find it within its seeds is too weak, not the bug too rare.

A bug is planted by replacing one piece of the engine for the length of a block. `recipe` narrows
the swarm where a bug needs an unusual moment; most are left to the ordinary swarm.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from unittest.mock import patch

import httpx
from sqlalchemy import and_, bindparam, false, select, update
from sqlalchemy.orm import Session

from billing.domain import plan, reconciliation, seal
from billing.domain.attempt import AttemptStatus
from billing.domain.calendar import SEOUL, cycle_dates, day_of, end_of
from billing.domain.cycle import CycleReason, CycleStatus
from billing.domain.finding import Nothing, Question, find
from billing.domain.money import Won
from billing.domain.outcome import Approved, Declined, NotSent, Outcome, Unknown
from billing.domain.subscription import SubscriptionStatus
from billing.portone import client as portone
from billing.portone import wire
from billing.portone.exchange import Exchange, segment
from billing.services import (
    asking,
    bring_in,
    change_status,
    charge,
    close_cycles,
    fence,
    inquire,
    open_cycles,
    recorder,
    refund,
)
from billing.simulation import processes
from billing.store import attempts, differences, events, health, installation
from billing.store.session import Book, Transaction
from billing.store.tables import Attempt, Cycle, Subscription

Recorder = recorder.Recorder


@dataclass(frozen=True)
class Bug:
    name: str
    plant: Callable[[], Any]
    # Rules of which one must be found broken.
    breaks: tuple[str, ...]
    seeds: int = 12
    recipe: Mapping[str, Any] = field(default_factory=dict)


def _replaced(target: Any, name: str, value: Any) -> Callable[[], Any]:
    return lambda: patch.object(target, name, value)


def _all(*plants: Callable[[], Any]) -> Callable[[], Any]:
    @contextmanager
    def planted() -> Iterator[None]:
        with ExitStack() as stack:
            for plant in plants:
                stack.enter_context(plant())
            yield

    return planted


# -- claims ------------------------------------------------------------------------------------


def _not_fenced(self: Any, answer: Any) -> bool:
    return self.attempt.status in (AttemptStatus.SENDING, AttemptStatus.UNKNOWN)


def _claim_whatever_status(
    session: Session,
    attempt_ids: Sequence[int],
    now: datetime,
    lease_until: datetime,
    places: Callable[[int], int] = lambda wanted: wanted,
) -> Sequence[attempts.Claim]:
    """`due` is not asked for: what another worker is sending is sent once more."""
    live = [AttemptStatus.DUE, AttemptStatus.SENDING, AttemptStatus.UNKNOWN]
    query = attempts._CLAIMED.where(
        Attempt.status.in_(live), Cycle.band_opens_at <= now, Cycle.last_start_at >= now
    )
    won = session.execute(query, {"ids": list(attempt_ids)}).all()
    won = won[: places(len(won))]
    if not won:
        return ()
    session.execute(
        update(Attempt)
        .where(Attempt.id.in_([row.id for row in won]))
        .values(
            status=AttemptStatus.SENDING,
            fence=Attempt.fence + 1,
            sent_at=now,
            lease_until=lease_until,
            ask_at=None,
            provable_at=None,
        )
    )
    return attempts._claims(session, won, fence=1)


async def _claimed_after_sending(
    book: Book, gateway: Any, policy: Any, attempt_ids: Sequence[int], **_: Any
) -> Any:
    """The request goes out first; the claim is written when the answer is there."""

    def look(tx: Transaction) -> Sequence[attempts.Claim]:
        free = attempts._CLAIMED.where(
            Attempt.status == AttemptStatus.DUE, Attempt.ready_at <= tx.now
        )
        rows = tx.session.execute(free, {"ids": list(attempt_ids)}).all()
        return attempts._claims(tx.session, rows)

    claims = await asyncio.to_thread(book.run, look)
    outcomes = await asyncio.gather(*(gateway.charge(claim.request) for claim in claims))
    learnt = {claim.attempt_id: outcome for claim, outcome in zip(claims, outcomes, strict=True)}

    class Known:
        async def charge(self, request: Any) -> Outcome:
            return next(
                outcome
                for claim, outcome in zip(claims, outcomes, strict=True)
                if claim.request.merchant_uid == request.merchant_uid
            )

        async def moment(self) -> datetime:
            return await gateway.moment()  # type: ignore[no-any-return]

        async def payments_of_order(self, _: str) -> list[Any]:
            return []

        async def payments_of_key(self, *_: Any) -> list[Any]:
            return []

    return await _real_charge(book, Known(), policy, list(learnt))  # type: ignore[arg-type]


_real_charge = charge.charge


def _chargeable_but(*left_out: str) -> Callable[[Any], Any]:
    def chargeable(now: Any) -> Any:
        conditions = {
            "status": Attempt.status == AttemptStatus.DUE,
            "ready": Attempt.ready_at <= now,
            "open": Cycle.status == CycleStatus.OPEN,
            "held": Cycle.held.is_(None),
            "band_open": Cycle.band_opens_at <= now,
            "band_over": Cycle.last_start_at >= now,
            "active": Subscription.status == SubscriptionStatus.ACTIVE,
        }
        return and_(*(one for name, one in conditions.items() if name not in left_out))

    return chargeable


@contextmanager
def _claim_asks_not_for(*left_out: str) -> Iterator[None]:
    """The dispatch asks for all conditions, the claim leaves some out."""
    chargeable = attempts._compared(_chargeable_but(*left_out)(bindparam("now")))
    free = attempts._CLAIMED.where(chargeable).with_for_update(of=Attempt, skip_locked=True)
    with patch.object(attempts, "_FREE", free):
        yield


def _room_only(session: Session, now: datetime, wanted: int, rate: float, longest: Any) -> Any:
    """The worker does not look whether all charging is held."""
    with patch.object(health, "hold_reason", lambda _: None):
        return _real_reserve(session, now, wanted, rate, longest)


_real_reserve = health.reserve


# -- what an answer means ----------------------------------------------------------------------


_real_client_charge = portone.PortOneClient.charge


async def _new_uid_after_timeout(self: Any, request: Any) -> Outcome:
    outcome = await _real_client_charge(self, request)
    if isinstance(outcome, Unknown) and outcome.refusal is None and not outcome.contradiction:
        return Declined("[0098] no answer")
    return outcome


async def _timeout_is_not_sent(self: Any, request: Any) -> Outcome:
    outcome = await _real_client_charge(self, request)
    if isinstance(outcome, Unknown) and outcome.refusal is None and not outcome.contradiction:
        return NotSent("no answer")
    return outcome


_real_outcome = wire.outcome_of_answer


def _5xx_is_declined(answer: Any, asked: Any, **options: Any) -> Outcome:
    if answer.status >= 500:
        return Declined(f"[0098] HTTP {answer.status}")
    return _real_outcome(answer, asked, **options)


def _no_echo(payment: Any, asked: Any, sandbox: bool) -> Outcome:
    return Approved(
        payment["imp_uid"], asked.amount, datetime.fromtimestamp(payment["paid_at"], UTC)
    )


def _envelope_without_echo(answered: Any, asked: Any, sandbox: bool) -> Outcome:
    payment = answered.response
    if answered.code == 0 and isinstance(payment, dict) and payment.get("status") == "paid":
        return _no_echo(payment, asked, sandbox)
    return _real_envelope(answered, asked, sandbox)


_real_envelope = wire._outcome_of_envelope
_real_post = Exchange.post


async def _posted_again(self: Any, path: str, token: Any, body: bytes) -> Any:
    """The transport tries a charge once more by itself."""
    try:
        return await _real_post(self, path, token, body)
    except httpx.ReadError:
        return await _real_post(self, path, token, body)


_real_body = wire.charge_body


def _without_buyer(asked: Any) -> bytes:
    return _real_body(replace(asked, buyer=replace(asked.buyer, tel=None)))


def _rounded(asked: Any) -> bytes:
    return _real_body(replace(asked, amount=Won(max(301, asked.amount.amount // 1000 * 1000))))


def _not_sent_costs_an_attempt(self: Any, why: str, *, alarm: bool) -> Any:
    return self._declined("[0098] not sent", None)


# -- look-ups ----------------------------------------------------------------------------------


async def _only_find(self: Any, merchant_uid: str) -> Sequence[Any]:
    """`find` shows the newest row alone."""
    row = await self._lookups.one(f"/payments/find/{segment('merchant_uid', merchant_uid)}")
    return [] if row is None else portone._payments([row])


async def _own_uids_only(
    gateway: Any, policy: Any, claim: Any, merchant_uids: Sequence[str]
) -> Any:
    """The month's payments of the key are not looked up."""
    rows: list[Any] = []
    for merchant_uid in merchant_uids:
        rows.extend(await gateway.payments_of_order(merchant_uid))
    return find(
        Question(
            customer_uid=claim.request.customer_uid,
            amount=claim.request.amount,
            month=claim.month,
            merchant_uid=claim.request.merchant_uid,
            earlier=claim.earlier,
            zone=policy.plan.zone,
            sandbox=policy.sandbox,
        ),
        rows,
    )


async def _no_look_before(gateway: Any, policy: Any, claim: Any) -> Any:
    return Nothing()


def _lost_means_due(tx: Transaction, policy: Any) -> None:
    """A lease that ran out makes the attempt due again, without a question."""
    for attempt, subscription_id in attempts.expired(tx.session, tx.now, inquire.BATCH):
        attempt.status = AttemptStatus.DUE
        attempt.ready_at = tx.now
        attempt.dispatched_at = attempt.lease_until = None
        events.add(
            tx.session,
            at=tx.now,
            kind="attempt.not_sent",
            subscription_id=subscription_id,
            cycle_id=attempt.cycle_id,
            attempt_id=attempt.id,
            data={"why": "the lease ran out"},
        )


def _asked_once(session: Session, now: datetime, again_at: datetime, limit: int) -> Sequence[int]:
    """A question whose message was lost is never asked again."""
    ids = list(
        session.execute(
            select(Attempt.id)
            .where(Attempt.status == AttemptStatus.UNKNOWN, Attempt.ask_at <= now)
            .order_by(Attempt.ask_at)
            .limit(limit)
        ).scalars()
    )
    if ids:
        far = now + timedelta(days=3650)
        session.execute(update(Attempt).where(Attempt.id.in_(ids)).values(ask_at=far))
    return ids


def _handed_out_once(
    session: Session, now: datetime, again_after: timedelta, limit: int
) -> Sequence[int]:
    return _real_hand_out(session, now, timedelta(days=3650), limit)


_real_hand_out = attempts.hand_out


def _planned_in_two_steps(book: Book, queue: Any, policy: Any) -> int:
    """What is unknown has no next question for the length of one commit."""

    def take(tx: Transaction) -> dict[int, datetime | None]:
        unknown = Attempt.status == AttemptStatus.UNKNOWN
        rows = tx.session.execute(select(Attempt.id, Attempt.ask_at).where(unknown)).tuples()
        planned = dict(rows.all())
        tx.session.execute(update(Attempt).where(unknown).values(ask_at=None))
        return planned

    def put_back(tx: Transaction, planned: Mapping[int, datetime | None]) -> None:
        for attempt, at in planned.items():
            tx.session.execute(update(Attempt).where(Attempt.id == attempt).values(ask_at=at))

    planned = book.run(take)
    book.run(lambda tx: put_back(tx, planned))
    return _really_find_unknown(book, queue, policy)


_really_find_unknown = inquire.find_unknown


# -- time --------------------------------------------------------------------------------------


def _utc_day(moment: datetime, zone: Any = None) -> Any:
    return moment.astimezone(UTC).date()


def _no_margin(dates: Any, policy: Any) -> datetime:
    return end_of(dates.band.closes_on, policy.zone)


def _anchored_on_last_payment(session: Session, now: datetime) -> list[Subscription]:
    """The chain counts from the day of the last payment instead of the anchor."""
    found = _real_due(session, now)
    with session.no_autoflush:
        for subscription in found:
            subscription.anchor_on = _day_of_last_payment(session, subscription)
    return found


_real_due = open_cycles._due


def _day_of_last_payment(session: Session, subscription: Subscription) -> date:
    last = session.execute(
        select(Cycle.paid_at)
        .where(Cycle.subscription_id == subscription.id, Cycle.paid_at.is_not(None))
        .order_by(Cycle.number.desc())
        .limit(1)
    ).scalar()
    if last is None:
        return subscription.anchor_on
    day = day_of(last, SEOUL).day
    while True:
        try:
            return subscription.anchor_on.replace(day=day)
        except ValueError:
            day -= 1


def _skips_short_months(subscription: Subscription, policy: Any) -> None:
    """A month without the anchor's day is passed over."""
    _real_move_on(subscription, policy)
    for _ in range(2):
        dates = cycle_dates(subscription.anchor_on, subscription.next_cycle, policy.plan.calendar)
        if dates.due_on.day != subscription.anchor_on.day:
            _real_move_on(subscription, policy)


_real_move_on = open_cycles.move_on


# -- retries and ends --------------------------------------------------------------------------


def _declines_forgotten(*_: Any) -> plan.Declines:
    return plan.Declines(total=1, today=1)


def _always_not_attempted(*_: Any, **__: Any) -> Any:
    return CycleStatus.MISSED, CycleReason.NOT_ATTEMPTED


def _any_time_ends(tx: Transaction) -> Any:
    return false()


def _silent(self: Any, kind: str, data: Any, *, alarm: bool = False) -> None:
    if kind != "attempt.declined":
        _real_event(self, kind, data, alarm=alarm)


_real_event = Recorder._event


def _withdraws_nothing(tx: Transaction, cycle: Any) -> bool:
    return True


def _no_deadline(until: float) -> Any:
    return _real_departure(math.inf)


_real_departure = portone._Departure


HARSH: Mapping[str, float] = {
    "answer_lost": 0.1,
    "slow_way": 0.2,
    "kill_before_request": 0.03,
    "kill_after_request": 0.06,
    "kill_after_answer": 0.03,
    "stop_before_look": 0.08,
    "message_late": 0.1,
    "message_doubled": 0.3,
    "commit_lost_done": 0.01,
    "commit_lost_undone": 0.01,
}


def _back_at_once(tx: Transaction, one: Any, provable_at: datetime, why: str, *_: Any) -> None:
    """What may have left counts as not sent."""
    refund._back_to_requested(tx, one, timedelta(0), why)


# Many subscribers on few days, and messages that come late: what must not be claimed any more is
# claimed all the same.
LATE: Mapping[str, float] = {"message_late": 0.6, "message_doubled": 0.6}
ALL_LATE: Mapping[str, float] = {"message_late": 1.0}
# The last slot that leaves time for a scan, with the usual margin.
JUST_BEFORE_THE_END: Mapping[str, Any] = {
    "settings": {"retry_cron": "14 23 * * *", "attempts_per_day": 1},
    "trouble": 1.0,
    "subscribers": 24,
}
# Requests that take most of a minute, from processes that freeze for minutes.
FROZEN: Mapping[str, Any] = {
    "rates": {"stop_until_sent_again": 0.1},
    "faults": {"latency": {"charge": [30_000, 50_000]}},
    "settings": {"charge_batch": 1},
    "subscribers": 20,
}
# What goes back, by us and by others, with answers that are lost.
GIVEN_BACK: Mapping[str, float] = {
    "refund_a_month": 30,
    "payment_cancelled_a_month": 15,
    "gateway_cancel_faults": 0.6,
    "answer_lost": 0.1,
}
AROUND_THE_CLOCK: Mapping[str, Any] = {"retry_cron": "*/10 * * * *", "attempts_per_day": 1}

BUGS: Sequence[Bug] = (
    Bug(
        "claim without the status condition",
        _replaced(attempts, "claim", _claim_whatever_status),
        ("I5", "I6", "I7"),
        recipe={"rates": HARSH},
    ),
    Bug(
        "claim after the request was sent",
        _replaced(processes, "charge", _claimed_after_sending),
        ("I5", "I6", "I1"),
    ),
    Bug(
        "record without the fence",
        _replaced(Recorder, "_is_newest", _not_fenced),
        ("I7", "I5", "I8", "I4"),
        recipe=FROZEN,
    ),
    Bug(
        "claim that does not look at the band",
        _all(
            lambda: _claim_asks_not_for("band_over"),
            _replaced(charge, "_too_late", lambda *_: None),
        ),
        ("I2",),
        recipe={**JUST_BEFORE_THE_END, "rates": ALL_LATE},
    ),
    Bug(
        "pause that withdraws nothing, claim that does not look",
        _all(
            lambda: _claim_asks_not_for("active"),
            _replaced(attempts, "_chargeable", _chargeable_but("active")),
            _replaced(change_status, "withdraw", _withdraws_nothing),
        ),
        ("I11",),
        recipe={"rates": {"pause_a_month": 60}, "subscribers": 16},
        seeds=24,
    ),
    Bug(
        "worker that does not look whether charging is held",
        _replaced(health, "reserve", _room_only),
        ("I10",),
        recipe={
            "rates": {**LATE, "operator_declines": 0.5},
            "settings": {"charge_batch": 1},
            "subscribers": 20,
        },
    ),
    Bug(
        "new merchant_uid after a time-out",
        _replaced(portone.PortOneClient, "charge", _new_uid_after_timeout),
        ("I5", "I1", "I8", "I4"),
        recipe={"rates": HARSH},
    ),
    Bug(
        "no answer taken for not sent",
        _replaced(portone.PortOneClient, "charge", _timeout_is_not_sent),
        ("I5", "I1", "I8", "I4"),
        recipe={"rates": HARSH},
    ),
    Bug(
        "5xx taken for declined",
        _replaced(portone, "outcome_of_answer", _5xx_is_declined),
        ("I5", "I1", "I8", "I4"),
        recipe={
            "faults": {
                "chances": {"charge": {"http_before_charge:502": 0.1, "http_after_charge:503": 0.1}}
            }
        },
    ),
    Bug(
        "answers are not compared with the request",
        _replaced(wire, "_outcome_of_envelope", _envelope_without_echo),
        ("I3",),
        recipe={
            "faults": {"chances": {"charge": {"wrong_amount": 0.1, "wrong_merchant_uid": 0.1}}}
        },
    ),
    Bug(
        "the transport sends a charge again by itself",
        _replaced(Exchange, "post", _posted_again),
        ("I5", "I6", "I1"),
        recipe={"rates": HARSH},
    ),
    Bug(
        "a charge that was refused with 401 goes again however late",
        _replaced(portone, "_Departure", _no_deadline),
        ("I5", "I6", "I1"),
        # One goes on with a token that another fetched, of two that were refused.
        recipe={
            "rates": {"token_revoked": 0.15, "stop_after_refusal": 0.4, "slow_way": 0.5},
            "subscribers": 30,
        },
        seeds=24,
    ),
    Bug("amount rounded", _replaced(portone, "charge_body", _rounded), ("I3",)),
    Bug("buyer data left out", _replaced(portone, "charge_body", _without_buyer), ("I3",)),
    Bug(
        "an attempt is used up by a request that was never sent",
        _replaced(Recorder, "_not_sent", _not_sent_costs_an_attempt),
        ("I5", "I4"),
    ),
    Bug(
        "one early 404 believed",
        _all(
            _replaced(recorder, "LOOKS_THAT_PROVE", 1),
            _replaced(Recorder, "_is_provable", lambda self: True),
        ),
        ("I5", "I1"),
        recipe={"rates": HARSH},
    ),
    Bug(
        "a lost claim is due again without a question",
        _replaced(inquire, "_give_up_on_expired", _lost_means_due),
        ("I5", "I6", "I1"),
        recipe={"rates": HARSH},
    ),
    Bug(
        "only `find`, and the month not looked up",
        _all(
            _replaced(portone.PortOneClient, "payments_of_order", _only_find),
            _replaced(asking, "_ask", _own_uids_only),
        ),
        ("I8", "I4", "I1", "I5"),
        recipe={"rates": {"answer_lost": 0.5, "failed_row_after": 1.0}},
    ),
    Bug(
        "the month's payments of the key are not looked up",
        _replaced(asking, "_ask", _own_uids_only),
        ("I1", "I5"),
    ),
    Bug(
        "no look-up before a charge",
        _replaced(asking, "already_there", _no_look_before),
        ("I1", "I5"),
        recipe={"rates": {"hand_payment_a_month": 30}},
    ),
    Bug(
        "a lost question is never asked again",
        _replaced(attempts, "take_to_ask", _asked_once),
        ("I12", "I4", "I8"),
        recipe={"rates": {**HARSH, "message_lost": 0.5}},
    ),
    Bug(
        "a question has no moment for one commit",
        _replaced(processes, "find_unknown", _planned_in_two_steps),
        ("I5",),
        recipe={"rates": {"answer_lost": 0.5}},
    ),
    Bug(
        "a lost hint is never given again",
        _replaced(attempts, "hand_out", _handed_out_once),
        ("I12",),
        # One must lie in an open band when the faults end.
        recipe={"rates": {"message_lost": 0.5}, "subscribers": 32},
    ),
    Bug(
        "UTC days for Korean days",
        # Everywhere: a charge by another day than the enrolment's is not sent at all.
        _all(
            _replaced(bring_in, "day_of", _utc_day),
            _replaced(seal, "day_of", _utc_day),
        ),
        ("I2",),
    ),
    Bug(
        "no closing margin",
        _replaced(open_cycles, "last_start", _no_margin),
        ("I2",),
        recipe={**JUST_BEFORE_THE_END, "rates": ALL_LATE},
    ),
    Bug(
        "chain counted from the last payment",
        _replaced(open_cycles, "_due", _anchored_on_last_payment),
        ("I2",),
        # Seen only where the last days of a band are used.
        recipe={
            "months": 4.0,
            "trouble": 1.0,
            "settings": {"retry_cron": "0 */8 * * *", "max_attempts": 50},
        },
    ),
    Bug(
        "anchor 31 skipped in short months",
        _replaced(open_cycles, "move_on", _skips_short_months),
        ("I4",),
        recipe={"months": 6.0},
    ),
    Bug(
        "attempts per day not counted",
        _replaced(plan.Declines, "counted", _declines_forgotten),
        ("I9",),
        recipe={"trouble": 1.0, "settings": {"retry_cron": "*/30 * * * *", "attempts_per_day": 2}},
    ),
    Bug(
        "every missed month is called not attempted",
        _replaced(close_cycles, "_verdict", _always_not_attempted),
        ("I4",),
        recipe={"trouble": 1.0},
    ),
    Bug(
        "a month is closed before its unknown is settled",
        _replaced(close_cycles, "_still_settling", _any_time_ends),
        ("I4",),
        recipe={
            "rates": {"answer_lost": 0.9, "gateway_down_a_month": 10, "ticks_down_a_month": 4},
            "settings": AROUND_THE_CLOCK,
            "trouble": 1.0,
        },
    ),
    Bug(
        "a decline is not written down",
        _replaced(Recorder, "_event", _silent),
        ("I7",),
        recipe={"trouble": 0.6},
    ),
    Bug(
        "a refund whose answer was lost is sent again without a look",
        _replaced(refund, "_make_unknown", _back_at_once),
        ("I5", "I1"),
        recipe={"rates": GIVEN_BACK, "months": 2.0},
    ),
    Bug(
        "what was given back elsewhere is not followed",
        _replaced(reconciliation.Difference, "takes_back", property(lambda _: False)),
        ("I8",),
        recipe={"rates": GIVEN_BACK, "months": 2.0},
    ),
    Bug(
        "nobody is told of a payment that the book cannot count",
        _replaced(differences, "note", lambda *_: False),
        ("I8",),
        recipe={"rates": {"hand_payment_a_month": 30, "cancel_a_month": 8}, "months": 2.0},
    ),
    Bug(
        "what somebody edited is charged",
        _replaced(charge, "is_as_enrolled", lambda *_: True),
        ("I2", "I3"),
        recipe={"rates": {"row_edited_a_month": 20}},
    ),
    Bug(
        "a book in another place is not noticed",
        _replaced(installation, "fence", lambda *_: None),
        ("I10",),
        recipe={"rates": {"book_set_back_a_month": 6}},
    ),
    Bug(
        "a book that went back in time is not noticed",
        _replaced(fence, "why_not_after", lambda *_: None),
        ("I10",),
        recipe={"rates": {"book_set_back_a_month": 12}, "subscribers": 24, "months": 2.4},
    ),
    Bug(
        "months end in a book that nobody has released",
        _replaced(close_cycles, "_here", lambda _, step: step),
        ("I10",),
        recipe={"rates": {"book_set_back_a_month": 6}, "trouble": 1.0, "subscribers": 24},
    ),
    Bug(
        "a wrong clock is not noticed",
        _replaced(health, "_skewed", lambda _: False),
        ("I10",),
        recipe={"rates": {"clock_step_a_month": 60}, "subscribers": 20},
    ),
)
