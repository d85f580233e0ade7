"""What all workers share about the gateway: hold, brake, circuit, rate ceiling and pace, skew.

One row each, in the database: there is no second place that could be away, flushed or disagree
(ADR 0006). What follows from the numbers is the domain's (`brake`, `pace`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, union_all, update
from sqlalchemy.orm import Session

from billing.domain import brake, pace
from billing.domain.attempt import AttemptStatus
from billing.domain.brake import Verdict
from billing.domain.pace import Ceiling
from billing.store.session import single
from billing.store.tables import Attempt, GatewayHealth, Installation
from billing.store.waiting import LONGEST_WAIT, waits

# So many requests in a row without a usable answer open the circuit.
FAILURES_TO_OPEN = 5
# While it is open, one request is let through after each such pause.
PROBE_EVERY = timedelta(seconds=15)
# Without an approval for so long, only a few charges go out until there is one.
TRUSTED_FOR = timedelta(hours=1)
# A canary whose answer was lost is waited for so long; look-ups settle nearly all sooner.
UNDECIDED_FOR = timedelta(minutes=4)
# A skew against the gateway's clock beyond a minute stops charging (docs/reliability.md, A3).
MAX_SKEW = timedelta(seconds=60)
SKEW_GOOD_FOR = timedelta(minutes=5)
# How old what is known of answers may be before it is written anew.
_FRESH = timedelta(seconds=1)
# A 429 that names no time.
SHORTEST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Permit:
    """How many charges may start, how long after the transaction's moment the first, and how many
    a second from then on (0: all at once)."""

    count: int
    wait: timedelta
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Hold:
    """Why all charging was stopped, since when, what the newest answers had said by its end, and
    whether it was the brake that did, and not a person or a book that was moved."""

    why: str
    since: datetime | None
    verdicts: str
    by_brake: bool


NONE = Permit(0, timedelta(0))
_LOCKED = "gateway_health"


def hold_reason(session: Session) -> str | None:
    """Why all charging is stopped, or None."""
    return session.execute(select(Installation.hold_reason)).scalar_one()


def hold(session: Session, now: datetime, why: str, *, by_brake: bool = False) -> bool:
    """Stop all charging; False when it was stopped already, and then nothing is changed.

    Waits for claims that are under way: once this is committed, none follows.
    """
    _locked(session)
    held = session.execute(
        update(Installation)
        .where(Installation.hold_reason.is_(None))
        .values(hold_reason=why[:500], held_at=now, held_by_brake=by_brake)
        .returning(Installation.id)
    )
    return held.first() is not None


def release(session: Session) -> Hold | None:
    """Start charging again, with a clean slate; what it was stopped for, None where it was not.

    What was approved before the stop says nothing of what made somebody stop: canaries go first.
    """
    health = _locked(session)
    query = select(
        Installation.hold_reason, Installation.held_at, Installation.held_by_brake
    ).with_for_update()
    why, since, by_brake = session.execute(query).one()
    if why is not None:
        session.execute(
            update(Installation).values(hold_reason=None, held_at=None, held_by_brake=False)
        )
    held = None if why is None else Hold(why, since, health.verdicts, by_brake)
    health.suspicious, health.verdicts, health.last_approved_at = 0, "", None
    health.failures, health.open_until, health.pause_until = 0, None, None
    return held


def read(session: Session) -> GatewayHealth:
    """The shared row as it is, or as this transaction has read it before."""
    return single(session, GatewayHealth)


def _locked(session: Session) -> GatewayHealth:
    """The shared row, locked until the transaction ends; asked for once in each."""
    known: GatewayHealth | None = session.info.get(_LOCKED)
    if known is not None:
        return known
    query = select(GatewayHealth).with_for_update().execution_options(populate_existing=True)
    session.info[_LOCKED] = locked = session.execute(query).scalar_one()
    return locked


def _kept(session: Session) -> GatewayHealth:
    """The shared row as it will stay until the transaction ends."""
    query = select(GatewayHealth).with_for_update(read=True)
    return session.execute(query.execution_options(populate_existing=True)).scalar_one()


def is_up(health: GatewayHealth, now: datetime) -> bool:
    return health.failures < FAILURES_TO_OPEN


def room(session: Session, now: datetime, wanted: int, ceiling: Ceiling) -> int:
    """How many attempts may be handed out now: all, a few canaries, one probe, or none."""
    if hold_reason(session) is not None:
        return 0
    health = read(session)
    if _is_paused(health, now):
        return 0
    if health.failures >= FAILURES_TO_OPEN:
        return 0 if _is_waiting_to_probe(health, now) else min(wanted, 1)
    return min(wanted, _canaries_left(session, health, now, ceiling.canaries, wanted))


def reserve(
    session: Session, now: datetime, wanted: int, ceiling: Ceiling, longest: timedelta
) -> Permit:
    """Take `wanted` places, or fewer, under the ceiling that all workers share.

    No place is given that lies more than `longest` ahead. Locks the shared row, so the transaction
    must be short; without a ceiling there are no places to share out, and claims only keep `hold`
    waiting, not each other.
    """
    down = read(session).failures >= FAILURES_TO_OPEN
    health = _locked(session) if ceiling.rate or down else _kept(session)
    if hold_reason(session) is not None or _skewed(health) or _is_paused(health, now):
        return NONE
    if health.failures >= FAILURES_TO_OPEN:
        if not down or _is_waiting_to_probe(health, now):
            return NONE
        wanted, health.open_until = min(wanted, 1), now + PROBE_EVERY
    else:
        wanted = min(wanted, _canaries_left(session, health, now, ceiling.canaries, wanted))
    rate = pace.rate_at(ceiling.rate, pace.pace_at(health.pace, health.slowed_at, now))
    if not rate:
        return Permit(wanted, timedelta(0))
    # A moved clock may have left the next place far in the future; nobody waits for that. Under a
    # ceiling so low that places lie further apart than that, for one of them.
    latest = now + max(longest, timedelta(seconds=1 / rate))
    start = min(max(health.next_start_at or now, now), latest)
    ahead = int((now + longest - start).total_seconds() * rate)
    # Whatever the rate: whose turn it is may go, or nobody ever would.
    count = min(wanted, max(ahead, 1 if start <= now else 0))
    health.next_start_at = start + timedelta(seconds=count / rate)
    return Permit(count, start - now, rate)


def _is_paused(health: GatewayHealth, now: datetime) -> bool:
    return waits(health.pause_until, now)


def _is_waiting_to_probe(health: GatewayHealth, now: datetime) -> bool:
    return waits(health.open_until, now, PROBE_EVERY)


def _canaries_left(
    session: Session, health: GatewayHealth, now: datetime, canaries: int, wanted: int
) -> int:
    """While nothing was approved lately, only a few at a time find out whether all is well."""
    approved_at = health.last_approved_at
    if not canaries or (approved_at is not None and abs(now - approved_at) <= TRUSTED_FOR):
        return wanted
    # One after the other: each status has an index of its own.
    undecided = union_all(
        *(
            select(Attempt.id)
            .where(Attempt.status == status, Attempt.sent_at > now - UNDECIDED_FOR)
            .limit(canaries)
            .subquery()
            .select()
            for status in (AttemptStatus.SENDING, AttemptStatus.UNKNOWN)
        )
    )
    out = session.execute(select(func.count()).select_from(undecided.subquery())).scalar_one()
    return max(canaries - out, 0)


def skew_is_stale(session: Session, now: datetime) -> bool:
    checked = read(session).skew_checked_at
    return checked is None or abs(now - checked) > SKEW_GOOD_FOR


def is_skewed(session: Session) -> bool:
    """Whether the gateway's clock and ours were too far apart when they were last compared."""
    return _skewed(read(session))


