"""One request, one answer: addresses, headers, and nothing that could lead elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, urlencode, urlsplit

from billing import __version__
from billing.domain.errors import InvalidInput, InvalidSetting
from billing.loopback import is_loopback
from billing.portone.answer import Answer
from billing.portone.transport import Transport
from billing.ports import AccessToken

_SETTING = "MAEWOL_PORTONE_API_URL"
# All of them, and always: else aiohttp adds its own.
_HEADERS = {
    "User-Agent": f"Maewol/{__version__}",
    "Accept": "application/json",
    # Answers are small, and every inflated byte would have to be counted.
    "Accept-Encoding": "identity",
}


class Exchange:
    """Speaks to one host, fixed at the start: no redirect, no proxy, no address from outside.

    httpx's own client is left out on purpose: what it adds to the transport (redirects, cookies,
    proxies, URLs in the log) is what must not happen here, and it costs more than the request.
    """

    def __init__(self, base_url: str, transport: Transport) -> None:
        self._base_url = checked_base_url(base_url)
        self._transport = transport

    async def get(self, path: str, token: AccessToken, query: Mapping[str, str]) -> Answer:
        """Ask. `path` is made of `segment`s. Raises `httpx.TransportError` and `Unreadable`."""
        headers = {**_HEADERS, **_authorised(token)}
        target = f"{self._base_url}{path}?{_encoded(tuple(query.items()))}"
        return await self._transport.send("GET", target, headers, None)

    async def post(self, path: str, token: AccessToken | None, body: bytes) -> Answer:
        """Send JSON. Raises `httpx.TransportError` and `Unreadable`."""
        headers = {**_HEADERS, "Content-Type": "application/json", **_authorised(token)}
        return await self._transport.send("POST", self._base_url + path, headers, body)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


@lru_cache(maxsize=64)
def _encoded(query: tuple[tuple[str, str], ...]) -> str:
    """Nearly all look-ups ask for the first page of the same kind."""
    return urlencode(query)


def segment(field: str, text: str) -> str:
    """`text` as one path segment that stays one.

    `../customers/x` from a webhook would otherwise become another request with our token
    (reliability W2). Raises `InvalidInput`, with the value left out: it may be personal.
    """
    try:
        quoted = quote(text, safe="")
    except UnicodeEncodeError:
        quoted = ""
    if quoted in ("", ".", "..") or len(text) > 100:
        raise InvalidInput(field, "…", "cannot be part of an address")
    return quoted


def checked_base_url(url: str) -> str:
    """The gateway's address without a slash at its end.

    Raises `InvalidSetting` for anything but https, loopback excepted: over plain http the secret
    and the customers' data would be readable on the way.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port_is_fine = parts.port != 0
    except ValueError:
        raise InvalidSetting(_SETTING, "…", "is not a URL") from None
    if parts.username is not None or parts.password is not None:
        raise InvalidSetting(_SETTING, "…", "must not hold credentials")
    if not host or not port_is_fine or parts.query or parts.fragment:
        raise InvalidSetting(_SETTING, url, "is not the address of a gateway")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise InvalidSetting(_SETTING, url, "is not https", "Only a loopback address may use http")
    return url.rstrip("/")


def _authorised(token: AccessToken | None) -> Mapping[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token.value}"}
