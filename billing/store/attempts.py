"""Queries on attempts: what is due, who may claim it, what must be asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    ColumnElement,
    Row,
    Select,
    and_,
    any_,
    bindparam,
    case,
    cast,
    false,
    func,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.orm import Session

from billing.domain.attempt import LIVE, AttemptStatus
from billing.domain.cycle import CONTRADICTED, CycleStatus
from billing.domain.money import Won
from billing.domain.payment import Buyer, ChargeRequest
from billing.domain.subscription import Facts, SubscriptionStatus
from billing.store.tables import Attempt, BuyerData, Cycle, Subscription
from billing.store.waiting import is_time

_ONE_DISPATCHER = 727_801_209


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt this worker alone may send, until its lease ends."""

    attempt_id: int
    fence: int
    cycle_id: int
    subscription_id: int
    number: int
    month: date
    last_start_at: datetime
    resent: bool
    earlier: tuple[str, ...]
    request: ChargeRequest
    facts: Facts
    anchor_on: date
    seal: bytes


def outstanding(session: Session, now: datetime, again_after: timedelta, at_most: int) -> int:
    """Attempts handed out and not finished, counted up to `at_most`.

    One that was lost on the way (see `hand_out`) counts no more: else a broker that forgets
    everything at a busy moment would leave no room for handing out anything, ever again.
    """
    handed_out = (
        select(Attempt.id)
        .where(
            Attempt.status.in_([AttemptStatus.DUE, AttemptStatus.SENDING]),
            Attempt.dispatched_at.is_not(None),
            or_(
                Attempt.status == AttemptStatus.SENDING,
                # Further ahead: by a clock that was.
                Attempt.dispatched_at.between(now - again_after, now + again_after),
            ),
        )
        .limit(at_most)
    )
    return session.execute(select(func.count()).select_from(handed_out.subquery())).scalar_one()


