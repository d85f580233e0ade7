"""Queries on subscriptions: bringing them in, finding one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from billing.domain.delivery import TRIED_FOR
from billing.store.session import copy_rows
from billing.store.tables import Subscription

STAGED_COLUMNS = (
    "line",
    "customer_uid",
    "amount",
    "order_name",
    "anchor_on",
    "initial_paid_at",
    "seal",
    "tag",
    "initial_merchant_uid",
    "initial_imp_uid",
    "last_paid_on",
    "reference",
    "next_cycle",
    "next_due_at",
    "next_closes_at",
    "buyer_name",
    "buyer_email",
    "buyer_tel",
)

_STAGE = text(
    """
    CREATE TEMP TABLE staged (
        line bigint, customer_uid text, amount bigint, order_name text, anchor_on date,
        initial_paid_at timestamptz, seal bytea, tag text, initial_merchant_uid text,
        initial_imp_uid text, last_paid_on date, reference text, next_cycle bigint,
        next_due_at timestamptz, next_closes_at timestamptz,
        buyer_name text, buyer_email text, buyer_tel text
    ) ON COMMIT DROP
    """
)
_COPY = f"COPY staged ({', '.join(STAGED_COLUMNS)}) FROM STDIN"
# A million lines, or the gateway asked about each, take longer than any other transaction may.
_TAKE_TIME = text(
    """
    SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true),
        set_config('idle_in_transaction_session_timeout', '0', true)
    """
)
# The seal covers amount, anchor, order name and buyer data: the same seal, the same facts.
_DROP_CHANGED_IN_BOOK = text(
    """
    WITH dropped AS (
        DELETE FROM staged s USING subscriptions b
        WHERE s.customer_uid = b.customer_uid AND s.seal <> b.seal
        RETURNING s.line, s.customer_uid, s.amount, b.amount AS known_amount,
            s.amount <> b.amount AS amount_differs, s.anchor_on, b.anchor_on AS known_anchor_on,
            s.anchor_on <> b.anchor_on AS anchor_differs
    )
    SELECT *, count(*) OVER () AS total FROM dropped ORDER BY line LIMIT :most
    """
)
# Two lines of one file must agree in everything: nobody could say which of them is meant.
_DROP_CHANGED_IN_FILE = text(
    """
    WITH dropped AS (
        DELETE FROM staged s USING (
            SELECT DISTINCT ON (customer_uid) * FROM staged ORDER BY customer_uid, line
        ) f
        WHERE s.customer_uid = f.customer_uid AND s.line <> f.line
            AND (s.seal, s.initial_merchant_uid, s.initial_imp_uid, s.last_paid_on, s.reference)
            IS DISTINCT FROM
            (f.seal, f.initial_merchant_uid, f.initial_imp_uid, f.last_paid_on, f.reference)
        RETURNING s.line, s.customer_uid, f.line AS first_line
    )
    SELECT *, count(*) OVER () AS total FROM dropped ORDER BY line LIMIT :most
    """
)
_INSERT = text(
    """
    WITH fresh AS (
        INSERT INTO subscriptions (customer_uid, status, amount, order_name, anchor_on,
            initial_paid_at, seal, tag, initial_merchant_uid, initial_imp_uid, last_paid_on,
            reference, enrolled_at, next_cycle, next_due_at, next_closes_at)
        SELECT DISTINCT ON (customer_uid) customer_uid, 'active', amount, order_name, anchor_on,
            initial_paid_at, seal, tag, initial_merchant_uid, initial_imp_uid, last_paid_on,
            reference, :now, next_cycle, next_due_at, next_closes_at
        FROM staged ORDER BY customer_uid, line
        ON CONFLICT (customer_uid) DO NOTHING
        RETURNING id, customer_uid, next_cycle, next_due_at, amount, anchor_on
    ), people AS (
        INSERT INTO buyers (subscription_id, name, email, tel)
        SELECT DISTINCT ON (f.id) f.id, s.buyer_name, s.buyer_email, s.buyer_tel
        FROM fresh f JOIN staged s USING (customer_uid) ORDER BY f.id, s.line
    ), told AS (
        INSERT INTO events (at, kind, subscription_id, data)
        SELECT :now, 'subscription.enrolled', id, jsonb_build_object('first_cycle', next_cycle)
        FROM fresh
    ), sent AS (
        INSERT INTO notices (subscription_id, kind, data, created_at, next_try_at, give_up_at)
        SELECT id, 'subscription.enrolled', jsonb_build_object(
                'amount', amount, 'currency', 'KRW', 'anchor_on', anchor_on,
                'first_cycle', next_cycle, 'first_due_at',
                to_char(next_due_at AT TIME ZONE 'Asia/Seoul', 'YYYY-MM-DD"T"HH24:MI:SS+09:00')),
            :now, :now, :give_up_at
        FROM fresh WHERE :notify
    )
    SELECT count(*) FROM fresh
    """
)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Staged lines that were dropped: the first of them in order, and how many in all."""

    rows: Sequence[Any]
    total: int


