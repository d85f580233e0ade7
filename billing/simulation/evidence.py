"""Reads what a run left behind, in the judges' words: our book, the gateway's ledger, the wire."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from billing.sandbox.model import Origin
from billing.simulation import event_judge, ledger_judge
from billing.simulation.event_judge import Ends, Told
from billing.simulation.ledger_judge import KOREA, Asked, Looked, Month, Paid
from billing.simulation.refund_judge import LookedBack, Request
from billing.simulation.wire import Named
from billing.simulation.world import World
from billing.store.subscriptions import take_time

_EVENTS = text(
    """
    SELECT e.id, e.at, e.kind, coalesce(s.customer_uid, t.customer_uid, '') AS customer, c.month,
        e.attempt_id, coalesce(a.merchant_uid, '') AS order_id, e.data, e.alarm
    FROM events e
    LEFT JOIN cycles c ON c.id = e.cycle_id
    LEFT JOIN subscriptions s ON s.id = e.subscription_id
    LEFT JOIN subscriptions t ON t.id = c.subscription_id
    LEFT JOIN attempts a ON a.id = e.attempt_id
    ORDER BY e.id
    """
)
_MONTHS = text(
    """
    SELECT s.customer_uid, c.month, c.status, coalesce(c.reason, '') AS reason, c.amount,
        c.settled_at,
        coalesce(c.paid_merchant_uid, '') AS paid_by, coalesce(c.paid_imp_uid, '') AS paid_id,
        c.settled_at >= c.closes_at + interval '46 hours' AS waited,
        array(SELECT merchant_uid::text FROM attempts a WHERE a.cycle_id = c.id
            AND a.status = 'declined' ORDER BY number) AS declined,
        array(SELECT merchant_uid::text FROM attempts a WHERE a.cycle_id = c.id ORDER BY number)
            AS orders
    FROM cycles c JOIN subscriptions s ON s.id = c.subscription_id ORDER BY c.id
    """
)
_ATTEMPTS = text(
    """
    SELECT a.id, s.customer_uid, a.status, a.number, a.sent_at, a.planned_at, a.merchant_uid,
        c.month, c.closes_at, c.status AS ended, c.reason
    FROM attempts a JOIN cycles c ON c.id = a.cycle_id
    JOIN subscriptions s ON s.id = c.subscription_id ORDER BY a.id
    """
)
_SUBSCRIPTIONS = text(
    """
    SELECT s.customer_uid, s.status, s.anchor_on,
        (SELECT min((e.data ->> 'first_cycle')::int) FROM events e
            WHERE e.subscription_id = s.id AND e.kind = 'subscription.enrolled') AS first_cycle
    FROM subscriptions s ORDER BY s.id
    """
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that a verdict rests on."""

    told: Sequence[Told]
    months: Sequence[Month]
    ends: Ends
    anchors: Mapping[str, date]
    paid: Sequence[Paid]
    asked: Sequence[Asked]
    looked: Sequence[Looked]
    back: LookedBack
    attempts: Sequence[Mapping[str, Any]]
    digest: str


@dataclass(frozen=True, slots=True)
class History:
    """What a book had been through when the run began: the run's gateway never saw it, and of an
    old book the lines that tell of it may be archived."""

    months: frozenset[tuple[str, date]]
    """Customers and months that had ended."""
    declined: frozenset[str]
    """The orders that it called declined."""


def history(engine: Engine) -> History:
    """Read before anything happens."""
    with Session(engine) as session:
        take_time(session)
        months = session.execute(_MONTHS).all()
    return History(
        frozenset((row.customer_uid, row.month) for row in months if row.settled_at is not None),
        frozenset(order for row in months for order in row.declined),
    )


def gather(engine: Engine, world: World, before: History) -> Evidence:
    """Read it all. Nothing is asked of months that had ended before."""
    old = before.months
    with Session(engine) as session:
        take_time(session)
        lines = session.execute(_EVENTS).all()
        months = session.execute(_MONTHS).all()
        attempts = [dict(row) for row in session.execute(_ATTEMPTS).mappings()]
        people = session.execute(_SUBSCRIPTIONS).all()
    excused, kept_back = _excused(world), _kept_back(lines)
    held, unknown = _months_of(lines, "cycle.held"), _months_of(lines, "attempt.unknown")
    forgot = [(since, until + event_judge.IN_FLIGHT) for since, until in world.forgot]
    requests = world.sandbox.ledger.requests
    asked = [_asked(one, excused, forgot) for one in requests if _is_charge(one)]
    last = {(one.customer, ledger_judge.month_of(one.at)): one.at for one in asked}
    begun_at = world.begun_at.timestamp()
    paid = [_paid(one, last, begun_at) for one in world.sandbox.ledger.payments if one.paid_at]
    return Evidence(
        told=[
            Told(row.at, row.kind, row.customer, row.month, row.attempt_id, row.order_id, row.data)
            for row in lines
            if (row.customer, row.month) not in old
        ],
        months=[
            Month(
                customer=row.customer_uid,
                first=row.month,
                status=row.status,
                reason=row.reason,
                held=(row.customer_uid, row.month) in held
                or (row.settled_at is not None and kept_back(row.settled_at)),
                order=row.paid_by,
                imp_uid=row.paid_id,
                amount=row.amount,
                orders=row.orders,
                unproven=bool(row.waited) and (row.customer_uid, row.month) in unknown,
                declined=[one for one in row.declined if one not in before.declined],
                declined_before=[one for one in row.declined if one in before.declined],
            )
            for row in months
            if (row.customer_uid, row.month) not in old
        ],
        ends=Ends(
            attempts={
                row["id"]: (row["customer_uid"], row["status"])
                for row in attempts
                if (row["customer_uid"], row["month"]) not in old
            },
            months={(row.customer_uid, row.month): row.status for row in months},
            history=old,
            subscriptions={
                row.customer_uid: (
                    row.status,
                    row.anchor_on,
                    _after(row.anchor_on, row.first_cycle),
                )
                for row in people
            },
        ),
        anchors={
            key.customer_uid: datetime.fromtimestamp(key.issued_at, KOREA).date()
            for key in world.sandbox.ledger.keys.values()
        },
        paid=paid,
        asked=asked,
        looked=[
            Looked(
                datetime.fromtimestamp(one.at, UTC),
                one.merchant_uid,
                one.customer_uid if one.kind == "customer_payments" else "",
            )
            for one in requests
            if one.outcome in ("200", "404", "404:refused")
        ],
        back=_looked_back(world),
        attempts=attempts,
        digest=_digest(lines, world),
    )


