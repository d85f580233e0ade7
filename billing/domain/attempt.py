"""PaymentAttempt: one request to the gateway for one cycle, numbered from 1."""

from __future__ import annotations

import hmac
import re
from base64 import b32encode
from datetime import date
from enum import StrEnum

from billing.domain.errors import InvalidSetting
from billing.domain.status import Transitions


class AttemptStatus(StrEnum):
    DUE = "due"
    SENDING = "sending"
    APPROVED = "approved"
    DECLINED = "declined"
    # The request may have left. Only asked about, never repeated before the gateway proved that
    # nothing was charged.
    UNKNOWN = "unknown"
    WITHDRAWN = "withdrawn"


# A cycle holds at most one attempt in these.
LIVE = frozenset({AttemptStatus.DUE, AttemptStatus.SENDING, AttemptStatus.UNKNOWN})

ATTEMPT_TRANSITIONS = Transitions(
    "attempt",
    {
        AttemptStatus.DUE: frozenset({AttemptStatus.SENDING, AttemptStatus.WITHDRAWN}),
        AttemptStatus.SENDING: frozenset(
            {
                AttemptStatus.APPROVED,
                AttemptStatus.DECLINED,
                AttemptStatus.UNKNOWN,
                AttemptStatus.DUE,
            }
        ),
        AttemptStatus.UNKNOWN: frozenset(
            {AttemptStatus.APPROVED, AttemptStatus.DECLINED, AttemptStatus.DUE}
        ),
        AttemptStatus.APPROVED: frozenset(),
        AttemptStatus.DECLINED: frozenset(),
        AttemptStatus.WITHDRAWN: frozenset(),
    },
)

# 80 bits: two of ten million customers share a tag with a chance of about 1 in 20 billion.
_TAG_CHARACTERS = 16
_PREFIX = re.compile(r"[A-Za-z0-9]{1,10}")
# What such a name may look like, also to the database.
MERCHANT_UID = "^[A-Za-z0-9_-]{4,40}$"
# A cycle can have at most this many attempts: two digits of the merchant_uid.
MAX_ATTEMPT_NUMBER = 99


def customer_tag(key: bytes, customer_uid: str) -> str:
    """A short keyed hash of a `customer_uid`, which may be a phone number at some merchants.

    Keyed, so that nobody can try all numbers; from the `customer_uid` and not from a row's id, so
    that a restored or re-imported book makes the same `merchant_uid`s and the gateway's "already
    paid" protects (docs/concepts.md, Attempt).
    """
    digest = hmac.digest(key, b"merchant_uid\0" + customer_uid.encode(), "sha256")
    return b32encode(digest).decode()[:_TAG_CHARACTERS].lower()


def merchant_uid(prefix: str, tag: str, month: date, number: int) -> str:
    """The gateway's name for one attempt: ASCII, at most 40 characters (docs/gateway.md §3)."""
    if not 1 <= number <= MAX_ATTEMPT_NUMBER:
        raise ValueError(f"attempt numbers run from 1 to {MAX_ATTEMPT_NUMBER}: {number}")
    return f"{prefix}-{tag}-{month:%Y%m}-{number:02d}"


def check_prefix(prefix: str) -> str:
    """Raises `InvalidSetting` unless the prefix keeps `merchant_uid`s short and ASCII."""
    if _PREFIX.fullmatch(prefix) is None:
        raise InvalidSetting(
            "MERCHANT_UID_PREFIX", prefix, "not 1 to 10 ASCII letters or digits", "Use e.g. mw"
        )
    return prefix