def _chargeable(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Every condition under which a due attempt may be sent: the one place that says so."""
    return and_(Attempt.status == AttemptStatus.DUE, Attempt.ready_at <= now, _may_charge(now))


def _may_charge(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """What its month and its subscription must be for that."""
    return _compared(
        Cycle.status == CycleStatus.OPEN,
        Cycle.held.is_(None),
        Cycle.band_opens_at <= now,
        Cycle.last_start_at >= now,
        Subscription.status == SubscriptionStatus.ACTIVE,
    )


def _compared(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """All of these as one condition that no index can lead into: it is compared with rows that are
    found by their keys. The planner, where it has statistics of one of the tables only (after a
    crash, say), else believes few months to be open, and goes through all of those for each row."""
    return case((and_(*conditions), true()), else_=false())


def _with_cycle(query: Select[int]) -> Select[int]:
    return query.join(Cycle, Cycle.id == Attempt.cycle_id).join(
        Subscription, Subscription.id == Cycle.subscription_id
    )


def one_dispatcher(session: Session) -> None:
    """Wait until no other transaction hands out. Two at once would both count what is outstanding
    before the other has handed out; and one that reads while the other commits would lock rows that
    it then leaves to the other: claims pass over what is locked, and it would count as lost."""
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_DISPATCHER})


def hand_out(session: Session, now: datetime, again_after: timedelta, limit: int) -> list[int]:
    """Mark up to `limit` due attempts as dispatched, earliest window close first.

    One that was dispatched longer than `again_after` ago and never claimed was lost: it goes again.
    """
    ids: list[int] = []
    for closes_at in _closings(session, now):
        ids += _due(session, closes_at, now, again_after, limit - len(ids))
        if len(ids) == limit:
            break
    if ids:
        session.execute(
            update(Attempt)
            .where(Attempt.id == _any(ids))
            .values(dispatched_at=now)
            .execution_options(synchronize_session=False)
        )
    return ids


def _closings(session: Session, now: datetime) -> Sequence[datetime]:
    """When the windows of due attempts close, in order: midnights, and so a dozen at most, each
    found by a step in the index."""
    return session.execute(_CLOSINGS, {"now": now}).scalars().all()


def _due(
    session: Session, closes_at: datetime, now: datetime, again_after: timedelta, limit: int
) -> Sequence[int]:
    """Of one closing alone, the index leads to those that are ready, past all that are not yet."""
    due = (
        _with_cycle(select(Attempt.id))
        .where(
            Attempt.closes_at == closes_at,
            _chargeable(now),
            or_(
                Attempt.dispatched_at.is_(None),
                Attempt.dispatched_at < now - again_after,
                Attempt.dispatched_at > now + again_after,
            ),
        )
        .order_by(Attempt.ready_at, Attempt.id)
        .limit(limit)
        .with_for_update(of=Attempt, skip_locked=True)
    )
    return session.execute(due).scalars().all()


_CLOSINGS = text(
    """
    WITH RECURSIVE closing (at) AS (
        SELECT min(closes_at) FROM attempts WHERE status = 'due' AND closes_at > :now
        UNION ALL
        SELECT (
            SELECT min(closes_at) FROM attempts
            WHERE status = 'due' AND closes_at > closing.at
        )
        FROM closing WHERE closing.at IS NOT NULL
    )
    SELECT at FROM closing WHERE at IS NOT NULL
    """
)


def take_back(session: Session, attempt_ids: Sequence[int]) -> None:
    """Undo a hand-out that nobody will act on, so that the next dispatch finds it at once."""
    session.execute(
        update(Attempt)
        .where(Attempt.id == _any(attempt_ids), Attempt.status == AttemptStatus.DUE)
        .values(dispatched_at=None)
        .execution_options(synchronize_session=False)
    )


def claim(
    session: Session,
    attempt_ids: Sequence[int],
    now: datetime,
    lease_until: datetime,
    places: Callable[[int], int] = lambda wanted: wanted,
) -> Sequence[Claim]:
    """`due → sending` for those of the ids that may be charged now; the others are left alone.

    Each won claim carries a fencing number higher than any before it. What another worker holds is
    skipped, never waited for. `places` says how many of so many may go; it is asked when these are
    locked and known, so that what all workers share is locked last. The rest goes back.
    """
    found = session.execute(_FREE, {"now": now, "ids": list(attempt_ids)}).all()
    count = places(len(found)) if found else 0
    if rest := [row.id for row in found[count:]]:
        take_back(session, rest)
    won = found[:count]
    if not won:
        return ()
    taken = {"ids": [row.id for row in won], "moment": now, "until": lease_until}
    session.execute(_TAKE, taken)
    return _claims(session, won, fence=1)


def _any(ids: Sequence[int]) -> ColumnElement[Any]:
    """For `column == _any(ids)`: one statement, prepared once, whatever the number of ids."""
    return any_(cast(list(ids), ARRAY(BigInteger)))


# Columns, not mapped rows, and statements that are built once: this is done for every charge.
_ONE_OF_THESE = Attempt.id == any_(bindparam("ids", type_=ARRAY(BigInteger)))
_CLAIMED = (
    select(
        Attempt.id,
        Attempt.fence,
        Attempt.number,
        Attempt.merchant_uid,
        Attempt.cycle_id,
        Cycle.month,
        Cycle.last_start_at,
        Cycle.subscription_id,
        Subscription.customer_uid,
        Subscription.amount,
        Subscription.order_name,
        Subscription.initial_paid_at,
        Subscription.anchor_on,
        Subscription.seal,
        BuyerData.name,
        BuyerData.email,
        BuyerData.tel,
    )
    .join(Cycle, Cycle.id == Attempt.cycle_id)
    .join(Subscription, Subscription.id == Cycle.subscription_id)
    .outerjoin(BuyerData, BuyerData.subscription_id == Subscription.id)
    .where(_ONE_OF_THESE)
    .order_by(Attempt.closes_at, Attempt.id)
)


_FREE = _CLAIMED.where(_compared(_chargeable(bindparam("now")))).with_for_update(
    of=Attempt, skip_locked=True
)
_ASKABLE = _CLAIMED.where(Attempt.status == AttemptStatus.UNKNOWN)
_TAKE = (
    update(Attempt)
    .where(_ONE_OF_THESE, Attempt.status == AttemptStatus.DUE)
    .values(
        status=AttemptStatus.SENDING,
        fence=Attempt.fence + 1,
        sent_at=bindparam("moment"),
        lease_until=bindparam("until"),
        refusal=None,
        nothing_found=0,
        provable_at=None,
        ask_at=None,
    )
    .execution_options(synchronize_session=False)
)


def _claims(
    session: Session, rows: Sequence[Row[*tuple[Any, ...]]], *, fence: int = 0
) -> Sequence[Claim]:
    """`fence`: by how much the rows' fencing numbers have risen since they were read."""
    # A first attempt has no brothers: most of them are that.
    retried = [row.cycle_id for row in rows if row.number > 1]
    siblings = merchant_uids_of(session, retried) if retried else {}
    return [_as_claim(row, row.fence + fence, siblings.get(row.cycle_id, ())) for row in rows]


def merchant_uids_of(session: Session, cycle_ids: Sequence[int]) -> dict[int, list[str]]:
    """Every `merchant_uid` ever made for these cycles."""
    found: dict[int, list[str]] = {cycle_id: [] for cycle_id in cycle_ids}
    query = (
        select(Attempt.cycle_id, Attempt.merchant_uid)
        .where(Attempt.cycle_id.in_(cycle_ids))
        .order_by(Attempt.number)
    )
    for cycle_id, merchant_uid in session.execute(query):
        found[cycle_id].append(merchant_uid)
    return found


def facts_of(subscription: Subscription, buyer: BuyerData | None) -> Facts:
    """The facts as the book holds them now; the seal tells whether they are still the first."""
    return Facts(
        customer_uid=subscription.customer_uid,
        amount=Won(subscription.amount),
        order_name=subscription.order_name,
        initial_paid_at=subscription.initial_paid_at,
        buyer_name=buyer.name if buyer else None,
        buyer_email=buyer.email if buyer else None,
        buyer_tel=buyer.tel if buyer else None,
    )


def _as_claim(row: Row[*tuple[Any, ...]], fence: int, siblings: Sequence[str]) -> Claim:
    facts = Facts(
        customer_uid=row.customer_uid,
        amount=Won(row.amount),
        order_name=row.order_name,
        initial_paid_at=row.initial_paid_at,
        buyer_name=row.name,
        buyer_email=row.email,
        buyer_tel=row.tel,
    )
    return Claim(
        attempt_id=row.id,
        fence=fence,
        cycle_id=row.cycle_id,
        subscription_id=row.subscription_id,
        number=row.number,
        month=row.month,
        last_start_at=row.last_start_at,
        resent=fence > 1,
        earlier=tuple(uid for uid in siblings if uid != row.merchant_uid),
        request=ChargeRequest(
            customer_uid=facts.customer_uid,
            merchant_uid=row.merchant_uid,
            amount=facts.amount,
            order_name=facts.order_name,
            buyer=Buyer(facts.buyer_name, facts.buyer_email, facts.buyer_tel),
        ),
        facts=facts,
        anchor_on=row.anchor_on,
        seal=row.seal,
    )


def expired(session: Session, now: datetime, limit: int) -> Sequence[tuple[Attempt, int]]:
    """Attempts in `sending` whose lease has run out, each with its subscription's id: their worker
    is gone, or too slow."""
    rows = session.execute(
        select(Attempt, Cycle.subscription_id)
        .join(Cycle, Cycle.id == Attempt.cycle_id)
        .where(Attempt.status == AttemptStatus.SENDING, Attempt.lease_until < now)
        .order_by(Attempt.lease_until)
        .limit(limit)
        .with_for_update(of=Attempt, skip_locked=True)
    )
    found = [(attempt, subscription_id) for attempt, subscription_id in rows]
    return sorted(found, key=lambda one: (one[0].lease_until, one[0].id))


def take_to_ask(session: Session, now: datetime, again_at: datetime, limit: int) -> Sequence[int]:
    """Unknown attempts that should be asked about now; each is put off until `again_at`."""
    asking = (
        select(Attempt.ask_at, Attempt.id)
        .where(Attempt.status == AttemptStatus.UNKNOWN, is_time(Attempt.ask_at, now))
        .order_by(Attempt.ask_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = [one for _, one in sorted((row.ask_at, row.id) for row in session.execute(asking))]
    if ids:
        session.execute(update(Attempt).where(Attempt.id.in_(ids)).values(ask_at=again_at))
    return ids


def open_questions(session: Session, attempt_ids: Sequence[int]) -> Sequence[Claim]:
    """The unknown ones among these attempts, with all that is needed to ask about them."""
    return _claims(session, session.execute(_ASKABLE, {"ids": list(attempt_ids)}).all())


def lock_with_cycle(
    session: Session, attempt_ids: Sequence[int]
) -> dict[int, tuple[Attempt, Cycle, Subscription]]:
    """The rows an outcome changes, locked in one order: customer by customer, of each the
    subscription before its month and the month before its attempt, as all do who change more than
    an attempt. Whoever comes second waits, and holds nothing of the customer meanwhile."""
    rows = session.execute(
        select(Attempt, Cycle, Subscription)
        .join(Cycle, Cycle.id == Attempt.cycle_id)
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .where(Attempt.id.in_(attempt_ids))
        .order_by(Subscription.id)
        .with_for_update(of=[Subscription, Cycle, Attempt])
        .execution_options(populate_existing=True)
    ).all()
    return {row.Attempt.id: (row.Attempt, row.Cycle, row.Subscription) for row in rows}


def of_cycles(session: Session, cycle_ids: Sequence[int]) -> dict[int, list[Attempt]]:
    """Every attempt of each of these cycles, in order."""
    found: dict[int, list[Attempt]] = {cycle_id: [] for cycle_id in cycle_ids}
    query = select(Attempt).where(Attempt.cycle_id.in_(cycle_ids)).order_by(Attempt.number)
    for attempt in session.execute(query).scalars():
        found[attempt.cycle_id].append(attempt)
    return found


def in_flight(session: Session, subscription_id: int) -> bool:
    """Whether a request of any month of a subscription may still be on its way, or go again."""
    return _any_in_flight(session, subscription_id, true())


def unanswered(session: Session, subscription_id: int, asked_at: datetime) -> bool:
    """The same, but for a month that is held since the gateway told of its request otherwise than
    the book, where a look made at `asked_at` shows all that will ever come of it: then it may be
    the book that is wrong."""
    answered = (
        (Attempt.status == AttemptStatus.UNKNOWN)
        & (Attempt.provable_at <= asked_at)
        & Cycle.held.in_(CONTRADICTED)
    )
    return _any_in_flight(session, subscription_id, answered.is_not(True))


def _any_in_flight(session: Session, subscription_id: int, which: ColumnElement[bool]) -> bool:
    query = (
        select(Attempt.id)
        .join(Cycle, Cycle.id == Attempt.cycle_id)
        .where(
            Cycle.subscription_id == subscription_id,
            Attempt.status.in_([AttemptStatus.SENDING, AttemptStatus.UNKNOWN]),
            which,
        )
        .limit(1)
    )
    return session.execute(query).first() is not None


def newest_of(session: Session, cycle_id: int) -> int | None:
    """The live attempt of a cycle, or else its last one."""
    query = (
        select(Attempt.id)
        .where(Attempt.cycle_id == cycle_id)
        .order_by(Attempt.status.in_(LIVE).desc(), Attempt.number.desc())
        .limit(1)
    )
    return session.execute(query).scalar_one_or_none()


def declined_sent_at(session: Session, cycle_ids: Sequence[int]) -> dict[int, list[datetime]]:
    """When each declined attempt of each of these cycles was sent."""
    found: dict[int, list[datetime]] = {cycle_id: [] for cycle_id in cycle_ids}
    query = select(Attempt.cycle_id, Attempt.sent_at).where(
        Attempt.cycle_id == _any(cycle_ids), Attempt.status == AttemptStatus.DECLINED
    )
    for cycle_id, sent_at in session.execute(query):
        if sent_at is not None:
            found[cycle_id].append(sent_at)
    return found
