"""The seal over a subscription's facts: a keyed hash that shows a change made behind our back.

The database refuses to update them; whoever goes around that cannot make a new seal without the
installation's key. It is verified before each request (docs/reliability.md, I3).
"""

from __future__ import annotations

import hmac
import json
from datetime import UTC, date
from zoneinfo import ZoneInfo

from billing.domain.calendar import day_of
from billing.domain.subscription import Facts

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def seal(key: bytes, facts: Facts) -> bytes:
    """The seal over everything the gateway compares with last month's payment."""
    sealed = [
        facts.customer_uid,
        facts.amount.amount,
        facts.order_name,
        facts.initial_paid_at.astimezone(UTC).isoformat(),
        facts.buyer_name,
        facts.buyer_email,
        facts.buyer_tel,
    ]
    text = _encode(sealed)
    return hmac.digest(key, b"facts\0" + text.encode(), "sha256")


def is_as_enrolled(
    key: bytes, facts: Facts, anchor_on: date, sealed: bytes, zone: ZoneInfo
) -> bool:
    """Whether the facts are those that were sealed, and the anchor, from which the months count, is
    the day of their initial payment."""
    return day_of(facts.initial_paid_at, zone) == anchor_on and is_intact(key, facts, sealed)


def is_intact(key: bytes, facts: Facts, sealed: bytes) -> bool:
    """Whether the facts are those that were sealed at enrolment."""
    return hmac.compare_digest(seal(key, facts), sealed)
