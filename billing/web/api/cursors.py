"""Pages: the newest first, each naming what to ask for to get the next one."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Final

from fastapi import Query

from billing.domain.errors import InvalidInput

MOST: Final = 200
_LARGEST: Final = 2**63 - 1

Limit = Annotated[int, Query(ge=1, le=MOST, description="Rows of one page.")]
Cursor = Annotated[
    str | None,
    Query(
        pattern=r"^[A-Za-z0-9_-]{1,40}$",
        description="`next` of the page before. Opaque: pass it on as it is.",
    ),
]


def cursor_of(kind: str, row_id: int | None) -> str | None:
    """What stands for "after this row" in a list of a kind."""
    if row_id is None:
        return None
    return urlsafe_b64encode(f"{kind}:{row_id}".encode()).decode().rstrip("=")


def row_id_of(kind: str, cursor: str | None) -> int | None:
    """The row that a cursor of this kind stands for. Raises `InvalidInput`."""
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        name, _, number = urlsafe_b64decode(padded).decode("ascii").partition(":")
    except (ValueError, binascii.Error):
        name, number = "", ""
    is_number = number.isdigit() and len(number) <= 19 and int(number) <= _LARGEST
    if name != kind or not is_number:
        raise InvalidInput("cursor", "…", "is not one of this list", "Pass on `next` as it is")
    return int(number)