def take_time(session: Session) -> None:
    """Lift the time limits that `create_book_engine` sets, for this transaction alone."""
    session.execute(_TAKE_TIME)


def stage(session: Session, rows: Iterable[Sequence[Any]]) -> None:
    """Stream rows into a table of this transaction's own."""
    session.execute(_STAGE)
    copy_rows(session, _COPY, rows)
    session.execute(text("ANALYZE staged"))


def drop_changed_in_book(session: Session, most: int) -> Dropped:
    """Drop staged lines whose facts contradict a subscription that is there already."""
    return _dropped(session.execute(_DROP_CHANGED_IN_BOOK, {"most": most}).all())


def drop_changed_in_file(session: Session, most: int) -> Dropped:
    """Drop staged lines that contradict the first line of the same customer."""
    return _dropped(session.execute(_DROP_CHANGED_IN_FILE, {"most": most}).all())


def _dropped(rows: Sequence[Any]) -> Dropped:
    return Dropped(rows, int(rows[0].total) if rows else 0)


def insert_staged(session: Session, now: datetime, *, notify: bool = False) -> int:
    """Enrol what is staged and new, with buyer data and event lines and, when wanted, a notice
    each (as `notice.Enrolled`); returns how many."""
    values = {"now": now, "notify": notify, "give_up_at": now + TRIED_FOR}
    return int(session.execute(_INSERT, values).scalar_one())


def found(session: Session, customer_uid: str) -> Subscription | None:
    """One subscription, to read."""
    return session.execute(
        select(Subscription).where(Subscription.customer_uid == customer_uid)
    ).scalar_one_or_none()


def begun_by(session: Session, imp_uid: str) -> Subscription | None:
    """The one subscription that this payment registered, as far as the book says so."""
    query = select(Subscription).where(Subscription.initial_imp_uid == imp_uid).limit(2)
    found = session.execute(query).scalars().all()
    # An imported file may claim one payment for two customers; the gateway knows whose it is.
    return found[0] if len(found) == 1 else None


def locked(session: Session, customer_uid: str) -> Subscription | None:
    """One subscription, locked until the transaction ends."""
    return session.execute(
        select(Subscription).where(Subscription.customer_uid == customer_uid).with_for_update()
    ).scalar_one_or_none()


def lock(session: Session, subscription_id: int) -> None:
    """Lock one until the transaction ends."""
    session.execute(
        select(Subscription.id).where(Subscription.id == subscription_id).with_for_update()
    )


def follower_of(session: Session, subscription_id: int) -> int | None:
    """The id of the subscription that goes on from this one."""
    query = select(Subscription.id).where(Subscription.previous_id == subscription_id)
    return session.execute(query).scalar_one_or_none()
