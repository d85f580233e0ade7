"""Bodies of requests: not longer than any route needs, and not for ever on their way."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Many times the longest document that any route takes.
LARGEST: Final = 64 * 1024
# From the first byte to the last, also over a slow line.
SECONDS: Final = 10.0
# What was not read is not waited for either.
_CLOSE = {"Connection": "close"}


class Bodies:
    """Answers 413 to a longer body and 408 to a slower one, as soon as that is seen."""

    def __init__(self, app: ASGIApp, most: int = LARGEST, seconds: float = SECONDS) -> None:
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its body counted and against the clock."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        until = asyncio.get_running_loop().time() + self._seconds
        size, whole = 0, False

        async def counted() -> Message:
            nonlocal size, whole
            if whole:
                # What is waited for now is the end of the connection.
                return await receive()
            message = await _in_time(receive, until)
            size += len(message.get("body", b""))
            if size > self._most:
                raise too_long()
            whole = not message.get("more_body", False)
            return message

        await self._app(scope, counted, send)


async def _in_time(receive: Receive, until: float) -> Message:
    try:
        async with asyncio.timeout_at(until):
            return await receive()
    except TimeoutError:
        raise HTTPException(408, "the body did not arrive in time", _CLOSE) from None


async def read_at_most(request: Request, most: int) -> bytes:
    """The body of a route that takes less than others. Raises 413."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_long()
    return bytes(body)


def too_long() -> HTTPException:
    return HTTPException(413, "the body is too long", _CLOSE)
