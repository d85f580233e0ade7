"""The differences that were told of: each once, until it is gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    String,
    all_,
    any_,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from billing.domain.reconciliation import Difference, DifferenceKind
from billing.store.tables import LedgerDifference

# Longer than any kind with any id of ours; a stranger's order number may be longer still.
KEY_LENGTH = 160


def note(session: Session, now: datetime, found: Difference) -> bool:
    """Keep a difference; True when it is news: never seen, or gone and back."""
    row = insert(LedgerDifference).values(
        key=found.key[:KEY_LENGTH],
        kind=found.kind,
        at=found.at,
        subscription_id=found.subscription_id,
        cycle_id=found.cycle_id,
        first_seen_at=now,
        last_seen_at=now,
    )
    made = session.execute(
        row.on_conflict_do_nothing(index_elements=["key"]).returning(LedgerDifference.id)
    ).first()
    if made is not None:
        return True
    known = session.execute(
        select(LedgerDifference)
        .where(LedgerDifference.key == found.key[:KEY_LENGTH])
        .with_for_update()
    ).scalar_one()
    back = known.resolved_at is not None
    known.last_seen_at, known.resolved_at = now, None
    return back


def resolve_unseen(
    session: Session, now: datetime, since: datetime, until: datetime, seen: Sequence[str]
) -> int:
    """End those of payments within a span that a whole run did not see again."""
    return _resolve(
        session,
        now,
        LedgerDifference.kind != DifferenceKind.SCHEDULED,
        LedgerDifference.at.between(since, until),
        LedgerDifference.key != all_(_array(seen, String)),
    )


def resolve_unscheduled(
    session: Session, now: datetime, asked: Sequence[int], seen: Sequence[str]
) -> int:
    """End those of schedules whose keys were asked about and have none any more."""
    return _resolve(
        session,
        now,
        LedgerDifference.kind == DifferenceKind.SCHEDULED,
        LedgerDifference.subscription_id == any_(_array(asked, BigInteger)),
        LedgerDifference.key != all_(_array(seen, String)),
    )


def _array(values: Sequence[Any], of: type[TypeEngine[Any]]) -> ColumnElement[Any]:
    """One parameter for all of them: a statement can have 65,535, and more keys are asked about."""
    return literal(list(values), ARRAY(of))


def _resolve(session: Session, now: datetime, *those: ColumnElement[bool]) -> int:
    ended = session.execute(
        update(LedgerDifference)
        .where(LedgerDifference.resolved_at.is_(None), *those)
        .values(resolved_at=now)
        .returning(LedgerDifference.id)
    )
    return len(ended.all())


def count_open(session: Session) -> int:
    """How many differences wait for a person."""
    query = select(func.count()).where(LedgerDifference.resolved_at.is_(None))
    return session.execute(query).scalar_one()
