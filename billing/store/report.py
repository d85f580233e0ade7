"""A month for people who keep books: grouped by the database, however large the book is.

A cycle is opened in its own month, so a month's cycles have numbers side by side: what is asked
about their attempts reads that range of one index, not the years before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Date, cast, func, select, text, true
from sqlalchemy.orm import Session

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleStatus
from billing.domain.money import Sum
from billing.domain.month_figures import Alike, Unknowns
from billing.domain.refund import RefundStatus
from billing.store.tables import LedgerDifference, Refund, Subscription

# How long a first payment may take from the window into the book: as long as an order of the
# checkout page is good for.
_ON_ITS_WAY = timedelta(days=1)
_RANGE = text("SELECT min(id), max(id) FROM cycles WHERE month = :month")
_OUTCOMES = text(
    """
    WITH refused AS MATERIALIZED (
        SELECT DISTINCT ON (cycle_id) cycle_id, decline_class FROM attempts
        WHERE cycle_id BETWEEN :first AND :last AND status = 'declined'
        ORDER BY cycle_id, number DESC
    )
    SELECT c.status, c.reason, c.held IS NOT NULL AS held, r.decline_class,
        count(*) AS cycles, sum(c.amount) AS won
    FROM cycles c LEFT JOIN refused r ON r.cycle_id = c.id
    WHERE c.month = :month
    GROUP BY 1, 2, 3, 4
    """
)
# `asked` counts questions; an answer to the first leaves it at 0, but not `provable_at`.
_UNKNOWNS = text(
    """
    SELECT a.status, count(*) FROM attempts a JOIN cycles c ON c.id = a.cycle_id
    WHERE a.cycle_id BETWEEN :first AND :last AND (a.asked > 0 OR a.provable_at IS NOT NULL)
        AND c.month = :month
    GROUP BY a.status
    """
)
_REFUSALS = text(
    """
    SELECT decline_class, coalesce(message, ''), count(*) FROM attempts
    WHERE status = 'declined' AND settled_at >= :begins AND settled_at < :ends
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
    LIMIT :most
    """
)
# When each ended subscription ended: the first such line since it was last mended. To know that it
# was not mended, all its lines are read: only of those whose newest line of any kind is not older
# than the span. (A day is more than two lines can be out of order.)
_LOST = text(
    """
    SELECT e.kind, e.data ->> 'reason' AS reason, count(*), sum(s.amount)
    FROM subscriptions s CROSS JOIN LATERAL (
        SELECT at, kind, data FROM events
        WHERE subscription_id = s.id
            AND kind IN ('subscription.suspended', 'subscription.cancelled')
            AND id > coalesce((
                SELECT max(id) FROM events
                WHERE subscription_id = s.id AND kind = 'subscription.mended'
            ), 0)
        ORDER BY id LIMIT 1
    ) e
    WHERE s.status IN ('suspended', 'cancelled') AND e.at >= :begins AND e.at < :ends
        AND (SELECT at FROM events WHERE subscription_id = s.id ORDER BY id DESC LIMIT 1)
            >= CAST(:begins AS timestamptz) - interval '1 day'
    GROUP BY 1, 2
    """
)
_CHARGES = text(
    """
    SELECT c.id, c.paid_at, s.customer_uid, c.paid_merchant_uid, c.paid_imp_uid, c.amount,
        c.number, c.status, c.reason,
        (SELECT count(*) FROM attempts a
            WHERE a.cycle_id = c.id AND a.status IN ('approved', 'declined')) AS attempts
    FROM cycles c JOIN subscriptions s ON s.id = c.subscription_id
    WHERE c.paid_at >= :after AND c.paid_at < :ends AND (c.paid_at, c.id) > (:after, :id)
    ORDER BY c.paid_at, c.id
    LIMIT :size
    """
)


@dataclass(frozen=True, slots=True)
class Ids:
    """Between which numbers the cycles of a month lie; nothing lies between 1 and 0."""

    first: int = 1
    last: int = 0


@dataclass(frozen=True, slots=True)
class GivenBack:
    """What was given back on one day: of the payments of cycles, and of others (second payments,
    payments for a month that another one pays)."""

    on: date
    of_cycles: Sum
    besides: Sum


@dataclass(frozen=True, slots=True)
class Refusal:
    """One text of the carrier, and how often it was the answer."""

    decline_class: str
    message: str
    count: int


@dataclass(frozen=True, slots=True)
class Gained:
    """Subscriptions that were enrolled in a month; each `Sum` is what they pay each month."""

    in_all: Sum
    # Who began anew, with another billing key, where an earlier subscription had ended.
    anew: Sum
    # Whose first payment is of an earlier month: no new customers, but another system's until now.
    # Not who paid late on the month's last evening, and was enrolled after midnight.
    taken_over: Sum


@dataclass(frozen=True, slots=True)
class Lost:
    """Subscriptions that ended, by how; `sum` is what they paid each month."""

    kind: str
    reason: str | None
    sum: Sum


def ids(session: Session, month: date) -> Ids:
    first, last = session.execute(_RANGE, {"month": month}).one()
    return Ids() if first is None else Ids(first, last)


def outcomes(session: Session, month: date, within: Ids) -> list[Alike]:
    """The cycles of a month, grouped by how they stand."""
    rows = session.execute(_OUTCOMES, {"month": month, "first": within.first, "last": within.last})
    return [
        Alike(
            CycleStatus(row.status),
            row.reason,
            row.held,
            row.decline_class,
            Sum(row.cycles, int(row.won)),
        )
        for row in rows
    ]


def unknowns(session: Session, month: date, within: Ids) -> Unknowns:
    """The attempts of a month's cycles whose answer was lost, by what became of them."""
    rows = session.execute(_UNKNOWNS, {"month": month, "first": within.first, "last": within.last})
    return Unknowns({AttemptStatus(status): count for status, count in rows})


