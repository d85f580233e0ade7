"""A book of any size, made inside PostgreSQL: what a merchant's looks like at 10:00 on 20 November.

Anchors are spread over the days 1 to 28 of October. Whose day has passed in November has been paid,
but for some that wait for their next try, some whose answer was lost, and some whose window closed
unpaid; whose day is the 20th is due now. Seals are not real: nothing of this is ever charged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from billing.store import schema
from billing.store.session import Book, Transaction, create_book_engine

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)

# Shares of the subscribers of one day, as one in so many.
_PAUSED = 50
_WAITING = 20  # declined, the next try is at 18:00
_CLOSED = 200  # declined to the end; the window is over
_LOST = 1000  # no answer; to be asked about

_SUBSCRIPTIONS = """
INSERT INTO subscriptions (customer_uid, status, amount, order_name, anchor_on, initial_paid_at,
    seal, tag, enrolled_at, next_cycle, next_due_at, next_closes_at)
SELECT 'customer-' || i, CASE WHEN i % {paused} = 7 THEN 'paused' ELSE 'active' END, 9900, 'plan',
    date '2026-10-01' + day - 1, timestamptz '2026-10-01 03:00Z' + (day - 1) * interval '1 day',
    decode(md5(i::text), 'hex'), substr(md5(i::text), 1, 16), now(),
    CASE WHEN passed THEN 2 ELSE 1 END,
    timestamptz '2026-11-01 01:00Z' + (day - 1) * interval '1 day'
        + CASE WHEN passed THEN interval '30 days' ELSE interval '0' END,
    timestamptz '2026-11-01 15:00Z' + least(day + 4, 29) * interval '1 day'
        + CASE WHEN passed THEN interval '30 days' ELSE interval '0' END
FROM generate_series(1, {count}) i, LATERAL (SELECT 1 + i % 28) d(day),
    LATERAL (SELECT day < 20) p(passed)
"""
_STATE = """
CREATE TEMP TABLE state AS
SELECT id, extract(day FROM anchor_on)::int AS day, CASE
    WHEN status = 'paused' THEN 'paid'
    WHEN extract(day FROM anchor_on) BETWEEN 15 AND 19 AND id % {waiting} = 1 THEN 'waiting'
    WHEN extract(day FROM anchor_on) BETWEEN 15 AND 19 AND id % {lost} = 2 THEN 'lost'
    WHEN extract(day FROM anchor_on) = 14 AND id % {closed} = 5 THEN 'closed'
    ELSE 'paid' END AS state
FROM subscriptions WHERE extract(day FROM anchor_on) < 20
"""
_CYCLES = """
INSERT INTO cycles (subscription_id, number, month, amount, due_on, opens_on, closes_on,
    band_opens_at, last_start_at, closes_at, status, opened_at, settled_at, paid_imp_uid,
    paid_merchant_uid, paid_at)
SELECT id, 1, '2026-11-01', 9900, date '2026-10-31' + day,
    date '2026-10-31' + greatest(day - 5, 1), date '2026-10-31' + day + 5,
    timestamptz '2026-10-31 15:00Z' + (day - 1) * interval '1 day',
    timestamptz '2026-11-01 14:30Z' + (day + 4) * interval '1 day',
    timestamptz '2026-11-01 15:00Z' + (day + 4) * interval '1 day',
    CASE WHEN state = 'paid' THEN 'paid' ELSE 'open' END, now(),
    CASE WHEN state = 'paid' THEN now() END, CASE WHEN state = 'paid' THEN 'imp_' || id END,
    CASE WHEN state = 'paid' THEN 'mw-' || id || '-1' END, CASE WHEN state = 'paid' THEN
        timestamptz '2026-11-01 01:00Z' + (day - 1) * interval '1 day'
            + id % 5000 * interval '1 second' END
FROM state
"""
_ATTEMPTS = """
INSERT INTO attempts (cycle_id, number, merchant_uid, status, closes_at, planned_at, ready_at,
    sent_at, settled_at, imp_uid, decline_class, provable_at, ask_at)
SELECT c.id, n, 'mw-' || s.id || '-' || n, a.status, c.closes_at, c.band_opens_at,
    CASE WHEN a.status = 'due' THEN timestamptz '2026-11-20 09:00Z' ELSE c.band_opens_at END,
    CASE WHEN a.status <> 'due' THEN c.band_opens_at END,
    CASE WHEN a.status IN ('approved', 'declined') THEN c.band_opens_at END,
    CASE WHEN a.status = 'approved' THEN 'imp_' || s.id END,
    CASE WHEN a.status = 'declined' THEN 'not_today' END,
    CASE WHEN a.status = 'unknown' THEN timestamptz '2026-11-20 00:00Z' END,
    CASE WHEN a.status = 'unknown' THEN timestamptz '2026-11-20 00:00Z' END
FROM state s JOIN cycles c ON c.subscription_id = s.id,
    generate_series(1, CASE WHEN state = 'waiting' THEN 2 ELSE 1 END) n, LATERAL (SELECT CASE
        WHEN state = 'paid' THEN 'approved' WHEN state = 'lost' THEN 'unknown'
        WHEN n = 2 THEN 'due' ELSE 'declined' END) a(status)
"""
_EVENTS = """
INSERT INTO events (at, kind, subscription_id, cycle_id, attempt_id)
SELECT now(), kind, c.subscription_id, c.id, a.id
FROM attempts a JOIN cycles c ON c.id = a.cycle_id,
    LATERAL (VALUES ('cycle.opened', NULL), ('attempt.' || a.status, 1),
        (CASE WHEN c.status = 'paid' THEN 'cycle.paid' END, 1)) k(kind, x)
WHERE kind IS NOT NULL
"""
# Claimed by a worker that died: its lease is over.
_STUCK = """
UPDATE attempts SET status = 'sending', fence = 1, sent_at = planned_at,
    lease_until = timestamptz '2026-11-20 00:30Z'
WHERE status = 'due' AND hashint8(id) % {one_in} = 0
"""


class _RolledBack(Exception):
    """Leaves a transaction as if it had never been."""


@contextmanager
def undone(book: Book) -> Iterator[Transaction]:
    """A transaction of which nothing is kept."""
    try:
        with book.transaction() as tx:
            yield tx
            raise _RolledBack
    except _RolledBack:
        return


def made(server: str, size: int) -> Engine:
    """A new database on this server, with a book of so many subscribers."""
    url = empty(server, f"book_{size}")
    fill(url, size)
    return create_book_engine(url)


def empty(server: str, name: str) -> str:
    """The address of a new database on this server, with an empty, migrated book."""
    admin = create_book_engine(server)
    # CREATE DATABASE runs in no transaction.
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    engine = create_book_engine(url)
    schema.upgrade(engine)
    engine.dispose()
    return url


def fill(database_url: str, count: int) -> None:
    """Fill an empty, migrated book. By a superuser, since checks of foreign keys are left out."""
    shares = {"count": count, "paused": _PAUSED, "waiting": _WAITING, "closed": _CLOSED}
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET maintenance_work_mem = '256MB'")
        for statement in (_SUBSCRIPTIONS, _STATE, _CYCLES, _ATTEMPTS, _EVENTS):
            connection.execute(statement.format(**shares, lost=_LOST))
        connection.execute("VACUUM ANALYZE")


def leave_claimed(database_url: str, one_in: int) -> None:
    """Of the attempts that wait, leave one in so many as a worker that died has left it."""
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(_STUCK.format(one_in=one_in))
        connection.execute("VACUUM ANALYZE attempts")
