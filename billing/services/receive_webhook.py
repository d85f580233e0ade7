"""Keep what was announced; nothing of it is believed."""

from __future__ import annotations

from billing.domain.webhook import Announcement
from billing.store import webhooks
from billing.store.session import Book


def receive_webhook(book: Book, one: Announcement) -> bool:
    """Keep an announcement until `look_at_webhooks` has asked the gateway.

    False when too many wait already: whoever sent it may send it again, and reconciliation finds
    the payment anyway."""
    return book.run(lambda tx: webhooks.keep(tx.session, tx.now, one))
