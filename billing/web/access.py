"""Who may come in: by credential; or, where none is set, only from this machine.

Nothing that a request says of itself makes it local. What it says can only make it foreign: a
proxy on this machine would make everybody look local, a name of somebody's own can lead to
127.0.0.1, and a page of another site can send requests from a browser on this machine.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re

from fastapi import HTTPException, Request
from fastapi.security import HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import SecretStr

from billing.web.edge import edge_of
from billing.web.limiting import peer_of

_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_FORWARDED = re.compile(
    r"forwarded|via|(x-)?forwarded-.*|x-original-.*|x-real-ip|x-client-ip|x-cluster-client-ip"
    r"|true-client-ip|x-envoy-.*|cf-.*|cdn-loop|fastly-.*|x-amzn?-.*"
)

bearer = HTTPBearer(auto_error=False, description="The setting `MAEWOL_API_TOKEN`.")


def is_local(request: Request) -> bool:
    """Whether the request comes from this machine, asks for this machine, was passed on by no
    proxy, and was not sent by a page of another site."""
    headers = request.headers
    if any(_FORWARDED.fullmatch(name) for name in headers):
        return False
    # What proxies speak to the server behind them unless told otherwise, and nobody else does.
    if request.scope.get("http_version") == "1.0":
        return False
    hosts = headers.getlist("host")
    if len(hosts) != 1 or _LOCAL_HOST.fullmatch(hosts[0]) is None:
        return False
    own = f"{request.scope['scheme']}://{hosts[0]}".lower()
    if any(origin.lower() != own for origin in headers.getlist("origin")):
        return False
    return _is_loopback(request.client.host if request.client else "")


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False


def same_secret(given: str, wanted: SecretStr) -> bool:
    """Compared by digest, in constant time."""
    return hmac.compare_digest(_digest(given), _digest(wanted.get_secret_value()))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def check_watcher(request: Request) -> None:
    """For figures without anybody's data: from this machine, or with the API token."""
    if not is_local(request):
        check_api_token(request)


def check_api_token(request: Request) -> None:
    """Raises 401 without the token (429 after many wrong ones), 403 where none is set and the
    caller is not on this machine."""
    edge = edge_of(request)
    wanted = edge.settings.api_token
    if wanted is None:
        if not is_local(request):
            raise HTTPException(
                403, "without MAEWOL_API_TOKEN the API answers on this machine only"
            )
        return
    scheme, given = get_authorization_scheme_param(request.headers.get("authorization"))
    if scheme.lower() == "bearer" and same_secret(given, wanted):
        return
    # Only those who do not have it are slowed down: they may share an address with who does.
    wait = edge.refusals.wait(peer_of(request))
    if wait is not None:
        raise HTTPException(429, "too many wrong credentials", {"Retry-After": str(wait)})
    raise HTTPException(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