def note_skew(session: Session, now: datetime, skew: timedelta) -> bool:
    """Keep the gateway's clock minus ours; True when it has just become too large to charge."""
    health = _locked(session)
    before = _skewed(health)
    health.clock_skew, health.skew_checked_at = skew, now
    return _skewed(health) and not before


def note_answers(
    session: Session, now: datetime, *, usable: int, useless: Sequence[datetime]
) -> bool:
    """Count answers of one batch, the useless ones by when their attempts were claimed; True when
    this has just opened the circuit.

    Level-triggered: any usable answer closes it. Speed then returns step by step, so that what
    waited does not fall upon a gateway that has just got up. A useless answer to something older
    than the last usable one says nothing: requests that time out are heard of last of all, and a
    few in a hundred that hang would close the road to all the others.
    """
    if not usable and not useless:
        return False
    if usable and not _news(session, now):
        return False
    health = _locked(session)
    before = health.failures
    if usable:
        if before >= FAILURES_TO_OPEN:
            health.pace, health.slowed_at = pace.AFTER_AN_OUTAGE, now
        health.failures, health.open_until, health.last_answer_at = 0, None, now
        return False
    answered_at = health.last_answer_at
    if answered_at is not None and answered_at > now + MAX_SKEW:
        # By a clock that was far ahead: before it nothing would count until that moment comes.
        answered_at = None
    health.failures += sum(answered_at is None or claimed >= answered_at for claimed in useless)
    if health.failures >= FAILURES_TO_OPEN and before < FAILURES_TO_OPEN:
        health.open_until = now + PROBE_EVERY
        return True
    return False


