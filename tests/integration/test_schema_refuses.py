"""What the schema itself refuses, whoever asks: changed facts, edited events, reopened ends."""

from __future__ import annotations

from itertools import product

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from billing.domain.attempt import ATTEMPT_TRANSITIONS, AttemptStatus
from billing.domain.cycle import CYCLE_TRANSITIONS, CycleStatus
from billing.domain.errors import TransitionRefused
from billing.domain.policy import BillingPolicy
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.builders import a_row, as_owner, enrolled, execute, query

# Every column of the facts, and a value that it does not have.
FACTS = {
    "customer_uid": "'somebody else'",
    "amount": "amount + 1",
    "order_name": "'another plan'",
    "anchor_on": "anchor_on + 1",
    "initial_paid_at": "initial_paid_at + interval '1 second'",
    "seal": "'\\x00'::bytea",
}
BUYER = {"name": "'김철수'", "email": "'a@example.com'", "tel": "NULL"}


@pytest.fixture
def opened(book: Book, policy: BillingPolicy) -> Book:
    enrolled(book, policy, a_row(1))
    assert open_cycles(book, policy) == 1
    return book


@pytest.mark.parametrize(("column", "value"), FACTS.items())
def test_a_fact_cannot_be_changed(
    book: Book, policy: BillingPolicy, column: str, value: str
) -> None:
    """With no cycle there, so that no foreign key refuses in the trigger's place."""
    enrolled(book, policy, a_row(1))
    before = query(book, "SELECT * FROM subscriptions")
    with pytest.raises(DBAPIError, match="never changed"):
        execute(book, f"UPDATE subscriptions SET {column} = {value}")
    assert query(book, "SELECT * FROM subscriptions") == before


@pytest.mark.parametrize(("column", "value"), BUYER.items())
def test_buyer_data_cannot_be_changed(opened: Book, column: str, value: str) -> None:
    with pytest.raises(DBAPIError, match="never changed"):
        execute(opened, f"UPDATE buyers SET {column} = {value}")


def _told(kind: str, subscription: int) -> str:
    return (
        f"INSERT INTO events (at, kind, subscription_id) VALUES (now(), '{kind}', {subscription});"
    )


def test_a_correction_is_written_down_before_it_is_made(book: Book, policy: BillingPolicy) -> None:
    """In the same transaction, and for the same subscription: no fact changes without a trace."""
    enrolled(book, policy, a_row(1), a_row(2))
    changes = (
        "UPDATE subscriptions SET order_name = 'right' WHERE id = 1",
        "UPDATE buyers SET name = 'right' WHERE subscription_id = 1",
    )
    for change in changes:
        for line in (_told("subscription.corrected", 2), _told("subscription.enrolled", 1)):
            with pytest.raises(DBAPIError, match="never changed"):
                execute(book, line + change)
        execute(book, _told("subscription.corrected", 1) + change)
        with pytest.raises(DBAPIError, match="never changed"):
            execute(book, change.replace("right", "wrong"))
    assert query(
        book,
        "SELECT order_name, name FROM subscriptions JOIN buyers ON id = 1"
        " WHERE id = subscription_id",
    ) == [("right", "right")]


def test_what_is_no_fact_can_be_changed(opened: Book) -> None:
    """The triggers guard the facts, not the row."""
    execute(opened, "UPDATE subscriptions SET status = 'paused', next_cycle = 7, reference = 'r'")
    assert query(opened, "SELECT status, next_cycle FROM subscriptions") == [("paused", 7)]


def test_the_amount_of_a_cycle_is_that_of_its_subscription(opened: Book) -> None:
    with pytest.raises(DBAPIError, match="fk_cycles_subscriptions"):
        execute(opened, "UPDATE cycles SET amount = amount + 1")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET kind = 'nothing happened'",
        "UPDATE events SET data = '{}'",
        "DELETE FROM events",
    ],
)
def test_events_are_only_ever_added(opened: Book, statement: str) -> None:
    before = query(opened, "SELECT count(*) FROM events")
    with pytest.raises(DBAPIError, match="only ever added"):
        execute(opened, statement)
    assert query(opened, "SELECT count(*) FROM events") == before


