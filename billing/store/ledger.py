"""The gateway's ledger beside the book: staged by COPY into a table of the transaction's own, and
matched by the database, so that a month of a million payments needs no memory of ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from billing.domain.money import Won
from billing.domain.payment import Payment
from billing.domain.reconciliation import BookSide, Case, DifferenceKind
from billing.store.session import copy_rows
from billing.store.subscriptions import take_time

STAGED_COLUMNS = (
    "imp_uid",
    "merchant_uid",
    "status",
    "amount",
    "cancelled_amount",
    "customer_uid",
    "paid_at",
    "cancelled_at",
    "currency",
    "sandbox",
    "customer_uid_usage",
    "pay_method",
)


def row_of(payment: Payment) -> list[Any]:
    """In the order of `STAGED_COLUMNS`; fit for JSON."""
    return [
        payment.imp_uid,
        payment.merchant_uid,
        payment.status,
        payment.amount.amount,
        payment.cancelled_amount.amount,
        payment.customer_uid,
        payment.paid_at.isoformat() if payment.paid_at else None,
        payment.cancelled_at.isoformat() if payment.cancelled_at else None,
        payment.currency,
        payment.sandbox,
        payment.customer_uid_usage,
        payment.pay_method,
    ]


_STAGE = text(
    """
    CREATE TEMP TABLE staged_payments (
        imp_uid text, merchant_uid text, status text, amount bigint, cancelled_amount bigint,
        customer_uid text, paid_at timestamptz, cancelled_at timestamptz, currency text,
        sandbox boolean, customer_uid_usage text, pay_method text
    ) ON COMMIT DROP
    """
)
_COPY = f"COPY staged_payments ({', '.join(STAGED_COLUMNS)}) FROM STDIN"
# The lists were read one after the other: what was paid in one and cancelled in the next is
# cancelled now. Who owns a payment: the cycle that counts it, the attempt of its name, its billing
# key, or the tag in its name, where that is nobody else's. No index leads to a tag: all
# subscriptions are read for it, so it is asked last, and not where nothing is left to ask about.
_LEDGER = text(
    """
    CREATE TEMP TABLE ledger ON COMMIT DROP AS
    WITH newest AS (
        SELECT DISTINCT ON (imp_uid) *,
            merchant_uid ~ :our_form AS named,
            date_trunc('month', paid_at AT TIME ZONE :zone)::date AS month
        FROM staged_payments WHERE paid_at IS NOT NULL
        ORDER BY imp_uid, (status = 'cancelled') DESC
    ), owned AS MATERIALIZED (
        SELECT n.*, counted.id AS counted_id, a.status AS attempt_status,
            coalesce(counted.subscription_id, of_attempt.subscription_id, of_key.id) AS owner_id
        FROM newest n
        LEFT JOIN cycles counted ON counted.paid_imp_uid = n.imp_uid
        LEFT JOIN attempts a ON a.merchant_uid = n.merchant_uid
        LEFT JOIN cycles of_attempt ON of_attempt.id = a.cycle_id
        LEFT JOIN subscriptions of_key ON of_key.customer_uid = n.customer_uid
    ), unowned AS MATERIALIZED (
        SELECT imp_uid, split_part(merchant_uid, '-', 2) AS tag FROM owned
        WHERE owner_id IS NULL AND named
    ), of_tag AS MATERIALIZED (
        SELECT u.imp_uid, min(s.id) AS id FROM unowned u JOIN subscriptions s ON s.tag = u.tag
        GROUP BY u.imp_uid HAVING count(*) = 1
    )
    SELECT o.*, coalesce(o.owner_id, of_tag.id) AS subscription_id
    FROM owned o LEFT JOIN of_tag ON of_tag.imp_uid = o.imp_uid
    """
)
# Beside each payment: whether it registered the key, whether its month is ours to charge, and
# which payment of the same key and month is to be kept: the one our book counts, else the one that
# registered the key, else the earlier. What a charge on its way may explain waits for the inquiry;
# another amount in a month that is held for a person is not explained by any, and can be given back
# for a while only.
_BESIDE = text(
    """
    CREATE TEMP TABLE beside ON COMMIT DROP AS
    WITH owned AS (
        SELECT l.*, s.customer_uid AS owner_uid, s.status AS owner_status, s.amount AS owner_amount,
            l.customer_uid_usage IS NOT DISTINCT FROM 'issue'
                OR l.imp_uid IS NOT DISTINCT FROM s.initial_imp_uid
                OR l.merchant_uid IS NOT DISTINCT FROM s.initial_merchant_uid
                OR l.paid_at = s.initial_paid_at AS registered,
            count(*) FILTER (WHERE l.status = 'paid')
                OVER (PARTITION BY l.subscription_id, l.month) AS standing,
            date_trunc('month', s.anchor_on)::date AS anchor_month,
            coalesce(
                (SELECT min(c.month) FROM cycles c WHERE c.subscription_id = s.id),
                (date_trunc('month', s.anchor_on)
                    + make_interval(months => least(s.next_cycle, 120000)::int))::date
            ) AS first_month,
            s.status IN ('active', 'paused') AND l.month = (date_trunc('month', s.anchor_on)
                + make_interval(months => least(s.next_cycle, 120000)::int))::date AS coming
        FROM ledger l LEFT JOIN subscriptions s ON s.id = l.subscription_id
    ), ranked AS (
        SELECT imp_uid, first_value(imp_uid) OVER w AS keep
        FROM owned
        WHERE status = 'paid' AND subscription_id IS NOT NULL AND sandbox = :sandbox
        WINDOW w AS (PARTITION BY subscription_id, month
            ORDER BY (counted_id IS NULL), (NOT registered), paid_at, imp_uid)
    )
    SELECT o.*, nullif(r.keep, o.imp_uid) AS double_of,
        o.subscription_id IS NOT NULL AND o.month = o.anchor_month
            AND nullif(r.keep, o.imp_uid) IS NULL AND (o.status = 'paid' OR o.registered)
            AS initial,
        c.id AS cycle_id, c.number AS cycle_number, c.status AS cycle_status,
        c.paid_merchant_uid AS counted_as,
        o.standing > (o.status = 'paid')::int AS month_stands,
        EXISTS (SELECT FROM attempts a WHERE a.cycle_id = c.id
            AND (a.status = 'sending' OR a.status = 'unknown'
                AND (c.held IS NULL OR o.amount = o.owner_amount))) AS in_flight
    FROM owned o
    LEFT JOIN ranked r ON r.imp_uid = o.imp_uid
    LEFT JOIN cycles c ON c.id = coalesce(o.counted_id, (SELECT m.id FROM cycles m
        WHERE m.subscription_id = o.subscription_id AND m.month = o.month))
    """
)
# Only what does not simply match leaves the database. Everything here is judged again, by the
# domain's rules, when the gateway was asked about it by name.
_DIFFERING = """
    FROM beside b WHERE coalesce(
        CASE WHEN b.counted_id IS NOT NULL THEN NOT (
                b.sandbox = :sandbox AND b.amount = b.owner_amount
                AND (b.currency IS NULL OR b.currency = 'KRW')
                AND (b.customer_uid IS NULL OR b.customer_uid = b.owner_uid)
                AND left(b.merchant_uid, 40) = b.counted_as
                AND ((b.status = 'paid' AND b.cycle_status = 'paid' AND b.cancelled_amount = 0)
                    OR (b.status = 'cancelled' AND b.cycle_status = 'refunded')))
            WHEN b.status = 'cancelled' THEN b.initial AND b.owner_status IN ('active', 'paused')
                AND NOT EXISTS (SELECT FROM refunds r WHERE r.imp_uid = b.imp_uid
                    AND r.status = 'done')
            WHEN b.status <> 'paid' THEN false
            WHEN b.subscription_id IS NULL THEN b.named OR (b.customer_uid_usage IS NOT NULL
                AND coalesce(b.pay_method, 'phone') = 'phone')
            WHEN b.double_of IS NOT NULL THEN b.month = b.anchor_month OR b.month >= b.first_month
            ELSE b.month >= b.first_month AND NOT b.in_flight
        END, true)
        AND (b.double_of IS NOT NULL OR CASE WHEN b.status = 'cancelled' THEN b.cancelled_at
            ELSE b.paid_at END BETWEEN :since AND :until)