def refusals(session: Session, begins: datetime, ends: datetime, most: int) -> list[Refusal]:
    """The carrier's texts, the most frequent first, at most `most`."""
    rows = session.execute(_REFUSALS, {"begins": begins, "ends": ends, "most": most})
    return [Refusal(str(decline), message, count) for decline, message, count in rows]


def given_back(
    session: Session, begins: datetime, ends: datetime, zone: ZoneInfo
) -> list[GivenBack]:
    """Refunds by the day on which the gateway gave them back."""
    day = cast(func.timezone(zone.key, Refund.cancelled_at), Date)
    won = func.coalesce(func.sum(Refund.amount).filter(Refund.cycle_id.is_not(None)), 0)
    besides = func.coalesce(func.sum(Refund.amount).filter(Refund.cycle_id.is_(None)), 0)
    rows = session.execute(
        select(day, func.count(Refund.cycle_id), won, func.count(), besides)
        .where(
            Refund.status == RefundStatus.DONE,
            Refund.cancelled_at >= begins,
            Refund.cancelled_at < ends,
        )
        .group_by(day)
    )
    return [
        GivenBack(on, Sum(ours, int(back)), Sum(count - ours, int(other)))
        for on, ours, back, count, other in rows
    ]


def gained(session: Session, begins: datetime, ends: datetime) -> Gained:
    """Subscriptions that were enrolled, and two parts of them."""
    parts = (
        true(),
        Subscription.previous_id.is_not(None),
        (Subscription.initial_paid_at < begins)
        & (Subscription.initial_paid_at < Subscription.enrolled_at - _ON_ITS_WAY),
    )
    columns = [
        column
        for part in parts
        for column in (
            func.count().filter(part),
            func.coalesce(func.sum(Subscription.amount).filter(part), 0),
        )
    ]
    within = (Subscription.enrolled_at >= begins, Subscription.enrolled_at < ends)
    row = session.execute(select(*columns).where(*within)).one()
    in_all, anew, taken_over = (Sum(row[at], int(row[at + 1])) for at in (0, 2, 4))
    return Gained(in_all, anew, taken_over)


def lost(session: Session, begins: datetime, ends: datetime) -> list[Lost]:
    """Subscriptions that ended and stayed ended, the most won first."""
    rows = session.execute(_LOST, {"begins": begins, "ends": ends})
    found = [Lost(kind, reason, Sum(count, int(won))) for kind, reason, count, won in rows]
    return sorted(found, key=lambda one: (-one.sum.won, one.kind, one.reason or ""))


def open_differences(session: Session, begins: datetime, ends: datetime) -> dict[str, int]:
    """Differences about payments of a span that wait for a person, by kind."""
    rows = session.execute(
        select(LedgerDifference.kind, func.count())
        .where(
            LedgerDifference.resolved_at.is_(None),
            LedgerDifference.at >= begins,
            LedgerDifference.at < ends,
        )
        .group_by(LedgerDifference.kind)
        .order_by(LedgerDifference.kind)
    )
    return {kind: count for kind, count in rows}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of charges ends."""

    paid_at: datetime
    cycle_id: int


def charges(session: Session, after: Place, ends: datetime, size: int) -> Sequence[Any]:
    """Payments of cycles in the order in which they were made, `size` of them."""
    return session.execute(
        _CHARGES, {"after": after.paid_at, "id": after.cycle_id, "ends": ends, "size": size}
    ).all()
