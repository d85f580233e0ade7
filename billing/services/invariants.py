"""Facts that must hold, as queries that must return no rows (docs/reliability.md, I1 to I9).

Each names the rows that break it by their ids. What needs the gateway's ledger (I8) is the
business of reconciliation.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg.errors
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from billing.domain.policy import BillingPolicy
from billing.domain.seal import is_as_enrolled
from billing.store import archives, installation, seals
from billing.store.attempts import facts_of
from billing.store.session import Book, Transaction
from billing.store.subscriptions import take_time
from billing.store.tables import BuyerData, Subscription

# Enough to see what is wrong; the count may be larger.
MOST_ROWS = 100
_SEALS_AT_A_GLANCE = 2000
_HASTE = text("SET LOCAL statement_timeout = 500")


@dataclass(frozen=True, slots=True)
class Checked:
    """One fact that must hold, and the ids of rows that break it: none where it holds."""

    name: str
    statement: str
    rows: list[int]
    # What a person can do, where there is a command for it.
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class _Fact:
    name: str
    statement: str
    breaking: str


# Attempts whose events are all in the book still (`store/archives.py`).
_IN_THE_BOOK = f"JOIN cycles c ON c.id = a.cycle_id AND {archives.NOT_YET}"


def _number(name: str) -> str:
    """That of an event line; unknown where somebody made something else of it."""
    return f"CASE WHEN e.data->>'{name}' ~ '^[0-9]{{1,9}}$' THEN (e.data->>'{name}')::int END"


_SEALED = (
    "I3 never another amount",
    "The facts of every subscription are those that were sealed, and it counts from the day of its"
    " initial payment.",
)
_CORRECT = (
    "Each row is the number of a subscription, as in the console's addresses. `maewol subscription"
    " correct CUSTOMER_UID` puts it right by the initial payment at the gateway."
)
_FACTS = (
    _Fact(
        "I1 paid once",
        "No calendar month of a subscription has two paid cycles or two approved attempts.",
        "SELECT min(c.id) FROM cycles c"
        " LEFT JOIN attempts a ON a.cycle_id = c.id AND a.status = 'approved'"
        " WHERE c.status = 'paid' OR a.id IS NOT NULL"
        " GROUP BY c.subscription_id, c.month HAVING count(*) > 1",
    ),
    _Fact(
        "I1 approved is paid",
        "The cycle of every approved attempt is paid (or refunded) by that very payment.",
        "SELECT a.id FROM attempts a JOIN cycles c ON c.id = a.cycle_id"
        " WHERE a.status = 'approved' AND (c.status NOT IN ('paid', 'refunded')"
        " OR c.paid_merchant_uid <> a.merchant_uid OR c.paid_imp_uid <> a.imp_uid)",
    ),
    _Fact(
        "I1 one registration",
        "A subscription that another goes on from is cancelled: nobody pays twice a month.",
        "SELECT p.id FROM subscriptions s JOIN subscriptions p ON p.id = s.previous_id"
        " WHERE p.status <> 'cancelled'",
    ),
    _Fact(
        "I2 inside the band",
        "Every attempt was sent inside its cycle's band, less the closing margin.",
        # Before its anchor was put right a cycle had another band.
        "SELECT a.id FROM attempts a JOIN cycles c ON c.id = a.cycle_id"
        " WHERE (a.sent_at < c.band_opens_at OR a.sent_at > c.last_start_at) AND NOT EXISTS"
        " (SELECT FROM events e WHERE e.subscription_id = c.subscription_id"
        " AND e.kind = 'subscription.corrected' AND e.data->>'anchor_was' IS NOT NULL"
        " AND e.at > a.sent_at)",
    ),
    _Fact(
        "I3 erased is ended",
        "Whoever was erased on request is cancelled, has no buyer data, and the event line of it.",
        "SELECT s.id FROM subscriptions s WHERE s.forgotten_at IS NOT NULL AND"
        " (s.status <> 'cancelled' OR EXISTS (SELECT FROM buyers b WHERE b.subscription_id = s.id)"
        " OR NOT EXISTS (SELECT FROM events e WHERE e.subscription_id = s.id"
        " AND e.kind = 'subscription.forgotten'))",
    ),
    _Fact(
        "I4 nothing forgotten",
        "No cycle is open 49 hours (48, and a tick) after its close; none ended without a reason.",
        "SELECT id FROM cycles WHERE (status = 'open' AND closes_at < :now - interval '49 hours')"
        " OR (status IN ('missed', 'skipped') AND reason IS NULL)",
    ),
    _Fact(
        "I4 opened in time",
        "No active subscription's window passed without a cycle.",
        "SELECT s.id FROM subscriptions s WHERE s.status = 'active'"
        " AND s.next_closes_at < :now - interval '1 hour' AND NOT EXISTS"
        " (SELECT FROM cycles c WHERE c.subscription_id = s.id AND c.status = 'open')",
    ),
    _Fact(
        "I4 no month passed over",
        "The months of every subscription follow each other without a gap, up to its next one.",
        "SELECT s.id FROM subscriptions s JOIN (SELECT subscription_id, count(*) AS months,"
        " min(number) AS first, max(number) AS last FROM cycles GROUP BY subscription_id) c"
        " ON c.subscription_id = s.id WHERE c.last - c.first + 1 <> c.months"
        " OR (s.status IN ('active', 'paused') AND s.next_cycle <> c.last + 1)",
    ),
    _Fact(
        "I5 nothing guessed",
        "Every unknown attempt has a moment at which it is asked about again.",
        "SELECT id FROM attempts WHERE status = 'unknown'"
        " AND (ask_at IS NULL OR provable_at IS NULL)",
    ),
    _Fact(
        "I6 one at a time",
        "A cycle that ended has no attempt that may still be sent.",
        "SELECT a.id FROM attempts a JOIN cycles c ON c.id = a.cycle_id"
        " WHERE c.status <> 'open' AND a.status IN ('due', 'sending')",
    ),
    _Fact(
        "I7 all is written",
        "Every settled attempt and every ended cycle has the event line that tells of it.",
        f"SELECT a.id FROM attempts a {_IN_THE_BOOK}"  # noqa: S608
        " WHERE a.status IN ('approved', 'declined', 'withdrawn') AND NOT EXISTS"
        " (SELECT FROM events e WHERE e.attempt_id = a.id"
        " AND e.kind = 'attempt.' || a.status)"
        f" UNION ALL SELECT c.id FROM cycles c WHERE c.status <> 'open' AND {archives.NOT_YET}"
        " AND NOT EXISTS"
        " (SELECT FROM events e WHERE e.cycle_id = c.id AND e.kind = 'cycle.' || c.status)",
    ),
    _Fact(
        "I7 refunds are written",
        "A cycle is refunded exactly when the refund of its payment is done.",
        "SELECT c.id FROM cycles c LEFT JOIN refunds r ON r.imp_uid = c.paid_imp_uid"
        " AND r.status = 'done' WHERE (c.status = 'refunded') <> (r.id IS NOT NULL)",
    ),
    _Fact(
        "I9 bounded retries",
        "No cycle has more declines than MAX_ATTEMPTS, none more on a day than ATTEMPTS_PER_DAY,"
        " by the settings with which each retry was planned.",
        # Not by the settings of today: what was right when it was tried stays right.
        "SELECT DISTINCT t.cycle_id FROM (SELECT id, cycle_id,"  # noqa: S608 - ours
        " row_number() OVER (PARTITION BY cycle_id ORDER BY number) AS nth,"
        " row_number() OVER (PARTITION BY cycle_id, (sent_at AT TIME ZONE :zone)::date"
        " ORDER BY number) AS nth_of_day FROM attempts WHERE status = 'declined') t"
        " JOIN events e ON e.attempt_id = t.id AND e.kind = 'attempt.planned'"
        f" WHERE t.nth > {_number('declines_allowed')}"
        f" OR t.nth_of_day > {_number('declines_allowed_a_day')}",
    ),
    _Fact(
        "I7 the events rebuild the attempts",
        "The newest event line of every attempt tells the status it has.",
        f"SELECT a.id FROM attempts a {_IN_THE_BOOK}"  # noqa: S608
        " LEFT JOIN (SELECT DISTINCT ON (attempt_id) attempt_id,"
        " CASE WHEN kind IN ('cycle.opened', 'attempt.planned', 'attempt.not_sent') THEN 'due'"
        " ELSE substr(kind, 9) END AS status FROM events WHERE kind IN ('cycle.opened',"
        " 'attempt.planned', 'attempt.not_sent', 'attempt.sending', 'attempt.unknown',"
        " 'attempt.approved', 'attempt.declined', 'attempt.withdrawn')"
        " ORDER BY attempt_id, id DESC) told ON told.attempt_id = a.id"
        " WHERE told.status IS DISTINCT FROM a.status",
    ),
    _Fact(
        "I7 the events rebuild the cycles",
        "The newest event line of every cycle tells the status it has.",
        "SELECT c.id FROM cycles c LEFT JOIN (SELECT DISTINCT ON (cycle_id) cycle_id,"  # noqa: S608
        " CASE WHEN kind = 'cycle.opened' THEN 'open' ELSE substr(kind, 7) END AS status"
        " FROM events WHERE kind IN ('cycle.opened', 'cycle.paid', 'cycle.missed',"
        " 'cycle.skipped', 'cycle.refunded') ORDER BY cycle_id, id DESC) told"
        " ON told.cycle_id = c.id WHERE coalesce(told.status, 'open') <> c.status"
        f" AND {archives.NOT_YET}",
    ),
    _Fact(
        "I7 the events rebuild the subscriptions",
        "The newest event line of every subscription tells the status it has.",
        "SELECT s.id FROM subscriptions s LEFT JOIN (SELECT DISTINCT ON (subscription_id)"
        " subscription_id, CASE WHEN kind IN ('subscription.enrolled', 'subscription.resumed',"
        " 'subscription.mended') THEN 'active' ELSE substr(kind, 14) END AS status FROM events"
        " WHERE kind IN ('subscription.enrolled', 'subscription.resumed', 'subscription.mended',"
        " 'subscription.paused', 'subscription.suspended', 'subscription.cancelled')"
        " ORDER BY subscription_id, id DESC) told ON told.subscription_id = s.id"
        " WHERE told.status IS DISTINCT FROM s.status",
    ),
    _Fact(
        "I7 nothing was edited",
        "The events are those that were sealed, none more, none less, none other.",
        seals.BROKEN,
    ),
    _Fact(
        "I7 archives are whole",
        "Archives follow each other, seal upon seal; what stays of their events was not edited.",
        archives.BROKEN,
    ),
)


@dataclass(frozen=True, slots=True)
class Glance:
    """What could be seen in a short time, and how many facts could not be looked at in it."""

    broken: list[Checked]
    unchecked: int


def every(book: Book, policy: BillingPolicy) -> list[Checked]:
    """Every fact with the rows that break it. Reads the whole book, for as long as that takes: a
    check that broke off at a limit would tell nothing of a large one."""
    with book.transaction() as tx:
        take_time(tx.session)
        return as_seen(tx, policy)


def as_seen(tx: Transaction, policy: BillingPolicy) -> list[Checked]:
    """The same, by what a transaction has changed already."""
    return [*(_examined(tx, policy, fact) for fact in _FACTS), _examined_seals(tx, policy, None)]


def broken(book: Book, policy: BillingPolicy) -> list[Checked]:
    """Every fact that does not hold; empty when all is well. Reads the whole book."""
    return [one for one in every(book, policy) if one.rows]


def at_once(book: Book, policy: BillingPolicy, *, but: tuple[str, ...] = ()) -> list[Checked]:
    """The facts that do not hold, asked in one statement, for whoever asks very often. Left out are
    those whose names begin so, and the seals, which are worked out here row by row."""
    facts = [fact for fact in _FACTS if not fact.name.startswith(but)]
    asked = " UNION ALL ".join(
        f"(SELECT {number} AS fact, * FROM ({fact.breaking}) b{number} LIMIT {MOST_ROWS})"  # noqa: S608 - ours
        for number, fact in enumerate(facts)
    )
    found: dict[int, list[int]] = {}
    with book.transaction() as tx:
        take_time(tx.session)
        values = {"now": tx.now, "zone": policy.plan.zone.key}
        for number, row in tx.session.execute(text(asked), values):
            found.setdefault(number, []).append(int(row))
    return [
        Checked(facts[number].name, facts[number].statement, rows)
        for number, rows in sorted(found.items())
    ]


def glance(book: Book, policy: BillingPolicy) -> Glance:
    """The same for a caller that must not wait, whatever the size of the book: each fact for at
    most half a second, and a sample of the seals, another one every minute. (The seal of each
    subscription is checked before its charge anyway.)"""
    unchecked = 0
    with book.transaction() as tx:
        found = [_examined_seals(tx, policy, _SEALS_AT_A_GLANCE)]
        for fact in _FACTS:
            try:
                with tx.session.begin_nested():
                    tx.session.execute(_HASTE)
                    found.append(_examined(tx, policy, fact))
            except DBAPIError as error:
                if not isinstance(error.orig, psycopg.errors.QueryCanceled):
                    raise
                unchecked += 1
    return Glance([one for one in found if one.rows], unchecked)


def _examined(tx: Transaction, policy: BillingPolicy, fact: _Fact) -> Checked:
    limited = text(f"SELECT * FROM ({fact.breaking}) b LIMIT {MOST_ROWS}")  # noqa: S608 - ours
    asked = {"now": tx.now, "zone": policy.plan.zone.key}
    rows = [int(row[0]) for row in tx.session.execute(limited, asked)]
    return Checked(fact.name, fact.statement, rows)


def _examined_seals(tx: Transaction, policy: BillingPolicy, most: int | None) -> Checked:
    key = installation.stored_key(tx.session)
    # The seal covers what was erased on request; nobody can charge those any more.
    sealed = (
        select(Subscription, BuyerData)
        .outerjoin(BuyerData, BuyerData.subscription_id == Subscription.id)
        .where(Subscription.forgotten_at.is_(None))
    )
    if most is not None:
        newest = tx.session.execute(select(func.max(Subscription.id))).scalar_one() or 0
        turn = int(tx.now.timestamp()) // 60 * most % max(newest, 1)
        sealed = sealed.where(Subscription.id > turn).order_by(Subscription.id).limit(most)
    rows = tx.session.execute(sealed.execution_options(yield_per=1000))
    changed = [
        subscription.id
        for subscription, buyer in rows
        if not is_as_enrolled(
            key,
            facts_of(subscription, buyer),
            subscription.anchor_on,
            subscription.seal,
            policy.plan.zone,
        )
    ]
    return Checked(*_SEALED, changed[:MOST_ROWS], _CORRECT)
