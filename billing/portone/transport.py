"""One request out, one whole answer back: the seam under the client, with httpx's errors.

`AiohttpTransport` carries it over aiohttp's connection pool; `HttpxTransport` over anything that is
made for httpx, which is how tests put a sandbox here; a simulation brings a `Transport` of its own.
Why not httpx's own pool, why not the package httpx-aiohttp, and why not httpx's requests:
docs/adr/0003-http-transport.md. In short: the pool slows down with its size, the package reports a
connection that broke *after* the request left as `ConnectTimeout`, which would read as "provably
not sent", and building the objects of a request costs as much as sending it.

What the rest relies on, and the tests prove with real sockets:

- `httpx.ConnectError` and `httpx.ConnectTimeout` mean that no byte of the request left. They are
  raised for nothing but aiohttp's connector errors, which exist only before a connection is held.
- Everything else that goes wrong is some other `httpx.TransportError`: the request may have left.
- A POST is never sent twice. (aiohttp re-sends idempotent methods once when a kept connection
  turns out to be closed; a look-up may, a charge must not.)
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

import aiohttp
import httpx
from yarl import URL

from billing.portone.answer import Answer, Unreadable, read

# The peer closes an idle connection at a moment we do not know, and a charge written to a closed
# one is unknown: safe, but it costs a look-up (reliability G12). So ours close first.
KEEPALIVE_SECONDS = 5.0

# Everything aiohttp raises from `connector.connect`, that is before the first request byte.
NEVER_CONNECTED = (
    aiohttp.ClientConnectorError,  # refused, unreachable, DNS
    aiohttp.ClientSSLError,  # TLS handshake and certificate
    aiohttp.ServerFingerprintMismatch,
)

SocketFactory = Callable[[Any], socket.socket]


class Transport(Protocol):
    """Sends requests to the addresses it is given and nowhere else: no redirect, no proxy."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """Send one request; `url` is quoted already. Raises `httpx.TransportError` (see the module
        for what each kind proves) and `Unreadable`."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


class HttpxTransport:
    """A `Transport` over one of httpx's."""

    def __init__(self, carrier: httpx.AsyncBaseTransport) -> None:
        self._carrier = carrier

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        request = httpx.Request(method, url, headers=headers, content=body)
        response = await self._carrier.handle_async_request(request)
        stream = response.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise TypeError("an asynchronous transport is needed")
        try:
            return await read(response.status_code, response.headers, stream)
        finally:
            await stream.aclose()

    async def aclose(self) -> None:
        await self._carrier.aclose()


class AiohttpTransport:
    """One connection pool, never following redirects, proxies or the environment.

    `connect_timeout` (seconds) bounds the wait for a free connection and its making, TLS
    included. There is no read time-out here: the caller holds one deadline over everything.
    """

    def __init__(
        self,
        *,
        connect_timeout: float,
        max_connections: int,
        tls: ssl.SSLContext,
        socket_factory: SocketFactory | None = None,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._max_connections = max_connections
        self._tls = tls
        self._socket_factory = socket_factory
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._opened().request(
                method,
                # As it was quoted, not as aiohttp would quote it.
                URL(url, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
            )
            return await read(response.status, response.headers, response.content.iter_any())
        except Unreadable:
            raise
        except Exception as error:
            raise translated(error) from error
        finally:
            if response is not None:
                # A body read to its end has given its connection back; any other is cut off.
                response.close()

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        # Made at the first request: aiohttp wants a running event loop, bootstrap has none.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._max_connections,
                    ssl=self._tls,
                    keepalive_timeout=KEEPALIVE_SECONDS,
                    socket_factory=self._socket_factory,
                ),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Inflating is ours (`answer`), because ours has a limit.
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def translated(error: Exception) -> httpx.TransportError:
    """The httpx error that says what is proven. Texts carry type names only, never a URL."""
    text = type(error).__name__
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout(text)
    if isinstance(error, NEVER_CONNECTED):
        return httpx.ConnectError(text)
    if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):
        return httpx.LocalProtocolError(text)
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout(text)
    return httpx.ReadError(text)


def verified_tls(context: ssl.SSLContext) -> ssl.SSLContext:
    """Certificates checked, TLS 1.2 or newer (PortOne takes nothing older, docs/gateway.md §2).

    Raises `ValueError` for one that checks less: there is no way to switch checking off.
    """
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ValueError("a TLS context that does not check certificates and host names")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@cache
def public_tls() -> ssl.SSLContext:
    """The authorities that everybody trusts, for all clients of this process: reading them takes
    60 ms. Whoever trusts one more makes a context of their own."""
    return httpx.create_ssl_context(verify=True, trust_env=False)


def hard_closing_sockets(unacknowledged_seconds: float) -> SocketFactory:
    """Sockets whose bytes cannot arrive once we have given up on them.

    "Nothing arrives late" in docs/reliability.md. Without this, the kernel goes on delivering the
    request of a process that was killed or that timed out, for a minute and more.
    `SO_LINGER (1, 0)` drops unsent bytes when the socket closes, however it closes;
    `TCP_USER_TIMEOUT` does so when nothing is acknowledged for so long. macOS has no such
    option; there only the first holds.
    """
    linger = struct.pack("ii", 1, 0)
    milliseconds = max(1, int(unacknowledged_seconds * 1000))
    user_timeout: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)

    def make(address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if user_timeout is not None:
            made.setsockopt(socket.IPPROTO_TCP, user_timeout, milliseconds)
        return made

    return make
