"""Names, addresses and numbers of people: in one table, and gone from it on request."""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.orm import Session

from billing.store.tables import BuyerData


def erase(session: Session, subscription_id: int) -> None:
    """Delete what is known of the person behind a subscription."""
    session.execute(delete(BuyerData).where(BuyerData.subscription_id == subscription_id))
