"""What all senders share about the merchant's system: one round at a time, and whether it answers.

A receiver that is down must not be asked about each of a hundred thousand waiting notices: once
several tries in a row had no answer, each round asks with a few only, until there is one.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.domain.delivery import LONGEST_RETRY_AFTER
from billing.store.tables import Receiver

# So many tries in a row without an answer, and it counts as down.
UNANSWERED_TO_STOP = 5
# While it is down, a round asks with so many: more than one, since one notice may have a fault of
# its own.
PROBES = 5
# A receiver that was restarted is back by then; one that was not needs a person.
TOLD_AFTER = timedelta(hours=1)
# Further deaths are told again after a day at the earliest, and only when something came through.
TOLD_AGAIN_AFTER = timedelta(days=1)


def read(session: Session) -> Receiver:
    return session.execute(select(Receiver)).scalar_one()


def _locked(session: Session) -> Receiver:
    query = select(Receiver).with_for_update().execution_options(populate_existing=True)
    return session.execute(query).scalar_one()


def room(
    session: Session, now: datetime, lease: timedelta, width: int, mine: datetime | None
) -> int:
    """Take or keep the round until `now + lease`, and say how many may be sent now: 0 while another
    sender has the round, or the receiver asked for patience. `mine` is until when it is ours."""
    row = _locked(session)
    taken = row.round_until is not None and now < row.round_until <= now + lease
    if taken and row.round_until != mine:
        return 0
    if row.pause_until is not None and now < row.pause_until <= now + LONGEST_RETRY_AFTER:
        return 0
    row.round_until = now + lease
    return min(width, PROBES) if is_down(row) else width


def leave(session: Session, mine: datetime) -> None:
    """The round is over, if it is still ours."""
    row = _locked(session)
    if row.round_until == mine:
        row.round_until = None


def note(
    session: Session,
    now: datetime,
    *,
    answered: int,
    unanswered: int,
    delivered: int,
    problem: str | None,
    pause: timedelta | None,
) -> timedelta | None:
    """Keep what a batch of tries says about the receiver. Any answer ends an outage.

    Returns for how long it has been down when that is to be told now, else None."""
    row = _locked(session)
    row.tried_at, row.problem = now, problem
    if delivered:
        row.delivered_at = now
    if answered:
        row.unanswered, row.unanswered_since, row.pause_until = 0, None, None
        row.down_told_at = None
    elif unanswered:
        row.unanswered += unanswered
        # By a clock that was ahead it would have lasted less than no time.
        row.unanswered_since = min(row.unanswered_since or now, now)
    if pause is not None:
        row.pause_until = now + min(pause, LONGEST_RETRY_AFTER)
    return _outage_to_tell(row, now)


def _outage_to_tell(row: Receiver, now: datetime) -> timedelta | None:
    if row.unanswered_since is None or row.down_told_at is not None or not is_down(row):
        return None
    lasted = now - row.unanswered_since
    if lasted < TOLD_AFTER:
        return None
    row.down_told_at = now
    return lasted


def deaths_are_news(session: Session, now: datetime) -> bool:
    """Whether notices that died just now deserve an alarm: one for an outage, however long, and
    not more than one a day. Remembers that it was told."""
    row = _locked(session)
    told = row.dead_told_at
    if told is not None and told <= now:
        came_through = row.delivered_at is not None and row.delivered_at > told
        if not came_through or now - told < TOLD_AGAIN_AFTER:
            return False
    row.dead_told_at = now
    return True


def is_down(row: Receiver) -> bool:
    return row.unanswered >= UNANSWERED_TO_STOP
