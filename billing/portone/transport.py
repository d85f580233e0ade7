"""httpx's transport seam, carried by aiohttp's connection pool.

Why not httpx's own pool, and why not the package httpx-aiohttp: docs/adr/0003-http-transport.md.
In short: httpx's pool slows down with its size, and httpx-aiohttp reports a connection that broke
*after* the request left as `ConnectTimeout`, which would read as "provably not sent".

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
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import httpx
from yarl import URL

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


class AiohttpTransport(httpx.AsyncBaseTransport):
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

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and return its answer as soon as the headers are there.

        Raises `httpx.TransportError`; see the module for what each kind proves.
        """
        try:
            response = await self._opened().request(
                request.method,
                # As it was quoted, not as aiohttp would quote it.
                URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                data=request.content or None,
                allow_redirects=False,
            )
        except Exception as error:
            raise translated(error, request) from error
        return httpx.Response(
            status_code=response.status,
            headers=response.raw_headers,
            stream=_Body(response, request),
            request=request,
        )

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
                skip_auto_headers=(
                    "Accept",
                    "Accept-Encoding",
                    "User-Agent",
                    "Content-Type",
                ),
                requote_redirect_url=False,
            )
        return self._session


class _Body(httpx.AsyncByteStream):
    """The answer's body as it comes off the wire, not inflated."""

    def __init__(self, response: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except Exception as error:
            raise translated(error, self._request) from error

    async def aclose(self) -> None:
        # A body read to its end has given its connection back already; any other is cut off.
        self._response.close()


def translated(error: Exception, request: httpx.Request) -> httpx.TransportError:
    """The httpx error that says what is proven. Texts carry type names only, never a URL."""
    text = type(error).__name__
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout(text, request=request)
    if isinstance(error, NEVER_CONNECTED):
        return httpx.ConnectError(text, request=request)
    if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):
        return httpx.LocalProtocolError(text, request=request)
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout(text, request=request)
    return httpx.ReadError(text, request=request)


def verified_tls(given: ssl.SSLContext | None = None) -> ssl.SSLContext:
    """Certificates checked, TLS 1.2 or newer (PortOne takes nothing older, gateway.md §2).

    Raises `ValueError` when `given` checks less: there is no way to switch checking off.
    """
    context = given or httpx.create_ssl_context(verify=True, trust_env=False)
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ValueError("a TLS context that does not check certificates and host names")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def hard_closing_sockets(unacknowledged_seconds: float) -> SocketFactory:
    """Sockets whose bytes cannot arrive once we have given up on them (reliability §0.1).

    Without this, the kernel goes on delivering the request of a process that was killed or that
    timed out, for a minute and more. `SO_LINGER (1, 0)` drops unsent bytes when the socket
    closes, however it closes; `TCP_USER_TIMEOUT` does so when nothing is acknowledged for so
    long. macOS has no such option; there only the first holds.
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
