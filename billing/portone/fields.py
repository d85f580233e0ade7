"""Reading single fields strictly. Every function raises `Unreadable`, and nothing else.

Absent, null and (for texts and moments) empty are one and the same to the gateway: None here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from billing.domain.calendar import LAST_MOMENT
from billing.portone.answer import Unreadable

Row = Mapping[str, object]

# The longest text worth keeping of a decline or refusal; KG's are below 100 characters.
LONGEST_MESSAGE = 500

# What neither a database nor a terminal takes: NUL, and halves of surrogate pairs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

# Far above what anybody pays by telephone, and below what a column of the book takes.
MOST_WON: Final = 10**15


def row(value: object) -> Row:
    """A JSON object."""
    if not isinstance(value, dict):
        raise Unreadable("not an object where one belongs")
    return value


def text(source: Row, name: str) -> str | None:
    """A text that can be stored and compared as it is."""
    value = source.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or _UNSTORABLE.search(value):
        raise Unreadable(f"{name} is no text")
    return value


def needed_text(source: Row, name: str) -> str:
    """A text that must be there."""
    value = text(source, name)
    if value is None:
        raise Unreadable(f"{name} is missing")
    return value


def message(value: object) -> str:
    """The gateway's words for people: made storable rather than refused, and not endless."""
    return _UNSTORABLE.sub("\ufffd", value)[:LONGEST_MESSAGE] if isinstance(value, str) else ""


def whole(source: Row, name: str) -> int | None:
    """A whole number; `9900.0` is one, `true`, `"9900"` and `9900.5` are not."""
    value = source.get(name)
    if value is None or type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise Unreadable(f"{name} is no whole number")


def amount(source: Row, name: str) -> int | None:
    """Whole won, not below zero, and no more than any book holds."""
    value = whole(source, name)
    if value is not None and value < 0:
        raise Unreadable(f"{name} is below zero")
    if value is not None and value > MOST_WON:
        raise Unreadable(f"{name} is no amount of money")
    return value


def needed_amount(source: Row, name: str) -> int:
    """Whole won that must be there."""
    value = amount(source, name)
    if value is None:
        raise Unreadable(f"{name} is missing")
    return value


def flag(source: Row, name: str) -> bool | None:
    """True or false, in no other spelling."""
    value = source.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise Unreadable(f"{name} is neither true nor false")


def moment(source: Row, name: str) -> datetime | None:
    """Unix seconds as aware UTC; the gateway writes 0 for "did not happen". A part of a second is
    left out."""
    value = source.get(name)
    if isinstance(value, float) and math.isfinite(value):
        source = {name: math.floor(value)}
    seconds = whole(source, name)
    if not seconds:
        return None
    if seconds > LAST_MOMENT.timestamp():
        raise Unreadable(f"{name} is no moment")
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise Unreadable(f"{name} is no moment") from None


def needed_moment(source: Row, name: str) -> datetime:
    """A moment that must be there."""
    value = moment(source, name)
    if value is None:
        raise Unreadable(f"{name} is missing")
    return value
