"""Show a buyer's data to a person who asks for it, and write down that it was shown."""

from __future__ import annotations

from billing.domain.errors import NotFound
from billing.domain.payment import Buyer
from billing.store import dossier, events
from billing.store.session import Book, Transaction


def show_buyer(book: Book, subscription_id: int) -> Buyer:
    """The buyer data of a subscription. Raises `NotFound`, also when there is none."""

    def step(tx: Transaction) -> Buyer:
        row = dossier.buyer(tx.session, subscription_id)
        if row is None:
            raise NotFound("the book holds no buyer data of this subscription")
        events.add(tx.session, at=tx.now, kind="buyer.shown", subscription_id=subscription_id)
        return Buyer(row.name, row.email, row.tel)

    return book.run(step)
