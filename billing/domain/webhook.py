"""What the gateway, or anybody, announces; and what became of it when we had looked ourselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

# The gateway's words for the state of a payment.
STATUSES = frozenset({"ready", "paid", "cancelled", "failed"})

# "Not there" may mean "not there yet": looked at again so much later, then it is believed.
LOOK_AGAIN = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))

_OUR_FORM = re.compile(r"[A-Za-z0-9]{1,10}-[a-z2-7]{16}-[0-9]{6}-[0-9]{2}")


class WebhookOutcome(StrEnum):
    """What a look at the gateway came to."""

    # The book says the same, or the payment changes nothing in it.
    AGREES = "agrees"
    # One of our requests whose answer was lost: asked about and recorded.
    INQUIRED = "inquired"
    # A payment by hand, or a late one: counts as its month's.
    COUNTED = "counted"
    # Given back at the gateway: the month follows.
    REFUNDED = "refunded"
    # With one of our keys or names, and nothing that may be changed by itself: told.
    UNKNOWN_PAYMENT = "unknown_payment"
    # It bought a subscription on the checkout page, and its customer never came back.
    ENROLLED = "enrolled"
    # The store sells other things, too.
    STRANGER = "stranger"
    NOT_FOUND = "not_found"
    # Nothing could be made of what was found; the daily reconciliation sees the payment, too.
    FAILED = "failed"


# What tells nothing of our subscribers is not kept for long: anybody can make it.
OF_NO_INTEREST = (WebhookOutcome.STRANGER, WebhookOutcome.NOT_FOUND)


@dataclass(frozen=True, slots=True)
class Announcement:
    """One webhook, read. Only the id is of use; the rest says how soon to look."""

    imp_uid: str
    # Only where it has the form of ours: others' names may hold anything, also people's data.
    merchant_uid: str | None = None
    status: str | None = None


def announced(imp_uid: str, merchant_uid: object, status: object) -> Announcement:
    """What is kept of a webhook whose id is good."""
    named = isinstance(merchant_uid, str) and _OUR_FORM.fullmatch(merchant_uid) is not None
    known = isinstance(status, str) and status in STATUSES
    return Announcement(
        imp_uid, str(merchant_uid) if named else None, str(status) if known else None
    )