"""
_CASES = text(
    f"SELECT b.* {_DIFFERING} ORDER BY (b.double_of IS NULL), (b.paid_at < :month_begins),"
    " b.paid_at, b.imp_uid LIMIT :most"
)
_OWNER = text(
    "SELECT s.id, s.customer_uid, l.month, l.named FROM ledger l"
    " LEFT JOIN subscriptions s ON s.id = l.subscription_id WHERE l.imp_uid = :imp_uid"
)
_HOW_MANY = text(f"SELECT count(*) {_DIFFERING}")
# Paid in our book on these days, and in none of the gateway's lists.
_UNSEEN = """
    FROM cycles c JOIN subscriptions s ON s.id = c.subscription_id
    WHERE c.paid_at BETWEEN :since AND :until
        AND NOT EXISTS (SELECT FROM ledger l WHERE l.imp_uid = c.paid_imp_uid)
"""
_MISSING = text(
    "SELECT c.id AS cycle_id, c.number AS cycle_number, c.status AS cycle_status, c.amount,"
    " c.paid_imp_uid, c.paid_merchant_uid, c.paid_at, s.id AS subscription_id, s.customer_uid,"
    f" s.status AS subscription_status {_UNSEEN} ORDER BY c.paid_at, c.id LIMIT :most"
)
_HOW_MANY_MISSING = text(f"SELECT count(*) {_UNSEEN}")
_COUNTS = text(
    """
    SELECT count(*) FILTER (WHERE status = 'paid' AND subscription_id IS NOT NULL) AS paid,
        coalesce(sum(amount) FILTER (WHERE status = 'paid' AND subscription_id IS NOT NULL), 0)
            AS paid_won,
        count(*) FILTER (WHERE status = 'cancelled' AND subscription_id IS NOT NULL) AS cancelled,
        count(*) FILTER (WHERE subscription_id IS NULL) AS not_ours
    FROM ledger WHERE paid_at BETWEEN :since AND :until
    """
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is compared: from one moment to another, as this installation sees it."""

    since: datetime
    until: datetime
    # The first moment of the current calendar month: what is refundable comes first.
    month_begins: datetime
    zone: ZoneInfo
    prefix: str
    sandbox: bool


