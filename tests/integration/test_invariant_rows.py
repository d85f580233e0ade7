"""What each invariant names, to the row: what breaks it, and what comes as near as it may."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime

import pytest

from billing.domain.policy import BillingPolicy
from billing.services.invariants import as_seen
from billing.store.session import Book, Transaction
from tests.conftest import MovedClock
from tests.plant import numbered_apart, one_more, paid, plant, refund, settled


@pytest.fixture
def now(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> datetime:
    """Subscribers 1 to 3 with open cycles 11 to 13 and due attempts 21 to 23, their bands a day
    apart; 4 is due later. Nothing guards the book any more."""
    numbered_apart(book, make_policy(), "2026-10-18", "2026-10-19", "2026-10-20", "2026-10-28")
    return clock.now


def broken(tx: Transaction, policy: BillingPolicy, name: str) -> list[int]:
    (rows,) = [one.rows for one in as_seen(tx, policy) if one.name == name]
    return sorted(rows)


def ended(cycle: int, status: str, reason: str | None = "unresolved") -> str:
    why = f"'{reason}'" if reason else "NULL"
    return f"UPDATE cycles SET status = '{status}', reason = {why} WHERE id = {cycle}"


def event(kind: str, *, subscription: int = 0, cycle: int = 0, attempt: int = 0) -> str:
    return (
        "INSERT INTO events (at, kind, subscription_id, cycle_id, attempt_id) VALUES (:now,"
        f" '{kind}', nullif({subscription}, 0), nullif({cycle}, 0), nullif({attempt}, 0))"
    )


def planned(attempt: int, allowed: int, a_day: int) -> str:
    """The event line of a retry, with the settings of then."""
    return (
        "INSERT INTO events (at, kind, attempt_id, data) VALUES (:now, 'attempt.planned',"
        f" {attempt}, jsonb_build_object('declines_allowed', {allowed},"
        f" 'declines_allowed_a_day', {a_day}))"
    )


def archived(older_than: str) -> str:
    return (
        "INSERT INTO event_archives (number, first_seal, last_seal, after_id, up_to_id, events,"
        " older_than, file, file_digest, kept_digest, archived_at) VALUES"
        f" (1, 1, 1, 0, 1, 1, {older_than}, '', '', '', :now)"
    )


ERASED = (
    "UPDATE subscriptions SET forgotten_at = :now, status = 'cancelled' WHERE id = 1",
    "DELETE FROM buyers WHERE subscription_id = 1",
    event("subscription.forgotten", subscription=1),
)
SAME_MONTH = "UPDATE cycles SET subscription_id = 1 WHERE id = 12"
OPENED = "(SELECT opened_at FROM cycles WHERE id = 11)"
# By fact: what is changed, and the rows that it names then.
CASES: dict[str, list[tuple[tuple[str, ...], list[int]]]] = defaultdict(list)


def holds(name: str, *changes: str) -> None:
    CASES[name].append((changes, []))


def breaks(name: str, row: int, *changes: str) -> None:
    CASES[name].append((changes, [row]))


ONCE = "I1 paid once"
holds(ONCE, settled(21, "approved"), settled(22, "approved"), paid(11, 21), paid(12, 22))
holds(ONCE, settled(21, "approved"), one_more(31, 11, "declined"))
holds(ONCE, settled(21, "approved"), paid(11, 21, "refunded"))
holds(ONCE, SAME_MONTH, paid(11, 21, "refunded"), paid(12, 22))
breaks(ONCE, 11, settled(21, "approved"), one_more(31, 11, "approved"))
breaks(ONCE, 11, SAME_MONTH, settled(21, "approved"), settled(22, "approved"))
breaks(ONCE, 11, SAME_MONTH, paid(11, 21), paid(12, 22))

BY_IT = "I1 approved is paid"
holds(BY_IT, settled(21, "approved"), paid(11, 21))
holds(BY_IT, settled(21, "approved"), paid(11, 21, "refunded"))
holds(BY_IT, settled(21, "declined"))
breaks(BY_IT, 21, settled(21, "approved"))
breaks(BY_IT, 21, settled(21, "approved"), paid(11, 21, "missed"))
breaks(BY_IT, 21, settled(21, "approved"), paid(11, 21), "UPDATE attempts SET imp_uid = 'x'")
breaks(BY_IT, 21, settled(21, "approved"), paid(11, 21), "UPDATE attempts SET merchant_uid = 'x'")

FOLLOWED = "UPDATE subscriptions SET previous_id = 1 WHERE id = 2"
holds("I1 one registration", FOLLOWED, "UPDATE subscriptions SET status = 'cancelled' WHERE id = 1")
breaks("I1 one registration", 1, FOLLOWED)

BAND = "I2 inside the band"
for edge, outside in (("band_opens_at", "-"), ("last_start_at", "+")):
    sent = f"UPDATE attempts SET sent_at = (SELECT {edge} FROM cycles WHERE id = 11)"
    holds(BAND, f"{sent} WHERE id = 21")
    late = f"{sent} {outside} interval '1 second' WHERE id = 21"
    breaks(BAND, 21, late)
    # By another anchor, which was put right since, it was inside.
    since = "(SELECT sent_at FROM attempts WHERE id = 21)"
    moved = """ '{"anchor_was": "2026-10-05"}'"""
    whose = "(SELECT subscription_id FROM cycles WHERE id = 11)"
    after, corrected = f"{since} + interval '1 second'", "subscription.corrected"
    for holding, at, kind, of, data in (
        (True, after, corrected, whose, moved),
        (False, since, corrected, whose, moved),
        (False, after, corrected, f"{whose} + 1", moved),
        (False, after, corrected, whose, """ '{"fields": ["amount"]}'"""),
        (False, after, "subscription.enrolled", whose, moved),
    ):
        told = (
            "INSERT INTO events (at, kind, subscription_id, data)"
            f" VALUES ({at}, '{kind}', {of}, {data})"
        )
        if holding:
            holds(BAND, late, told)
        else:
            breaks(BAND, 21, late, told)

GONE = "I3 erased is ended"
holds(GONE, *ERASED)
breaks(GONE, 1, *ERASED, "UPDATE subscriptions SET status = 'active' WHERE id = 1")
breaks(GONE, 1, *ERASED, "INSERT INTO buyers (subscription_id) VALUES (1)")
breaks(GONE, 1, *ERASED[:2], event("subscription.forgotten", subscription=2))

FORGOTTEN = "I4 nothing forgotten"
LATE = "UPDATE cycles SET closes_at = :now - interval '49 hours'"
holds(FORGOTTEN, f"{LATE} WHERE id = 11")
holds(FORGOTTEN, f"{LATE} - interval '1 second' WHERE id = 11", paid(11, 21))
holds(FORGOTTEN, ended(11, "missed"), ended(12, "skipped"))
breaks(FORGOTTEN, 11, f"{LATE} - interval '1 second' WHERE id = 11")
breaks(FORGOTTEN, 11, ended(11, "missed", None))
breaks(FORGOTTEN, 11, ended(11, "skipped", None))

UNOPENED = "I4 opened in time"
OVER = "UPDATE subscriptions SET next_closes_at = :now - interval '1 hour'"
PAUSED = "UPDATE subscriptions SET status = 'paused' WHERE id = 4"
holds(UNOPENED, f"{OVER} WHERE id = 4")
holds(UNOPENED, f"{OVER} - interval '1 second' WHERE id = 1")
holds(UNOPENED, f"{OVER} - interval '1 second' WHERE id = 4", PAUSED)
breaks(UNOPENED, 4, f"{OVER} - interval '1 second' WHERE id = 4")
breaks(UNOPENED, 1, f"{OVER} - interval '1 second' WHERE id = 1", paid(11, 21))

LEFT_OUT = "I4 no month passed over"
NEXT = "UPDATE subscriptions SET next_cycle = 3 WHERE id = 1"
ANOTHER = "UPDATE cycles SET subscription_id = 1, number = {} WHERE id = 12"
holds(LEFT_OUT, ANOTHER.format(2), NEXT)
holds(LEFT_OUT, NEXT, "UPDATE subscriptions SET status = 'cancelled' WHERE id = 1")
breaks(LEFT_OUT, 1, NEXT)
breaks(LEFT_OUT, 1, NEXT, "UPDATE subscriptions SET status = 'paused' WHERE id = 1")
breaks(LEFT_OUT, 1, ANOTHER.format(3), NEXT.replace("3", "4", 1))
breaks(LEFT_OUT, 1, ANOTHER.format(3), "UPDATE subscriptions SET status = 'cancelled' WHERE id = 1")

ASKED = "I5 nothing guessed"
UNKNOWN = "UPDATE attempts SET status = 'unknown', ask_at = :now, provable_at = :now WHERE id = 21"
holds(ASKED, UNKNOWN)
breaks(ASKED, 21, UNKNOWN, "UPDATE attempts SET ask_at = NULL")
breaks(ASKED, 21, UNKNOWN, "UPDATE attempts SET provable_at = NULL")

LIVE = "I6 one at a time"
holds(LIVE, ended(11, "missed"), settled(21, "withdrawn"))
holds(LIVE, ended(11, "missed"), UNKNOWN)
breaks(LIVE, 21, ended(11, "missed"))
breaks(LIVE, 21, paid(11, 21), "UPDATE attempts SET status = 'sending' WHERE id = 21")

WRITTEN = "I7 all is written"
for status in ("approved", "declined", "withdrawn"):
    told = event(f"attempt.{status}", attempt=21)
    holds(WRITTEN, settled(21, status), told)
    breaks(WRITTEN, 21, settled(21, status), event("attempt.unknown", attempt=21))
    breaks(WRITTEN, 21, settled(21, status), event(f"attempt.{status}", attempt=22))
for status in ("paid", "missed", "skipped", "refunded"):
    holds(WRITTEN, paid(11, 21, status), event(f"cycle.{status}", cycle=11))
    breaks(WRITTEN, 11, paid(11, 21, status), event("cycle.opened", cycle=11))
    breaks(WRITTEN, 11, paid(11, 21, status), event(f"cycle.{status}", cycle=12))
WHOLE = (settled(21, "approved"), event("cycle.paid", cycle=11), paid(11, 21))
breaks(WRITTEN, 21, *WHOLE, archived(OPENED))
holds(WRITTEN, *WHOLE, archived(f"{OPENED} + interval '1 second'"))
breaks(WRITTEN, 11, ended(11, "missed"), archived(OPENED))
holds(WRITTEN, ended(11, "missed"), archived(f"{OPENED} + interval '1 second'"))

RETURNED = "I7 refunds are written"
holds(RETURNED, paid(11, 21), paid(12, 22, "refunded"), refund(22, "done"))
holds(RETURNED, paid(11, 21), refund(21, "refused"), refund(22, "done"))
breaks(RETURNED, 11, paid(11, 21), refund(21, "done"))
breaks(RETURNED, 11, paid(11, 21, "refunded"))
breaks(RETURNED, 11, paid(11, 21, "refunded"), refund(21, "refused"), refund(22, "done"))

BOUNDED = "I9 bounded retries"
# Two on one day of Seoul, which are two days elsewhere; then one on the next.
DECLINED = (
    settled(21, "declined"),
    "UPDATE attempts SET sent_at = '2026-11-18T23:00:00Z' WHERE id = 21",
    one_more(31, 11, "declined", "'2026-11-19T01:00:00Z'"),
    one_more(32, 11, "declined", "'2026-11-19T15:00:00Z'"),
)
holds(BOUNDED, *DECLINED, planned(31, 2, 2), planned(32, 3, 1))
breaks(BOUNDED, 11, *DECLINED, planned(31, 1, 2), planned(32, 3, 1))
breaks(BOUNDED, 11, *DECLINED, planned(31, 2, 1), planned(32, 3, 1))
breaks(BOUNDED, 11, *DECLINED, planned(31, 2, 2), planned(32, 2, 1))
breaks(BOUNDED, 11, *DECLINED, planned(31, 2, 2), planned(32, 3, 0))
breaks(BOUNDED, 11, *DECLINED, planned(31, 0, 0), planned(32, 0, 0))
# What is no decline counts for nothing, and what others may has no bearing.
holds(BOUNDED, settled(21, "declined"), one_more(31, 11), planned(31, 0, 0))
holds(BOUNDED, *DECLINED, planned(31, 2, 2), planned(32, 3, 1), planned(22, 0, 0))
holds(
    BOUNDED,
    *DECLINED,
    planned(31, 2, 2),
    planned(32, 3, 1),
    "INSERT INTO events (at, kind, attempt_id, data) SELECT at, 'attempt.other', attempt_id,"
    ' \'{"declines_allowed": 0, "declines_allowed_a_day": 0}\' FROM events WHERE attempt_id = 31',
)

REBUILT = "I7 the events rebuild the attempts"
for kind, status in (
    ("cycle.opened", "due"),
    ("attempt.planned", "due"),
    ("attempt.not_sent", "due"),
    ("attempt.sending", "sending"),
    ("attempt.unknown", "unknown"),
    ("attempt.approved", "approved"),
    ("attempt.declined", "declined"),
    ("attempt.withdrawn", "withdrawn"),
):
    other = event("attempt.sending" if status == "due" else "attempt.planned", attempt=21)
    becomes = f"UPDATE attempts SET status = '{status}' WHERE id = 21"
    holds(REBUILT, other, event(kind, attempt=21), becomes)
    breaks(REBUILT, 21, event(kind, attempt=21), other, becomes)
holds(REBUILT, event("attempt.asked", attempt=21))
breaks(REBUILT, 31, one_more(31, 11))
breaks(REBUILT, 21, settled(21, "approved"), archived(OPENED))
holds(REBUILT, settled(21, "approved"), archived(f"{OPENED} + interval '1 second'"))

MONTHS = "I7 the events rebuild the cycles"
for kind, status in (
    ("cycle.opened", "open"),
    ("cycle.paid", "paid"),
    ("cycle.missed", "missed"),
    ("cycle.skipped", "skipped"),
    ("cycle.refunded", "refunded"),
):
    other = event("cycle.paid" if status != "paid" else "cycle.missed", cycle=11)
    holds(MONTHS, other, event(kind, cycle=11), paid(11, 21, status))
    breaks(MONTHS, 11, event(kind, cycle=11), other, paid(11, 21, status))
holds(MONTHS, event("cycle.held", cycle=11))
holds(MONTHS, "DELETE FROM events WHERE cycle_id = 11")
breaks(MONTHS, 11, "DELETE FROM events WHERE cycle_id = 11", paid(11, 21))
breaks(MONTHS, 11, ended(11, "missed"), archived(OPENED))
holds(MONTHS, ended(11, "missed"), archived(f"{OPENED} + interval '1 second'"))

SUBSCRIBERS = "I7 the events rebuild the subscriptions"
for kind, status in (
    ("enrolled", "active"),
    ("resumed", "active"),
    ("mended", "active"),
    ("paused", "paused"),
    ("suspended", "suspended"),
    ("cancelled", "cancelled"),
):
    other = "subscription.paused" if status != "paused" else "subscription.resumed"
    told = event(f"subscription.{kind}", subscription=1)
    becomes = f"UPDATE subscriptions SET status = '{status}' WHERE id = 1"
    holds(SUBSCRIBERS, event(other, subscription=1), told, becomes)
    breaks(SUBSCRIBERS, 1, told, event(other, subscription=1), becomes)
holds(SUBSCRIBERS, event("subscription.forgotten", subscription=1))
breaks(SUBSCRIBERS, 1, "DELETE FROM events WHERE subscription_id = 1")


@pytest.mark.parametrize("name", CASES)
def test_what_it_names(book: Book, policy: BillingPolicy, now: datetime, name: str) -> None:
    for changes, rows in CASES[name]:
        with book.transaction() as tx:
            assert broken(tx, policy, name) == []
            plant(tx, now, changes)
            assert broken(tx, policy, name) == rows, "\n".join(changes)
            tx.session.rollback()


def test_so_many_rows_are_named_at_most(book: Book, policy: BillingPolicy, now: datetime) -> None:
    many = (
        "INSERT INTO attempts (cycle_id, number, merchant_uid, status, closes_at, planned_at,"
        " ready_at) SELECT 11, n, 'mw-' || n, 'unknown', :now, :now, :now"
        " FROM generate_series(2, 150) n"
    )
    with book.transaction() as tx:
        plant(tx, now, [many])
        assert len(broken(tx, policy, ASKED)) == 100