# What each status needs beside it, by the CHECK constraints.
ATTEMPT_FIELDS = {
    "due": "settled_at = NULL, decline_class = NULL",
    "sending": "settled_at = NULL, decline_class = NULL, lease_until = now(), sent_at = now()",
    "unknown": "settled_at = NULL, decline_class = NULL",
    "approved": "settled_at = now(), decline_class = NULL, imp_uid = 'imp_1'",
    "declined": "settled_at = now(), decline_class = 'x'",
    "withdrawn": "settled_at = now(), decline_class = NULL",
}
_PAID = "paid_imp_uid = 'imp_1', paid_merchant_uid = 'o', paid_at = now(), settled_at = now()"
_UNPAID = "paid_imp_uid = NULL, paid_merchant_uid = NULL, paid_at = NULL"
CYCLE_FIELDS = {
    "open": f"{_UNPAID}, settled_at = NULL, reason = NULL",
    "paid": _PAID,
    "refunded": _PAID,
    "missed": f"{_UNPAID}, settled_at = now(), reason = 'declined'",
    "skipped": f"{_UNPAID}, settled_at = now(), reason = 'paused'",
}


def _moves(book: Book, table: str, trigger: str, before: str, after: str) -> bool:
    """Put the row into a status, by switching its trigger off, and try to move it with it on."""
    with book.transaction() as tx, as_owner(tx):
        tx.session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}"))
        tx.session.execute(text(f"UPDATE {table} SET {before}"))
        tx.session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER {trigger}"))
    try:
        execute(book, f"UPDATE {table} SET {after}")
    except DBAPIError as error:
        if "cannot become" not in str(error.orig):
            raise
        return False
    return True


def test_cycles_move_exactly_as_the_domain_says(opened: Book) -> None:
    def row(status: str) -> str:
        return f"status = '{status}', {CYCLE_FIELDS[status]}"

    for old, new in product(CycleStatus, CycleStatus):
        if old is new:
            continue
        moved = _moves(opened, "cycles", "cycles_end_once", row(old), row(new))
        assert moved == _allowed(CYCLE_TRANSITIONS, old, new), (old, new)


def test_attempts_that_ended_stay_as_they_are(opened: Book) -> None:
    """The schema is content with any move of a live attempt; the domain's table is narrower."""

    def row(status: str) -> str:
        return f"status = '{status}', {ATTEMPT_FIELDS[status]}"

    ended = (AttemptStatus.APPROVED, AttemptStatus.DECLINED, AttemptStatus.WITHDRAWN)
    for old, new in product(ended, AttemptStatus):
        if old is not new:
            assert not _moves(opened, "attempts", "attempts_end_once", row(old), row(new)), (
                old,
                new,
            )
            assert not _allowed(ATTEMPT_TRANSITIONS, old, new)
    assert _moves(opened, "attempts", "attempts_end_once", row("sending"), row("approved"))


def _allowed(table: object, old: object, new: object) -> bool:
    try:
        table.check(old, new)  # type: ignore[attr-defined]
    except TransitionRefused:
        return False
    return True


@pytest.mark.parametrize(
    ("constraint", "statement"),
    [
        ("uq_cycles_subscription_id_month", "number = 2"),
        ("uq_cycles_subscription_id_number", "month = '2026-12-01'"),
    ],
)
def test_a_month_has_one_cycle(opened: Book, constraint: str, statement: str) -> None:
    columns = "subscription_id, amount, due_on, opens_on, closes_on, band_opens_at, last_start_at"
    number, month = ("2", "month") if "number" in statement else ("number", "date '2026-12-01'")
    dates = "due_on, opens_on, closes_on"
    if "month =" in statement:
        dates = ", ".join(f"{name} + 30" for name in ("due_on", "opens_on", "closes_on"))
    with pytest.raises(DBAPIError, match=constraint):
        execute(
            opened,
            f"INSERT INTO cycles ({columns}, closes_at, status, reason, settled_at, opened_at,"
            f" number, month) SELECT subscription_id, amount, {dates}, band_opens_at,"
            f" last_start_at, closes_at, 'skipped', 'paused', now(), now(), {number}, {month}"
            " FROM cycles",
        )