@dataclass(frozen=True, slots=True)
class PaidInBook:
    """A cycle that our book counts as paid, and that the gateway's lists do not show."""

    imp_uid: str
    merchant_uid: str
    paid_at: datetime
    book: BookSide


@dataclass(frozen=True, slots=True)
class Compared:
    """What the database found to differ, up to a limit, and how much there was in all."""

    cases: Sequence[Case]
    unseen: Sequence[PaidInBook]
    beyond: int
    counts: dict[str, int]


def stage(session: Session, rows: Iterable[Sequence[Any]], scope: Scope) -> None:
    """Stream the ledger's rows in and lay them beside the book. To be called in a snapshot: a
    payment counted between two of these statements would look like a second one."""
    take_time(session)
    session.execute(_STAGE)
    copy_rows(session, _COPY, rows)
    form = f"^{scope.prefix}-[a-z2-7]{{16}}-[0-9]{{6}}-[0-9]{{2}}$"
    session.execute(text("ANALYZE staged_payments"))
    session.execute(_LEDGER, {"our_form": form, "zone": scope.zone.key})
    session.execute(text("ANALYZE ledger"))
    session.execute(_BESIDE, {"sandbox": scope.sandbox})
    session.execute(text("CREATE INDEX ON ledger (imp_uid)"))


