"""What tests plant in a book past everything that guards it, as somebody with too many rights
could: statements for `text`, with `:now`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import text

from billing.domain.policy import BillingPolicy
from billing.services.open_cycles import open_cycles
from billing.store.session import Book, Transaction
from tests.builders import a_row, as_owner, enrolled, execute, query

TABLES = ("subscriptions", "cycles", "attempts", "events", "refunds", "event_archives")


def unguarded(book: Book) -> None:
    """Take away what refuses a row: checks, uniqueness, triggers, foreign keys."""
    constraints = query(
        book,
        "SELECT conrelid::regclass, conname FROM pg_constraint WHERE contype IN ('c', 'u')"
        " AND conrelid::regclass::text = ANY(:tables)",
        tables=list(TABLES),
    )
    for table, name in constraints:
        execute(book, f'ALTER TABLE {table} DROP CONSTRAINT "{name}" CASCADE')
    unique = "SELECT indexrelid::regclass FROM pg_index WHERE indisunique AND NOT indisprimary"
    for (name,) in query(book, f"{unique} AND indrelid::regclass::text = ANY(:t)", t=list(TABLES)):
        execute(book, f"DROP INDEX {name}")
    for table in (*TABLES, "buyers"):
        execute(book, f"ALTER TABLE {table} DISABLE TRIGGER ALL")


def numbered_apart(book: Book, policy: BillingPolicy, *initial_days: str) -> None:
    """Subscribers from 1 on, who registered on these days and of whom three are due: theirs are the
    open cycles 11 to 13 and the due attempts 21 to 23. Nothing guards the book any more."""
    execute(book, "ALTER TABLE cycles ALTER id RESTART 11")
    execute(book, "ALTER TABLE attempts ALTER id RESTART 21")
    rows = (a_row(at, f"{day}T09:00:00+09:00") for at, day in enumerate(initial_days, 1))
    enrolled(book, policy, *rows)
    assert open_cycles(book, policy) == 3
    unguarded(book)


def plant(tx: Transaction, now: datetime, statements: Iterable[str]) -> None:
    with as_owner(tx):
        for statement in statements:
            tx.session.execute(text(statement), {"now": now} if ":now" in statement else {})


def settled(attempt: int, status: str) -> str:
    decline_class = "'not_today'" if status == "declined" else "NULL"
    return (
        f"UPDATE attempts SET status = '{status}', settled_at = :now, sent_at = :now,"
        f" imp_uid = 'imp_{attempt}', decline_class = {decline_class} WHERE id = {attempt}"
    )


def one_more(attempt: int, cycle: int, status: str = "due", sent_at: str = ":now") -> str:
    """Another attempt of a cycle, under a number of its own."""
    return (
        "INSERT INTO attempts (id, cycle_id, number, merchant_uid, status, closes_at, planned_at,"
        " ready_at, sent_at, settled_at, decline_class) OVERRIDING SYSTEM VALUE"
        f" SELECT {attempt}, {cycle}, {attempt}, 'mw-{attempt}', '{status}', :now, :now, :now,"
        f" {sent_at}, :now, 'not_today'"
    )


def paid(cycle: int, attempt: int, status: str = "paid") -> str:
    """A cycle that is paid by this attempt."""
    return (
        f"UPDATE cycles SET status = '{status}', settled_at = :now, paid_at = :now,"
        f" paid_imp_uid = 'imp_{attempt}', paid_merchant_uid = a.merchant_uid"
        f" FROM attempts a WHERE a.id = {attempt} AND cycles.id = {cycle}"
    )


def refund(attempt: int, status: str) -> str:
    """A refund of what paid this attempt."""
    return (
        "INSERT INTO refunds (subscription_id, imp_uid, merchant_uid, amount, breaks_chain,"
        f" refund_by, reason, status, requested_at) VALUES (1, 'imp_{attempt}', 'mw', 1, false,"
        f" :now, 'x', '{status}', :now)"
    )
