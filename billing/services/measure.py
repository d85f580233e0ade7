"""What a monitoring system wants to know: read in one go, and cheap in a large book."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing.domain import pace
from billing.domain.policy import BillingPolicy
from billing.services import reconciled
from billing.store import events, gauges, health, heartbeats
from billing.store.gauges import Duration, Told, Waiting
from billing.store.session import Book, Transaction

# So long an alarm is a recent one.
RECENT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Gateway:
    """What all workers know of the gateway; moments as seconds ago, None for never."""

    up: bool
    held: bool
    failures: int
    pace: float
    skew_seconds: float | None
    approved_seconds_ago: float | None
    answered_seconds_ago: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures, and the number of the newest line when they were read."""

    waiting: Waiting
    gateway: Gateway
    seen_seconds_ago: dict[str, float]
    # Since the last whole reconciliation, or the first enrolment; None before that.
    reconciled_seconds_ago: float | None
    recent_alarms: dict[str, int]
    told: Sequence[Told]
    durations: Sequence[Duration]
    newest: int


def newest_line(book: Book) -> int:
    """The number of the newest line: where a watcher starts to count."""
    return book.run(lambda tx: events.newest(tx.session))


def measure(book: Book, policy: BillingPolicy, after: int, up_to: int) -> Measured:
    """All figures; of the event log the lines after one number up to another."""

    def step(tx: Transaction) -> Measured:
        return Measured(
            waiting=gauges.waiting(tx.session, tx.now, policy.closing_soon),
            gateway=_gateway(tx),
            seen_seconds_ago={
                name: _ago(tx.now, at) or 0.0 for name, at in heartbeats.seen(tx.session).items()
            },
            reconciled_seconds_ago=_seconds(reconciled.age(tx)),
            recent_alarms=gauges.alarms(tx.session, tx.now - RECENT, tx.now + RECENT),
            told=gauges.told(tx.session, after, up_to),
            durations=gauges.durations(tx.session, after, up_to),
            newest=events.newest(tx.session),
        )

    return book.run(step)


def _gateway(tx: Transaction) -> Gateway:
    state = health.read(tx.session)
    return Gateway(
        up=health.is_up(state, tx.now),
        held=health.hold_reason(tx.session) is not None,
        failures=state.failures,
        pace=pace.pace_at(state.pace, state.slowed_at, tx.now),
        skew_seconds=_seconds(state.clock_skew),
        approved_seconds_ago=_ago(tx.now, state.last_approved_at),
        answered_seconds_ago=_ago(tx.now, state.last_answer_at),
    )


def _ago(now: datetime, at: datetime | None) -> float | None:
    return None if at is None else (now - at).total_seconds()


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()
