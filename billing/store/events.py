"""The event log and the outbox, written in the same transaction as what they tell.

Lines are gathered and written by one statement at the end of the transaction (`write`, called by
the book), while the rows they tell of are still locked: their order is the order of what happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, text, union_all
from sqlalchemy.orm import Session

from billing.domain.delivery import TRIED_FOR
from billing.domain.notice import News
from billing.store.tables import Event, EventSeal

_WRITE_EVENTS = text(
    """
    INSERT INTO events (at, kind, subscription_id, cycle_id, attempt_id, data, alarm)
    SELECT at, kind, subscription_id, cycle_id, attempt_id, data, alarm
    FROM ROWS FROM (jsonb_to_recordset(:rows) AS (at timestamptz, kind text,
        subscription_id bigint, cycle_id bigint, attempt_id bigint, data jsonb, alarm boolean))
        WITH ORDINALITY AS line ORDER BY ordinality
    """
)
_WRITE_NOTICES = text(
    """
    INSERT INTO notices (subscription_id, kind, data, created_at, next_try_at, give_up_at)
    SELECT subscription_id, kind, data, at, at, give_up_at
    FROM ROWS FROM (jsonb_to_recordset(:rows) AS (at timestamptz, give_up_at timestamptz, kind text,
        subscription_id bigint, data jsonb)) WITH ORDINALITY AS line ORDER BY ordinality
    """
)
# By the index of alarms, which knows no moments: from the newest on, until none of so many is
# recent.
_ALARMS_AT_ONCE = 500
_NO_LINE = 2**63 - 1
_ALARMS = text(
    """
    SELECT jsonb_agg(data) FILTER (WHERE kind = :kind AND at BETWEEN :since AND :until),
        bool_or(at >= :since), count(*), min(id)
    FROM (SELECT id, kind, at, data FROM events WHERE alarm AND id < :before
        ORDER BY id DESC LIMIT :most) newest
    """
)
_WRITTEN_BY = {"events": _WRITE_EVENTS, "notices": _WRITE_NOTICES}


def add(
    session: Session,
    *,
    at: datetime,
    kind: str,
    subscription_id: int | None = None,
    cycle_id: int | None = None,
    attempt_id: int | Callable[[], int] | None = None,
    data: Mapping[str, Any] | None = None,
    alarm: bool = False,
) -> None:
    """Append one line. `data` holds ids, dates, amounts and the gateway's words; nobody's data.

    An attempt that is not written yet has no id: a function tells it once it is.
    """
    line = {
        "at": at.isoformat(),
        "kind": kind,
        "subscription_id": subscription_id,
        "cycle_id": cycle_id,
        "attempt_id": attempt_id,
        "data": dict(data or {}),
        "alarm": alarm,
    }
    session.info.setdefault("events", []).append(line)


def newest(session: Session) -> int:
    """The highest number that an event of the book has, or had before it was archived; 0 in an
    empty one."""
    highest = union_all(
        select(func.max(Event.id).label("id")), select(func.max(EventSeal.up_to_id))
    )
    newest: int | None = session.execute(select(func.max(highest.subquery().c.id))).scalar_one()
    return newest or 0


def alarm_unless_told(
    session: Session, *, at: datetime, kind: str, data: dict[str, Any], within: timedelta
) -> None:
    """An alarm about the whole installation; nothing where one of its kind is not older than
    `within`."""
    if not told_lately(session, kind, at, within):
        add(session, at=at, kind=kind, data=data, alarm=True)


def told_lately(session: Session, kind: str, now: datetime, within: timedelta) -> list[Any]:
    """The data of every alarm of a kind that is not older than `within`. Further ahead it was told
    by a clock that was, and would silence the next ones until that time comes again."""
    found: list[Any] = []
    before = _NO_LINE
    ends = {"since": now - within, "until": now + within}
    while True:
        told = {"kind": kind, **ends, "before": before, "most": _ALARMS_AT_ONCE}
        data, recent, lines, before = session.execute(_ALARMS, told).one()
        found += data or ()
        if not recent or lines < _ALARMS_AT_ONCE:
            return found


def was_told_of(
    session: Session, subscription_id: int, kind: str, now: datetime, within: timedelta
) -> bool:
    """Whether such an alarm (`told_lately`) tells of a subscription."""
    query = select(Event.id).where(
        Event.subscription_id == subscription_id,
        Event.kind == kind,
        Event.alarm,
        Event.at.between(now - within, now + within),
    )
    return session.execute(query.limit(1)).first() is not None


def was_held_for(session: Session, why: str) -> bool:
    """Whether all charging was ever stopped for this reason; from the newest alarm back."""
    query = select(Event.id).where(
        Event.alarm, Event.kind == "charging.held", Event.data["why"].astext == why
    )
    return session.execute(query.order_by(Event.id.desc()).limit(1)).first() is not None


_STATUS_CHANGES = (
    "subscription.paused",
    "subscription.resumed",
    "subscription.suspended",
    "subscription.cancelled",
)


def paused_then(session: Session, moments: Mapping[int, datetime]) -> frozenset[int]:
    """Which of these subscriptions were paused at a moment of each that has passed, by what was
    written then."""
    changes = (
        select(Event.subscription_id, Event.kind, Event.at)
        .where(Event.subscription_id.in_(moments), Event.kind.in_(_STATUS_CHANGES))
        .order_by(Event.id)
    )
    newest = {
        subscription_id: kind
        for subscription_id, kind, at in session.execute(changes)
        if subscription_id is not None and at <= moments[subscription_id]
    }
    return frozenset(one for one, kind in newest.items() if kind == "subscription.paused")


def notify(session: Session, *, at: datetime, subscription_id: int | None, news: News) -> None:
    """Put news for the merchant's own system into the outbox."""
    line = {
        "at": at.isoformat(),
        "give_up_at": (at + TRIED_FOR).isoformat(),
        "kind": news.kind,
        "subscription_id": subscription_id,
        "data": news.data(),
    }
    session.info.setdefault("notices", []).append(line)


def write(session: Session) -> None:
    """Write what was gathered in this transaction."""
    session.flush()
    for line in session.info.get("events", ()):
        if callable(line["attempt_id"]):
            line["attempt_id"] = line["attempt_id"]()
    for table, statement in _WRITTEN_BY.items():
        if lines := session.info.pop(table, None):
            session.execute(statement, {"rows": json.dumps(lines)})
