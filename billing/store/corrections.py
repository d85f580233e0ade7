"""The one statement that changes the facts of a subscription, and what may stand in its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from billing.domain.cycle import CycleStatus
from billing.domain.subscription import Facts
from billing.store.tables import Cycle

# One statement, since the amount of a month is its subscription's at the end of every one (foreign
# key). Never that of a month with a payment; the key then refuses the whole.
_WRITE = text(
    """
    WITH months AS (
        UPDATE cycles SET amount = :amount
        WHERE subscription_id = :id AND status NOT IN ('paid', 'refunded')
    ), people AS (
        INSERT INTO buyers (subscription_id, name, email, tel)
        VALUES (:id, :buyer_name, :buyer_email, :buyer_tel)
        ON CONFLICT (subscription_id) DO UPDATE
            SET name = excluded.name, email = excluded.email, tel = excluded.tel
    )
    UPDATE subscriptions SET customer_uid = :customer_uid, amount = :amount,
        order_name = :order_name, anchor_on = :anchor_on, initial_paid_at = :initial_paid_at,
        seal = :seal
    WHERE id = :id
    """
)


@dataclass(frozen=True, slots=True)
class Month:
    """One month of a subscription, as far as its facts decide what it is."""

    number: int
    month: date
    amount: int
    status: str


def months_of(session: Session, subscription_id: int) -> Sequence[Month]:
    """Every month that the book has of a subscription, in order."""
    query = select(Cycle.number, Cycle.month, Cycle.amount, Cycle.status)
    mine = query.where(Cycle.subscription_id == subscription_id).order_by(Cycle.number)
    return [Month(*row) for row in session.execute(mine)]


def has_payment(month: Month) -> bool:
    """Whether money was taken for it, given back or not."""
    return month.status in (CycleStatus.PAID, CycleStatus.REFUNDED)


def write(
    session: Session, subscription_id: int, facts: Facts, anchor_on: date, seal: bytes
) -> None:
    """Write facts with their seal. The database allows it only where the event line that tells of
    it was written before, in the same transaction."""
    session.execute(
        _WRITE,
        {
            "id": subscription_id,
            "customer_uid": facts.customer_uid,
            "amount": facts.amount.amount,
            "order_name": facts.order_name,
            "anchor_on": anchor_on,
            "initial_paid_at": facts.initial_paid_at,
            "seal": seal,
            "buyer_name": facts.buyer_name,
            "buyer_email": facts.buyer_email,
            "buyer_tel": facts.buyer_tel,
        },
    )
