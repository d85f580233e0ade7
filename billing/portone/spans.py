"""Payments by status between two moments, in portions that are whole, or `GatewayError`.

V1's lists promise no order and do not stand still (docs/gateway.md §4): a payment that is cancelled
while they are paged leaves the list of paid ones, and all behind it move up past the page that is
read next. So a span is cut into portions short enough to be held in memory, and a portion counts
only when every page named the same total and so many different payments came. Otherwise it is read
again, a few times.

A row that cannot be read is left out, and told of at the end: one odd sale of the store must not
keep everything else from being seen.

Even so a row can slip through, one leaving and one coming at once. What a list does *not* show is
therefore never proof; whoever misses a payment asks for it by its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from billing.domain.errors import GatewayUnavailable, RowsUnreadable
from billing.domain.money import CURRENCY
from billing.domain.payment import Payment
from billing.portone import fields, rows
from billing.portone.answer import Unreadable
from billing.portone.lookups import Lookups, Page

STATUSES = ("all", "ready", "paid", "cancelled", "failed")
# 90 days may be asked for at once (docs/gateway.md §4), less the second that is added to both ends.
LONGEST_SPAN = 90 * 86_400 - 2
# A portion's rows are held until the last page agrees: a few MB.
MOST_ROWS = 5000
# Pages that are open at the gateway at once: they must not crowd out charges. In which order they
# are read does not matter, since a portion counts by its number of different rows.
PAGES_AT_ONCE = 5
# A list that changes under every reading will be quieter tomorrow.
MOST_READINGS = 4

# The first and the last second of a portion, both of them in it.
_Portion = tuple[int, int]


class Spans:
    """Reads spans through look-ups."""

    def __init__(self, lookups: Lookups, *, sandbox: bool) -> None:
        self._lookups = lookups
        self._sandbox = sandbox
        # What is wrong with those rows that could not be read, by their ids.
        self._unread: dict[str, str] = {}

    async def payments(
        self, status: str, since: datetime, until: datetime
    ) -> AsyncIterator[Sequence[Payment]]:
        """Every payment in the gateway's list of a status whose moment (of paying, cancelling,
        failing, or else starting) lies from `since` to `until`. One on a seam may come twice."""
        if status not in STATUSES:
            raise ValueError(f"no such status: {status}")
        portions = _cut(int(since.timestamp()), int(until.timestamp()), LONGEST_SPAN)
        while portions:
            first, last = portions.pop()
            found = await self._whole(status, (first, last))
            if found is None:
                portions += _cut(first, last, (last - first) // 2)
            else:
                yield found
        if self._unread:
            raise RowsUnreadable(self._unread)

    async def _whole(self, status: str, portion: _Portion) -> Sequence[Payment] | None:
        """One portion, read until it stood still; None when it is too long to be held."""
        first, last = portion
        path = f"/payments/status/{status}"
        # A second more at both ends, since no document says whether they are included. Oldest
        # first, so that what comes in meanwhile comes in behind us.
        query = {"from": str(first - 1), "to": str(last + 1), "sorting": "started"}
        for _ in range(MOST_READINGS):
            try:
                found = await self._once(path, query)
            except _TooLong:
                if first < last:
                    return None
                raise GatewayUnavailable("look-up: too many payments in one second") from None
            if found is not None:
                return found
        raise GatewayUnavailable("look-up: the list changes while it is read")

    async def _once(self, path: str, query: dict[str, str]) -> list[Payment] | None:
        """One reading; None when the list moved meanwhile."""
        first = await self._lookups.page(path, query, 1)
        if first is None:
            return []
        if first.total > MOST_ROWS:
            raise _TooLong
        found: dict[str, Payment | None] = {}
        self._take(first, found)
        more = first.more
        last = max(1, -(-first.total // self._lookups.page_limit))
        rest = range(2, last + 1)
        for at in range(0, len(rest), PAGES_AT_ONCE):
            for page in await self._pages(path, query, rest[at : at + PAGES_AT_ONCE]):
                if page is None or page.total != first.total:
                    return None
                self._take(page, found)
                more = page.more
        if more:
            # Past the rows that it counts; what is there must be nothing.
            beyond = await self._lookups.page(path, query, last + 1)
            if beyond is not None and (beyond.rows or beyond.more or beyond.total != first.total):
                return None
        if len(found) != first.total:
            return None
        return [payment for payment in found.values() if payment is not None]

    async def _pages(
        self, path: str, query: dict[str, str], numbers: Sequence[int]
    ) -> list[Page | None]:
        """Some pages at once. What goes wrong is told when all of them have ended: none is left
        under way."""
        asked = (self._lookups.page(path, query, number) for number in numbers)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        pages: list[Page | None] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            pages.append(answer)
        return pages

    def _take(self, page: Page, found: dict[str, Payment | None]) -> None:
        # Whatever list it stands in, a row says itself in which status it is. No document says
        # whether a sale of which a part was cancelled is in the list of the cancelled ones.
        found.update(map(self._read, page.rows))

    def _read(self, value: object) -> tuple[str, Payment | None]:
        """A payment under its id; without the payment when it is in another currency, or cannot be
        read.

        A store may take dollars and cents elsewhere. Those are none of ours, and no reason to give
        up.
        """
        try:
            row = fields.row(value)
            imp_uid = fields.needed_text(row, "imp_uid")
        except Unreadable as error:
            raise GatewayUnavailable(f"look-up: {error}") from None
        try:
            if fields.text(row, "currency") not in (None, CURRENCY):
                return imp_uid, None
            payment = rows.payment(row, sandbox=self._sandbox)
        except Unreadable as error:
            self._unread[imp_uid] = str(error)
            return imp_uid, None
        # Read again, it may be whole.
        self._unread.pop(imp_uid, None)
        return imp_uid, payment


class _TooLong(Exception):
    """More rows than are held at once."""


def _cut(first: int, last: int, longest: int) -> list[_Portion]:
    """A span in portions at most `longest` seconds from end to end, the latest first."""
    starts = range(first, last + 1, longest + 1)
    return [(start, min(start + longest, last)) for start in reversed(starts)]
