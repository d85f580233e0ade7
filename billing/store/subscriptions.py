"""Queries on subscriptions: bringing them in, finding one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import psycopg
from sqlalchemy import select, text
from sqlalchemy.orm import Session

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
# The seal covers amount, anchor, order name and buyer data: the same seal, the same facts.
_CHANGED_IN_BOOK = text(
    """
    SELECT s.line, s.customer_uid, s.amount <> b.amount AS amount_differs, b.anchor_on,
        s.anchor_on <> b.anchor_on AS anchor_differs, b.amount
    FROM staged s JOIN subscriptions b USING (customer_uid)
    WHERE s.seal <> b.seal ORDER BY s.line
    """
)
_CHANGED_IN_FILE = text(
    """
    SELECT line, customer_uid, first_line FROM (
        SELECT line, customer_uid, seal,
            first_value(seal) OVER w AS first_seal, first_value(line) OVER w AS first_line
        FROM staged WINDOW w AS (PARTITION BY customer_uid ORDER BY line)
    ) f WHERE seal <> first_seal ORDER BY line
    """
)
_DROP_LINES = text("DELETE FROM staged WHERE line = ANY(:lines)")
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
        RETURNING id, customer_uid, next_cycle
    ), people AS (
        INSERT INTO buyers (subscription_id, name, email, tel)
        SELECT DISTINCT ON (f.id) f.id, s.buyer_name, s.buyer_email, s.buyer_tel
        FROM fresh f JOIN staged s USING (customer_uid) ORDER BY f.id, s.line
    ), told AS (
        INSERT INTO events (at, kind, subscription_id, data)
        SELECT :now, 'subscription.enrolled', id, jsonb_build_object('first_cycle', next_cycle)
        FROM fresh
    )
    SELECT count(*) FROM fresh
    """
)


def stage(session: Session, rows: Iterable[Sequence[Any]]) -> None:
    """Stream rows into a table of this transaction's own."""
    session.execute(_STAGE)
    connection: psycopg.Connection[Any] = session.connection().connection.driver_connection  # type: ignore[assignment]
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for row in rows:
            copy.write_row(row)
    session.execute(text("ANALYZE staged"))


def changed_in_book(session: Session) -> Sequence[Any]:
    """Staged lines whose facts contradict a subscription that is there already."""
    return session.execute(_CHANGED_IN_BOOK).all()


def changed_in_file(session: Session) -> Sequence[Any]:
    """Staged lines whose facts contradict an earlier line of the same customer."""
    return session.execute(_CHANGED_IN_FILE).all()


def drop_staged(session: Session, lines: Sequence[int]) -> None:
    session.execute(_DROP_LINES, {"lines": list(lines)})


def insert_staged(session: Session, now: datetime) -> int:
    """Enrol what is staged and new, with buyer data and event lines; returns how many."""
    return int(session.execute(_INSERT, {"now": now}).scalar_one())


def locked(session: Session, customer_uid: str) -> Subscription | None:
    """One subscription, locked until the transaction ends."""
    return session.execute(
        select(Subscription).where(Subscription.customer_uid == customer_uid).with_for_update()
    ).scalar_one_or_none()
