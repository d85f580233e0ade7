"""Figures for whoever watches: what waits now, and what the event log has told since a line.

Every figure is read by a partial index over what is open, so its cost follows the work at hand and
not the size of the book.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

_NO_LINE = 2**63 - 1
# Upper ends, in seconds, of the classes of "from claim to record".
SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# A watcher that was away for long catches up in portions.
LINES_AT_ONCE = 100_000

_WAITING = text(
    """
    WITH held_cycles AS MATERIALIZED (
        SELECT id FROM cycles WHERE status = 'open' AND held IS NOT NULL LIMIT 10000
    )
    SELECT
        (SELECT count(*) FROM attempts WHERE status = 'due') AS due,
        -- What is held waits for a person, and not to go. So many at most, that they can be hashed.
        (SELECT count(*) FROM attempts WHERE status = 'due' AND ready_at <= :now
            AND cycle_id NOT IN (SELECT id FROM held_cycles)) AS ready,
        -- Since it was planned: one that goes back again and again is ready only since a moment.
        (SELECT min(planned_at) FROM attempts WHERE status = 'due' AND ready_at <= :now
            AND cycle_id NOT IN (SELECT id FROM held_cycles)) AS oldest_ready_at,
        (SELECT count(*) FROM attempts WHERE status IN ('due', 'sending')
            AND dispatched_at IS NOT NULL) AS outstanding,
        (SELECT count(*) FROM attempts WHERE status = 'sending') AS sending,
        (SELECT count(*) FROM attempts WHERE status = 'unknown') AS unknown,
        (SELECT count(*) FROM cycles WHERE status = 'open') AS open,
        (SELECT count(*) FROM cycles WHERE status = 'open' AND closes_at > :now
            AND closes_at <= :soon) AS closing_soon,
        (SELECT count(*) FROM cycles WHERE status = 'open' AND held IS NOT NULL) AS held,
        (SELECT min(next_due_at) FROM subscriptions WHERE status = 'active'
            AND next_due_at <= :now) AS oldest_unopened_at,
        (SELECT count(*) FROM ledger_differences WHERE resolved_at IS NULL) AS differences,
        (SELECT count(*) FROM refunds WHERE status IN ('requested', 'sending', 'unknown'))
            AS refunds,
        (SELECT count(*) FROM notices WHERE delivered_at IS NULL AND dead_at IS NULL) AS notices,
        (SELECT count(*) FROM notices WHERE dead_at IS NOT NULL) AS dead_notices,
        (SELECT count(*) FROM webhooks WHERE looked_at IS NULL) AS webhooks
    """
)
_TOLD = text(
    """
    SELECT e.kind, e.data ->> 'class' AS decline_class, e.alarm, count(*) AS lines,
        coalesce(sum(c.amount), 0) AS won
    FROM events e LEFT JOIN cycles c ON c.id = e.cycle_id AND e.kind = 'cycle.paid'
    WHERE e.id > :after AND e.id <= :up_to
    GROUP BY 1, 2, 3
    """
)
# By the index of alarms, from the newest on. That index knows no moments, and each alarm lies on a
# page of its own: read until nothing recent is among so many, not all that there ever were.
ALARMS_AT_ONCE = 500
MOST_ALARMS = 10_000
_ALARMS = text(
    """
    SELECT kind, count(*) FILTER (WHERE at > :since AND at <= :until) AS recent,
        bool_or(at > :since) AS late, count(*) AS lines, min(id) AS first
    FROM (SELECT id, kind, at FROM events WHERE alarm AND id < :before
        ORDER BY id DESC LIMIT :most) newest
    GROUP BY kind
    """
)
_DURATIONS = text(
    """
    SELECT width_bucket(extract(epoch FROM e.at - a.sent_at)::float8, CAST(:ends AS float8[]))
            AS class, count(*) AS attempts,
        sum(extract(epoch FROM e.at - a.sent_at)::float8) AS seconds
    FROM events e JOIN attempts a ON a.id = e.attempt_id
    WHERE e.id > :after AND e.id <= :up_to AND e.kind IN ('attempt.approved', 'attempt.declined')
        AND a.sent_at IS NOT NULL
    GROUP BY 1
    """
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is open at a moment; ages in seconds, 0 where nothing waits."""

    due: int
    ready: int
    oldest_ready_seconds: float
    outstanding: int
    sending: int
    unknown: int
    open: int
    closing_soon: int
    held: int
    oldest_unopened_seconds: float
    differences: int
    refunds: int
    notices: int
    dead_notices: int
    webhooks: int


@dataclass(frozen=True, slots=True)
class Told:
    """How many lines of one kind (and decline class) were written, and what was collected."""

    kind: str
    decline_class: str
    alarm: bool
    lines: int
    won: int


@dataclass(frozen=True, slots=True)
class Duration:
    """Attempts whose time from claim to record fell into one class of `SECONDS`."""

    number: int
    attempts: int
    seconds: float


def waiting(session: Session, now: datetime, closing_soon: timedelta) -> Waiting:
    """What waits at this moment."""
    row = dict(session.execute(_WAITING, {"now": now, "soon": now + closing_soon}).one()._mapping)
    for what in ("ready", "unopened"):
        since = row.pop(f"oldest_{what}_at")
        row[f"oldest_{what}_seconds"] = 0.0 if since is None else (now - since).total_seconds()
    return Waiting(**row)


def told(session: Session, after: int, up_to: int) -> Sequence[Told]:
    """What the lines after one number, up to another, tell of."""
    rows = session.execute(_TOLD, {"after": after, "up_to": up_to})
    return [
        Told(row.kind, row.decline_class or "", row.alarm, row.lines, int(row.won)) for row in rows
    ]


def alarms(session: Session, since: datetime, until: datetime) -> dict[str, int]:
    """How many alarms of each kind were written since a moment, of the newest `MOST_ALARMS`. What
    is later than `until` was told by a clock that was ahead, and would be recent until then."""
    found: Counter[str] = Counter()
    span = {"since": since, "until": until}
    before = _NO_LINE
    for _ in range(MOST_ALARMS // ALARMS_AT_ONCE):
        rows = session.execute(_ALARMS, {**span, "before": before, "most": ALARMS_AT_ONCE}).all()
        found.update({row.kind: row.recent for row in rows if row.recent})
        if sum(row.lines for row in rows) < ALARMS_AT_ONCE or not any(row.late for row in rows):
            break
        before = min(row.first for row in rows)
    return dict(found)


def durations(session: Session, after: int, up_to: int) -> Sequence[Duration]:
    """How long the attempts took that these lines settle."""
    rows = session.execute(_DURATIONS, {"after": after, "up_to": up_to, "ends": list(SECONDS)})
    return [Duration(row[0], row.attempts, max(0.0, row.seconds)) for row in rows]