def _news(session: Session, now: datetime) -> bool:
    """Whether one more approval would change anything: where all are, workers need not queue up to
    say so."""
    health = read(session)
    all_is_well = (
        health.failures == 0
        and health.suspicious == 0
        and health.verdicts == Verdict.APPROVED * brake.KEPT
        and health.last_answer_at is not None
        and health.last_approved_at is not None
        and abs(now - health.last_answer_at) <= _FRESH
        and abs(now - health.last_approved_at) <= _FRESH
    )
    return not all_is_well


def slow_down(session: Session, now: datetime, seconds: float) -> None:
    """The gateway asked for less (429): everyone pauses so long, and goes on at half the pace."""
    health = _locked(session)
    health.pace, health.slowed_at = pace.slower(health.pace, health.slowed_at, now)
    _pause(health, now, min(max(timedelta(seconds=seconds), SHORTEST_PAUSE), LONGEST_PAUSE))


def wait_out(session: Session, now: datetime, longest: timedelta) -> None:
    """Let nothing start for so long: requests that may have left without our knowing are at the
    gateway, and show there, by then."""
    _pause(_locked(session), now, min(longest, LONGEST_WAIT))


def _pause(health: GatewayHealth, now: datetime, wait: timedelta) -> None:
    stands = health.pause_until if _is_paused(health, now) else None
    health.pause_until = max(stands or now, now + wait)


def note_verdicts(session: Session, now: datetime, verdicts: Sequence[Verdict]) -> str | None:
    """Keep what answers say about us; why all charging must stop, or None."""
    if not verdicts:
        return None
    if set(verdicts) == {Verdict.APPROVED} and not _news(session, now):
        return None
    health = _locked(session)
    health.verdicts = brake.with_new(health.verdicts, verdicts)
    for verdict in verdicts:
        if verdict is Verdict.APPROVED:
            health.suspicious, health.last_approved_at = 0, now
        elif verdict in (Verdict.SUSPICIOUS, Verdict.OPERATOR):
            health.suspicious += 1
    return brake.why_brake(health.verdicts)


def _skewed(health: GatewayHealth) -> bool:
    return health.clock_skew is not None and abs(health.clock_skew) > MAX_SKEW
