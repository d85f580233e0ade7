"""What all workers share about the gateway: the hold, the circuit, the rate ceiling, the skew.

One row each, in the database: there is no second place that could be away, flushed or disagree
(ADR 0006).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from billing.store.tables import GatewayHealth, Installation

# So many requests in a row without a usable answer open the circuit.
FAILURES_TO_OPEN = 5
# While it is open, one request is let through after each such pause.
PROBE_EVERY = timedelta(seconds=15)
# So many declines in a row that point at our own configuration stop all charging.
SUSPICIOUS_TO_HOLD = 3
# Faults.md: "a skew against the gateway's clock beyond a minute stops charging".
MAX_SKEW = timedelta(seconds=60)
SKEW_GOOD_FOR = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Permit:
    """How many charges may start, and how long after the transaction's moment the first."""

    count: int
    wait: timedelta


def hold_reason(session: Session) -> str | None:
    """Why all charging is stopped, or None."""
    return session.execute(select(Installation.hold_reason)).scalar_one()


def hold(session: Session, now: datetime, why: str) -> bool:
    """Stop all charging; False when it was stopped already."""
    held = session.execute(
        update(Installation)
        .where(Installation.hold_reason.is_(None))
        .values(hold_reason=why[:500], held_at=now)
        .returning(Installation.id)
    )
    return held.first() is not None


def release(session: Session) -> bool:
    """Start charging again; False when it was not stopped."""
    freed = session.execute(
        update(Installation)
        .where(Installation.hold_reason.is_not(None))
        .values(hold_reason=None, held_at=None)
        .returning(Installation.id)
    )
    session.execute(update(GatewayHealth).values(suspicious=0, failures=0, open_until=None))
    return freed.first() is not None


def read(session: Session) -> GatewayHealth:
    return session.execute(select(GatewayHealth)).scalar_one()


def is_up(health: GatewayHealth, now: datetime) -> bool:
    return health.failures < FAILURES_TO_OPEN


def room(session: Session, now: datetime, wanted: int) -> int:
    """How many attempts may be handed out now: all, one probe, or none."""
    if hold_reason(session) is not None:
        return 0
    health = read(session)
    if health.failures < FAILURES_TO_OPEN:
        return wanted
    return 0 if health.open_until is not None and health.open_until > now else min(wanted, 1)


def reserve(
    session: Session, now: datetime, wanted: int, rate: float, longest: timedelta
) -> Permit:
    """Take `wanted` places, or fewer, under the ceiling of `rate` charges a second for all workers.

    No place is given that lies more than `longest` ahead. Locks the shared row, so the transaction
    must be short.
    """
    health = session.execute(select(GatewayHealth).with_for_update()).scalar_one()
    if hold_reason(session) is not None or _skewed(health):
        return Permit(0, timedelta(0))
    if health.failures >= FAILURES_TO_OPEN:
        if health.open_until is not None and health.open_until > now:
            return Permit(0, timedelta(0))
        wanted, health.open_until = min(wanted, 1), now + PROBE_EVERY
    if not rate:
        return Permit(wanted, timedelta(0))
    # A moved clock may have left the next place far in the future; nobody waits for that.
    start = min(max(health.next_start_at or now, now), now + longest)
    count = min(wanted, int((now + longest - start).total_seconds() * rate))
    health.next_start_at = start + timedelta(seconds=count / rate)
    return Permit(count, start - now)


def skew_is_stale(session: Session, now: datetime) -> bool:
    checked = session.execute(select(GatewayHealth.skew_checked_at)).scalar_one()
    return checked is None or abs(now - checked) > SKEW_GOOD_FOR


def note_skew(session: Session, now: datetime, skew: timedelta) -> bool:
    """Keep the gateway's clock minus ours; True when it has just become too large to charge."""
    health = session.execute(select(GatewayHealth).with_for_update()).scalar_one()
    before = _skewed(health)
    health.clock_skew, health.skew_checked_at = skew, now
    return _skewed(health) and not before


def note_answers(session: Session, now: datetime, *, usable: int, useless: int) -> bool:
    """Count answers of one batch; True when this has just opened the circuit.

    Level-triggered: any usable answer closes it.
    """
    if not usable and not useless:
        return False
    health = session.execute(select(GatewayHealth).with_for_update()).scalar_one()
    before = health.failures
    if usable:
        health.failures, health.open_until, health.last_answer_at = 0, None, now
        return False
    health.failures = before + useless
    if health.failures >= FAILURES_TO_OPEN and before < FAILURES_TO_OPEN:
        health.open_until = now + PROBE_EVERY
        return True
    return False


def note_verdicts(session: Session, now: datetime, *, approved: int, suspicious: int) -> bool:
    """Count approvals and suspicious declines; True when there are too many of the latter."""
    if not approved and not suspicious:
        return False
    health = session.execute(select(GatewayHealth).with_for_update()).scalar_one()
    if approved:
        health.suspicious, health.last_approved_at = 0, now
        return False
    health.suspicious += suspicious
    return health.suspicious >= SUSPICIOUS_TO_HOLD


def _skewed(health: GatewayHealth) -> bool:
    return health.clock_skew is not None and abs(health.clock_skew) > MAX_SKEW