def _months_of(lines: Sequence[Any], kind: str) -> set[tuple[str, date]]:
    """Customers and months of which the log tells this."""
    return {(line.customer, line.month) for line in lines if line.kind == kind}


def _kept_back(lines: Sequence[Any]) -> Callable[[datetime], bool]:
    """Whether, by the last that was told up to a moment, all charging was held."""
    told = [line for line in lines if line.kind in ("charging.held", "charging.released")]

    def at(moment: datetime) -> bool:
        last = next((line for line in reversed(told) if line.at <= moment), None)
        return last is not None and last.kind == "charging.held"

    return at


def _after(anchor: date, months: int) -> date:
    year, month0 = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return date(year, month0 + 1, 1)


def _excused(world: World) -> set[tuple[str, date]]:
    """Customers and months in which a process was frozen in the middle of sending."""
    found = set()
    for one in world.sent:
        if one.stopped_at_send:
            at = datetime.fromtimestamp(one.left_at, UTC)
            found.add((one.customer, ledger_judge.month_of(at)))
    return found


def _is_charge(seen: Any) -> bool:
    return bool(seen.kind == "again")


def _asked(
    seen: Any, excused: set[tuple[str, date]], forgot: Sequence[tuple[datetime, datetime]]
) -> Asked:
    at = datetime.fromtimestamp(seen.at, UTC)
    return Asked(
        at=at,
        customer=seen.customer_uid,
        order=seen.merchant_uid,
        differs=seen.differs,
        outcome=seen.outcome,
        fault=seen.fault,
        overlaps=bool(seen.overlaps),
        excused=(seen.customer_uid, ledger_judge.month_of(at)) in excused,
        forgotten=any(since <= at < until for since, until in forgot),
    )


def _paid(payment: Any, last_asked: Mapping[tuple[str, date], datetime], begun_at: float) -> Paid:
    turned = payment.turns_paid_at
    at = datetime.fromtimestamp(payment.paid_at, UTC)
    entered_at = datetime.fromtimestamp(turned or max(payment.visible_at, payment.paid_at), UTC)
    last = last_asked.get((payment.customer_uid, ledger_judge.month_of(at)))
    return Paid(
        customer=payment.customer_uid,
        order=payment.merchant_uid,
        amount=payment.amount,
        at=at,
        ours=payment.origin is Origin.AGAIN,
        entered_at=entered_at,
        imp_uid=payment.imp_uid,
        cancelled_at=datetime.fromtimestamp(payment.cancelled_at, UTC)
        if payment.cancelled_at
        else None,
        initial=payment.origin is Origin.WINDOW or payment.paid_at < begun_at,
        late=bool(turned) and (last is None or last < entered_at + timedelta(minutes=2)),
    )


def _looked_back(world: World) -> LookedBack:
    def of(seen: Sequence[Named]) -> list[Request]:
        return [Request(datetime.fromtimestamp(one.at, UTC), one.imp_uid) for one in seen]

    return LookedBack(
        asked_back=of(world.asked_back),
        looked_up=of(world.looked_up),
        # What one saw that the book has forgotten since, the next has to see.
        whole=[at for at in world.look_back.whole if all(at > until for _, until in world.forgot)],
        frozen=[line.at for line in world.lines if line.what == "stopped"],
    )


def _digest(lines: Sequence[Any], world: World) -> str:
    """One hash of everything that happened: the same seed must give the same."""
    hasher = hashlib.sha256()
    for line in lines:
        hasher.update(repr(tuple(line)).encode())
    for seen in world.sandbox.ledger.requests:
        hasher.update(repr((seen.customer_uid, seen)).encode())
    for payment in world.sandbox.ledger.payments:
        hasher.update(repr((payment.customer_uid, payment)).encode())
    hasher.update(f"{world.loop.time()} {world.loop.steps}".encode())
    return hasher.hexdigest()


def limits_of(
    world: World,
    *,
    steady: bool,
    slack: timedelta,
    ended_at: datetime,
    set_back: Iterable[tuple[datetime, datetime]],
) -> event_judge.Limits:
    """What the event lines are measured by."""
    policy = world.policy
    return event_judge.Limits(
        lease=policy.lease,
        settle=policy.settle,
        visibility=policy.visibility,
        steady=steady,
        slack=slack,
        ended_at=ended_at,
        set_back=list(set_back),
    )
