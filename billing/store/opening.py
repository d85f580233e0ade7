"""Months that begin, many at once: their cycles, first attempts, and whoever they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import or_, select, text, tuple_
from sqlalchemy.orm import Session

from billing.domain.attempt import MERCHANT_UID
from billing.store.tables import Cycle, Subscription


@dataclass(frozen=True, slots=True)
class Opening:
    """One month: its subscription, unknown to the session, which points at its next month already,
    and the values of the new rows."""

    subscription: Subscription
    cycle: Mapping[str, Any]
    attempt: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Opened:
    cycle_id: int
    attempt_id: int


@dataclass(frozen=True, slots=True)
class Written:
    """What became of some months, by the ids of their subscriptions: opened, or in the book
    already. Of any other the attempt's name is another's, or none: that one was left as it is."""

    opened: Mapping[int, Opened]
    there: Set[int]


_CYCLE = (
    "subscription_id",
    "number",
    "month",
    "amount",
    "due_on",
    "opens_on",
    "closes_on",
    "band_opens_at",
    "last_start_at",
    "closes_at",
    "status",
    "opened_at",
)
# In the order of the rows, so that numbers rise with the order in which attempts are due. None
# whose attempt the gateway, or the book, could not tell from another one.
_OPEN = text(
    f"""
    INSERT INTO cycles ({", ".join(_CYCLE)})
    SELECT {", ".join(_CYCLE)} FROM (
        SELECT *, count(*) OVER (PARTITION BY merchant_uid) AS so_named
        FROM ROWS FROM (jsonb_to_recordset(:rows) AS (
            subscription_id bigint, number bigint, month date, amount bigint, due_on date,
            opens_on date, closes_on date, band_opens_at timestamptz, last_start_at timestamptz,
            closes_at timestamptz, status text, opened_at timestamptz, merchant_uid text))
            WITH ORDINALITY AS row
    ) named
    WHERE so_named = 1 AND merchant_uid ~ '{MERCHANT_UID}'
        AND NOT EXISTS (SELECT FROM attempts a WHERE a.merchant_uid = named.merchant_uid)
    ORDER BY ordinality
    ON CONFLICT DO NOTHING
    RETURNING subscription_id, id
    """  # noqa: S608 - names of columns
)
_TRY = text(
    """
    INSERT INTO attempts (cycle_id, number, merchant_uid, status, closes_at, planned_at, ready_at)
    SELECT cycle_id, number, merchant_uid, status, closes_at, planned_at, ready_at
    FROM ROWS FROM (jsonb_to_recordset(:rows) AS (cycle_id bigint, number bigint, merchant_uid text,
        status text, closes_at timestamptz, planned_at timestamptz, ready_at timestamptz))
        WITH ORDINALITY AS row
    ORDER BY ordinality
    RETURNING cycle_id, id
    """
)
# Values by their place in an array, not by a join: see `settled`.
_MOVE_ON = text(
    """
    UPDATE subscriptions SET
        next_cycle = (CAST(:numbers AS bigint[]))[array_position(:ids, id)],
        next_due_at = (CAST(:due AS timestamptz[]))[array_position(:ids, id)],
        next_closes_at = (CAST(:closing AS timestamptz[]))[array_position(:ids, id)]
    WHERE id = ANY(:ids)
    """
)


def write(session: Session, openings: Sequence[Opening]) -> Written:
    """Write all of it, by one statement for each table. A month that the book has already is not
    written again, and not tried: such a subscription is only moved on."""
    cycles = [{**one.cycle, "merchant_uid": one.attempt["merchant_uid"]} for one in openings]
    cycle_ids = {of: made for of, made in session.execute(_OPEN, {"rows": _json(cycles)})}
    attempts = [
        {"cycle_id": cycle_ids[one.subscription.id], **one.attempt}
        for one in openings
        if one.subscription.id in cycle_ids
    ]
    attempt_ids = {of: made for of, made in session.execute(_TRY, {"rows": _json(attempts)})}
    missing = [
        (one.subscription.id, one.cycle["number"], one.cycle["month"])
        for one in openings
        if one.subscription.id not in cycle_ids
    ]
    there = there_already(session, missing) if missing else frozenset()
    moved = cycle_ids.keys() | there
    subscriptions = [one.subscription for one in openings if one.subscription.id in moved]
    session.execute(
        _MOVE_ON,
        {
            "ids": [one.id for one in subscriptions],
            "numbers": [one.next_cycle for one in subscriptions],
            "due": [one.next_due_at for one in subscriptions],
            "closing": [one.next_closes_at for one in subscriptions],
        },
    )
    opened = {of: Opened(cycle_id, attempt_ids[cycle_id]) for of, cycle_id in cycle_ids.items()}
    return Written(opened, there)


def there_already(session: Session, months: Sequence[tuple[int, int, date]]) -> Set[int]:
    """Of which of these subscriptions the book has the month already, by its number or its date."""
    numbers = [(whose, number) for whose, number, _ in months]
    dates = [(whose, month) for whose, _, month in months]
    query = select(Cycle.subscription_id).where(
        or_(
            tuple_(Cycle.subscription_id, Cycle.number).in_(numbers),
            tuple_(Cycle.subscription_id, Cycle.month).in_(dates),
        )
    )
    return set(session.execute(query).scalars())


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(rows, default=_text)


def _text(value: date) -> str:
    # Its own `isoformat`: that of `date` would leave out the time of a datetime.
    return value.isoformat()
