"""Asking the gateway: whole answers or `GatewayError`, never a part and never a guess.

"There is no such thing" is a claim about money, too: it is believed only in the gateway's own
envelope with status 404. Any other 404 may come from something on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from billing.domain.errors import AnswerUnusable, GatewayRefused, GatewayUnavailable
from billing.portone import fields
from billing.portone.answer import Envelope, Unreadable, envelope
from billing.portone.exchange import Exchange
from billing.portone.token import Tokens

# A page of 100 rows stays far below the limit of an answer's size (1000 are allowed).
PAGE_LIMIT = 100

# Where a tenth of all answers break, one of a hundred look-ups fails; and a gateway that is down is
# asked twice as often as need be, and no more.
TRIES = 2
# 100 pages are more payments than any key or order can have. Beyond is a gateway that does not
# stop, and stopping by ourselves would be a part.
MOST_PAGES = 100


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: its rows, whether it names a next one, and how many rows there are."""

    rows: list[object]
    more: bool
    total: int


class Lookups:
    """Authorised GETs. `timeout` is the total deadline, in seconds, of one page with its tries."""

    def __init__(
        self,
        exchange: Exchange,
        tokens: Tokens,
        *,
        timeout: float,
        include_sandbox: bool,
        page_limit: int = PAGE_LIMIT,
    ) -> None:
        self._exchange = exchange
        self._tokens = tokens
        self._timeout = timeout
        self._page_limit = page_limit
        self._query = {"include_sandbox": "true" if include_sandbox else "false"}

    async def one(self, path: str) -> object | None:
        """The `response` of one thing, or None when the gateway does not know it."""
        answered = await self._envelope(path, self._query)
        if answered is None:
            return None
        if answered.response is None:
            raise GatewayUnavailable("look-up: found, and yet nothing in the answer")
        return answered.response

    async def all(self, *paths: str, query: Mapping[str, str] | None = None) -> list[object]:
        """Every row of a paged list; empty when the gateway knows none.

        Several `paths` are spellings of one list: the next is tried only where the gateway's
        router does not know the one before.
        """
        asked = {**self._query, **(query or {}), "limit": str(self._page_limit)}
        for path in paths[:-1]:
            try:
                return await self._pages(path, asked)
            except _NoRoute:
                continue
        return await self._pages(paths[-1], asked)

    @property
    def page_limit(self) -> int:
        """How many rows one page may have."""
        return self._page_limit

    async def page(self, path: str, query: Mapping[str, str], number: int) -> Page | None:
        """One page; None when the list has none of this number (any more)."""
        asked = {**self._query, **query, "limit": str(self._page_limit), "page": str(number)}
        try:
            answered = await self._envelope(path, asked)
        except _NoPage:
            # Documented for a page past the end (docs/gateway.md §4); the first is refused.
            if number == 1:
                raise
            return None
        return None if answered is None else _page(answered.response)

    async def _pages(self, path: str, query: Mapping[str, str]) -> list[object]:
        found: list[object] = []
        for number in range(1, MOST_PAGES + 1):
            answered = await self._envelope(path, {**query, "page": str(number)})
            if answered is None:
                if number == 1:
                    return []
                raise GatewayUnavailable("the list ended in the middle")
            page = _page(answered.response)
            found += page.rows
            if page.more:
                continue
            if len(found) < page.total:
                raise GatewayUnavailable("the list is not whole")
            return found
        raise GatewayUnavailable("the list does not end")

    async def _envelope(self, path: str, query: Mapping[str, str]) -> Envelope | None:
        """The answer's envelope, None for a proven absence. An answer that breaks is asked for
        again, at once: to ask does nothing, and a list of many pages would never be whole."""
        try:
            async with asyncio.timeout(self._timeout):
                for _ in range(TRIES - 1):
                    with contextlib.suppress(_Broken):
                        return await self._answered(path, query)
                return await self._answered(path, query)
        except TimeoutError:
            raise GatewayUnavailable("look-up: TimeoutError") from None

    async def _answered(self, path: str, query: Mapping[str, str]) -> Envelope | None:
        """One answer, by another token after a 401."""
        try:
            answer = await self._tokens.authorised(
                lambda token: self._exchange.get(path, token, query)
            )
        except (httpx.TransportError, Unreadable) as error:
            why = str(error) if isinstance(error, Unreadable) else type(error).__name__
            raise _Broken(f"look-up: {why}") from None
        match answer.status:
            case 200 | 400 | 404:
                pass
            case 401 | 403:
                raise GatewayRefused(f"look-up: HTTP {answer.status}")
            case status if status >= 500:
                raise _Broken(f"look-up: HTTP {status}")
            case status:
                raise GatewayUnavailable(f"look-up: HTTP {status}")
        try:
            answered = envelope(answer.body)
        except Unreadable as error:
            if answer.status == 404:
                raise _NoRoute("look-up: HTTP 404 that is not the gateway's own") from None
            raise _Broken(f"look-up: {error}") from None
        if answer.status == 400:
            raise _NoPage(f"look-up: HTTP 400, code {answered.code}")
        if answer.status == 404 and answered.code != 0 and answered.response is None:
            return None
        if answer.status == 404 or answered.code != 0:
            raise GatewayUnavailable(f"look-up: HTTP {answer.status}, code {answered.code}")
        return answered


class _Broken(GatewayUnavailable):
    """No answer, or none that can be read: the next one may be whole."""


class _NoPage(AnswerUnusable):
    """The gateway says in its own envelope that the query cannot be answered."""


class _NoRoute(GatewayUnavailable):
    """A 404 without the gateway's envelope: nothing is known."""


def _page(response: object) -> Page:
    if isinstance(response, list):
        return Page(response, more=False, total=0)
    try:
        listed = fields.row(response)
        rows = listed.get("list")
        more, total = fields.whole(listed, "next"), fields.whole(listed, "total")
    except Unreadable as error:
        raise GatewayUnavailable(f"look-up: {error}") from None
    if not isinstance(rows, list):
        raise GatewayUnavailable("look-up: no list in the answer")
    return Page(rows, bool(more), total or 0)
