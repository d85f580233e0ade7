"""The bearer token: one for all workers, renewed before it ends, fetched by one at a time.

The gateway hands out the *same* token while it lives (30 minutes), so workers do not cut each
other off; asked in the last minute of its life it adds five minutes (docs/gateway.md §2). So a
renewal earlier than that last minute would change nothing, and be asked for again and again.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing.domain.errors import GatewayRefused, GatewayUnavailable
from billing.portone import fields
from billing.portone.answer import Answer, Unreadable, envelope
from billing.ports import AccessToken, TokenStore

# Inside the gateway's last minute, and long enough for a request on its way.
RENEW_BEFORE_SECONDS = 30.0
# A token that lives shorter than we expect is still used for most of its life.
RENEW_BEFORE_SHARE = 0.1

# Ours; the one that another worker left for us, which may be as old; and a new one.
TOKENS_TO_TRY = 3
# More than are ever in use at once.
_REMEMBERED = 16

# What may stand in a header: nothing that could start another one.
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


def token_of(answer: Answer, now: datetime) -> AccessToken:
    """The token of an answer of `POST /users/getToken`, `now` being our clock at its arrival.

    Raises `GatewayRefused` when the key or the secret is not accepted, or our address is not
    allowed; `GatewayUnavailable` for everything else that is not a token.
    """
    if answer.status in (401, 403):
        raise GatewayRefused(f"getToken: HTTP {answer.status}")
    if answer.status != 200:
        raise GatewayUnavailable(f"getToken: HTTP {answer.status}")
    try:
        answered = envelope(answer.body)
        if answered.code != 0:
            raise GatewayRefused(f"getToken: code {answered.code}")
        row = fields.row(answered.response)
        value = fields.needed_text(row, "access_token")
        gateway_now = fields.needed_moment(row, "now")
        expires_at = fields.needed_moment(row, "expired_at")
    except Unreadable as error:
        raise GatewayUnavailable(f"getToken: {error}") from None
    if not _TOKEN.fullmatch(value):
        raise GatewayUnavailable("getToken: malformed token")
    return AccessToken(value, expires_at, clock_offset=gateway_now - now)


@dataclass(frozen=True, slots=True)
class _Held:
    token: AccessToken
    renew_at: float  # monotonic seconds: a clock that is set later does not matter


class Tokens:
    """This process's hold on the shared token.

    Fifty charges at once cause one fetch, and share its failure too; `store` makes it one over all
    processes.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[AccessToken]],
        store: TokenStore,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._fetch = fetch
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._held: _Held | None = None
        self._refused: deque[str] = deque(maxlen=_REMEMBERED)
        self._fetched: AccessToken | None = None
        self._renewal: asyncio.Task[AccessToken] | None = None

    @property
    def clock_offset(self) -> timedelta | None:
        """The gateway's clock minus ours, as of the token in use; None before the first."""
        return self._held.token.clock_offset if self._held else None

    async def current(self) -> AccessToken:
        """A token to use now. Raises `GatewayError`."""
        held = self._held
        if held is not None and self._monotonic() < held.renew_at:
            return held.token
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renewed())
            # All who wait may have been cancelled: then nobody is left to look at its error.
            self._renewal.add_done_callback(_look_at_error)
        # Shielded: one waiter's deadline must not take the token from the others.
        return await asyncio.shield(self._renewal)

    async def authorised(self, send: Callable[[AccessToken], Awaitable[Answer]]) -> Answer:
        """What `send` is answered with a token that the gateway takes, or the last 401.

        A 401 did nothing, so the same request may go again (docs/gateway.md §2); but not after a
        token fetched for its sake was refused, too. Raises `GatewayError`, and what `send` raises.
        """
        known: AccessToken | None = None
        for number in range(1, TOKENS_TO_TRY + 1):
            token = await self.current()
            answer = await send(token)
            if answer.status != 401:
                break
            await self.refused(token)
            if number == 1:
                known = self._fetched
            elif token is self._fetched and token is not known:
                break
        return answer

    async def refused(self, token: AccessToken) -> None:
        """The gateway answered 401 to this token: never use it again."""
        self._refused.append(token.value)
        if self._held is not None and self._held.token.value == token.value:
            self._held = None
        await self._store.discard(token.value)

    async def aclose(self) -> None:
        """Stop a fetch that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    async def _renewed(self) -> AccessToken:
        async with self._store.single_flight():
            token = await self._store.get()
            if token is None or not self._better(token):
                token = self._fetched = await self._fetch()
                await self._store.put(token)
        self._held = self._holding(token)
        return token

    def _better(self, shared: AccessToken) -> bool:
        """Whether another worker has renewed the token already."""
        if shared.value in self._refused or self._life(shared) <= 0:
            return False
        return self._held is None or shared.expires_at > self._held.token.expires_at

    def _holding(self, token: AccessToken) -> _Held:
        life = self._life(token)
        margin = min(RENEW_BEFORE_SECONDS, life * RENEW_BEFORE_SHARE)
        return _Held(token, self._monotonic() + life - margin)

    def _life(self, token: AccessToken) -> float:
        """Seconds left, measured on the gateway's clock."""
        return (token.expires_at - (self._now() + token.clock_offset)).total_seconds()


class MemoryTokenStore:
    """A `TokenStore` for one process: simulation, command line, tests."""

    def __init__(self) -> None:
        self._token: AccessToken | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> AccessToken | None:
        """The token, or None."""
        return self._token

    async def put(self, token: AccessToken) -> None:
        """Keep a token."""
        self._token = token

    async def discard(self, value: str) -> None:
        """Forget the token if it still is this one."""
        if self._token is not None and self._token.value == value:
            self._token = None

    @asynccontextmanager
    async def single_flight(self) -> AsyncIterator[None]:
        """One at a time."""
        async with self._lock:
            yield


def _look_at_error(task: asyncio.Task[AccessToken]) -> None:
    if not task.cancelled():
        task.exception()