def compare(session: Session, scope: Scope, most: int) -> Compared:
    """What differs between what was staged and the book, `most` of each kind of look."""
    span = {"since": scope.since, "until": scope.until}
    asked = {**span, "sandbox": scope.sandbox}
    cases = differing(session, scope, most)
    unseen = [_paid_in_book(row) for row in session.execute(_MISSING, {**span, "most": most})]
    found = len(cases) + len(unseen)
    total = session.execute(_HOW_MANY, asked).scalar_one()
    total += session.execute(_HOW_MANY_MISSING, span).scalar_one()
    counts = session.execute(_COUNTS, span).one()._mapping
    return Compared(cases, unseen, total - found, {name: int(n) for name, n in counts.items()})


def differing(session: Session, scope: Scope, most: int) -> list[Case]:
    """What was staged and does not simply match the book."""
    asked = {
        "since": scope.since,
        "until": scope.until,
        "sandbox": scope.sandbox,
        "month_begins": scope.month_begins,
        "most": most,
    }
    return [_case(row) for row in session.execute(_CASES, asked)]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a staged payment is; `named` says that its merchant_uid has our form."""

    subscription_id: int | None
    customer_uid: str | None = field(repr=False)
    month: date
    named: bool


def owner(session: Session, imp_uid: str) -> Owner | None:
    """Whose this staged payment is; None where it was never paid."""
    row = session.execute(_OWNER, {"imp_uid": imp_uid}).one_or_none()
    return None if row is None else Owner(row.id, row.customer_uid, row.month, row.named)


def _case(row: Row[Any]) -> Case:
    payment = Payment(
        imp_uid=row.imp_uid,
        merchant_uid=row.merchant_uid,
        status=row.status,
        amount=Won(row.amount),
        customer_uid=row.customer_uid,
        paid_at=row.paid_at,
        cancelled_at=row.cancelled_at,
        cancelled_amount=Won(row.cancelled_amount),
        pay_method=row.pay_method,
        currency=row.currency,
        sandbox=row.sandbox,
        customer_uid_usage=row.customer_uid_usage,
    )
    return Case(payment, _book_side(row), row.named, row.double_of)


def _book_side(row: Row[Any]) -> BookSide | None:
    if row.subscription_id is None:
        return None
    return BookSide(
        subscription_id=row.subscription_id,
        customer_uid=row.owner_uid,
        subscription_status=row.owner_status,
        amount=Won(row.owner_amount),
        initial=row.initial,
        first_month=row.month == row.anchor_month,
        cycle_id=row.cycle_id,
        cycle_number=row.cycle_number,
        cycle_status=row.cycle_status,
        coming=row.coming and row.cycle_id is None,
        month_stands=row.month_stands,
        in_flight=row.in_flight,
        counted=row.counted_id is not None,
        counted_as=row.counted_as,
        attempt_status=row.attempt_status,
    )


def _paid_in_book(row: Row[Any]) -> PaidInBook:
    book = BookSide(
        subscription_id=row.subscription_id,
        customer_uid=row.customer_uid,
        subscription_status=row.subscription_status,
        amount=Won(row.amount),
        cycle_id=row.cycle_id,
        cycle_number=row.cycle_number,
        cycle_status=row.cycle_status,
        counted=True,
        counted_as=row.paid_merchant_uid,
    )
    return PaidInBook(row.paid_imp_uid, row.paid_merchant_uid, row.paid_at, book)


# -- the days of a proof ------------------------------------------------------------------------

# Ours, of a month that is ours to charge, taken on the day: whatever became of it since.
_LEDGER_PAID = text(
    """
    SELECT imp_uid, merchant_uid, amount FROM beside
    WHERE status IN ('paid', 'cancelled')
        AND sandbox = :sandbox AND month >= first_month
        AND paid_at >= :since AND paid_at < :until
    ORDER BY imp_uid COLLATE "C"
    """
)
_LEDGER_CANCELLED = text(
    """
    SELECT imp_uid, merchant_uid, amount FROM beside
    WHERE subscription_id IS NOT NULL AND status = 'cancelled' AND sandbox = :sandbox
        AND cancelled_at >= :since AND cancelled_at < :until
    ORDER BY imp_uid COLLATE "C"
    """
)
_BOOK_PAID = text(
    """
    SELECT paid_imp_uid AS imp_uid, paid_merchant_uid AS merchant_uid, amount FROM cycles
    WHERE paid_at >= :since AND paid_at < :until
    ORDER BY paid_imp_uid COLLATE "C"
    """
)
_BOOK_CANCELLED = text(
    """
    SELECT imp_uid, merchant_uid, amount FROM refunds
    WHERE status = 'done' AND cancelled_at >= :since AND cancelled_at < :until
    ORDER BY imp_uid COLLATE "C"
    """
)
SIDES = {
    "ledger paid": _LEDGER_PAID,
    "book paid": _BOOK_PAID,
    "ledger cancelled": _LEDGER_CANCELLED,
    "book cancelled": _BOOK_CANCELLED,
}


def side(
    session: Session, name: str, since: datetime, until: datetime, *, sandbox: bool
) -> Iterator[tuple[str, str, int]]:
    """One side of a day, of `SIDES`, as (imp_uid, merchant_uid, amount) in order of the ids."""
    statement = SIDES[name]
    asked: dict[str, Any] = {"since": since, "until": until}
    if name.startswith("ledger"):
        asked["sandbox"] = sandbox
    rows = session.execute(statement, asked, execution_options={"yield_per": 1000})
    yield from ((row.imp_uid, row.merchant_uid, row.amount) for row in rows)


# -- keys to ask about schedules ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """A billing key that goes on being charged."""

    subscription_id: int
    customer_uid: str


# Keys that are charged soon are asked about in so many parts, each day another.
PARTS = 7


@dataclass(frozen=True, slots=True)
class Share:
    """Which of the keys that are charged soon a run asks about."""

    # Those that are charged earlier than this.
    before: datetime
    # Of those the ones of these parts (0 to 6).
    parts: Sequence[int]
    # Of those again all, or one in so `many`: another each month.
    many: int = 1


_TOLD = text(
    """
    SELECT id, customer_uid FROM subscriptions
    WHERE id IN (
        SELECT subscription_id FROM ledger_differences
        WHERE resolved_at IS NULL AND kind = :kind
    )
    ORDER BY id LIMIT :most
    """
)
_HOW_MANY_SOON = text(
    """
    SELECT count(*) FROM (
        SELECT 1 FROM subscriptions WHERE status = 'active' AND next_due_at < :before
        ORDER BY next_due_at LIMIT :most
    ) AS soon
    """
)
_NEAREST = text(
    """
    SELECT id, customer_uid FROM subscriptions WHERE status = 'active'
    ORDER BY next_due_at, id LIMIT :most
    """
)
_SOON = text(
    """
    SELECT id, customer_uid FROM subscriptions
    WHERE status = 'active' AND next_due_at < :before AND id % :of = ANY(:parts)
        AND (id / :of + CAST(12 * extract(year FROM next_due_at) + extract(month FROM next_due_at)
            AS integer)) % :many = 0
    ORDER BY next_due_at, id LIMIT :most
    """
)


def keys_to_ask(session: Session, share: Share, few: int, most: int) -> list[Key]:
    """First the keys of which a schedule was told, active or not: is it gone? Then active ones, the
    next to be charged first: `few` of them, where no more than that are charged soon; else the
    `share` of those that are, at most `most`."""
    told = session.execute(_TOLD, {"kind": DifferenceKind.SCHEDULED, "most": few})
    keys = [Key(row.id, row.customer_uid) for row in told]
    soon = session.execute(_HOW_MANY_SOON, {"before": share.before, "most": few + 1})
    if soon.scalar_one() <= few:
        rows = session.execute(_NEAREST, {"most": few})
    else:
        asked = {**asdict(share), "parts": list(share.parts), "of": PARTS, "most": most}
        rows = session.execute(_SOON, asked)
    return list(dict.fromkeys([*keys, *(Key(row.id, row.customer_uid) for row in rows)]))


def active_keys(session: Session) -> int:
    """How many keys are charged at all."""
    counted = session.execute(text("SELECT count(*) FROM subscriptions WHERE status = 'active'"))
    return int(counted.scalar_one())
