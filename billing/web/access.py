"""Who may come in: by credential; or, where none is set, only from this machine."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from billing.web.edge import TheEdge

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
# A proxy on this machine would make everybody look local.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

_bearer = HTTPBearer(auto_error=False, description="The setting API_TOKEN.")


def is_local(request: Request) -> bool:
    """Whether the request comes from this machine, asks for this machine (a page elsewhere can
    make a name of its own lead here), and no proxy passed it on."""
    if any(name in request.headers for name in _FORWARDED):
        return False
    peer = request.client.host if request.client else ""
    try:
        local = ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
    return local and request.url.hostname in _LOCAL_NAMES


def same_secret(given: str, wanted: SecretStr) -> bool:
    """Compared by digest, in constant time."""
    return hmac.compare_digest(_digest(given), _digest(wanted.get_secret_value()))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def check_api_token(
    request: Request,
    edge: TheEdge,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """For `/v1`. Raises 401 without the token, 403 where none is set and the caller is not here."""
    wanted = edge.settings.api_token
    if wanted is None:
        if not is_local(request):
            raise HTTPException(
                403, "without MAEWOL_API_TOKEN the API answers on this machine only"
            )
        return
    if given is None or not same_secret(given.credentials, wanted):
        raise HTTPException(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})


ApiToken = Depends(check_api_token)
