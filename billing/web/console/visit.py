"""Who is at the console: a signed cookie, its age, and the token that every form carries.

Nothing is kept on the server, so that every web process agrees. The key comes from the book and
from the password: who changes CONSOLE_PASSWORD ends every session.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass, replace

from fastapi import Request
from itsdangerous import BadSignature, URLSafeSerializer

from billing import clock
from billing.store import installation
from billing.web.edge import Edge, edge_of

COOKIE = "maewol_console"
# Without a request of a person for so long, or after so long in any case, the password is asked
# for again. In seconds.
IDLE = 60 * 60
LONGEST = 12 * 60 * 60
# The cookie is made anew at most so often.
_RENEW_AFTER = 60


@dataclass(frozen=True, slots=True)
class Visit:
    """One browser. `begun` and `seen` are seconds since 1970."""

    id: str
    signed_in: bool
    begun: int
    seen: int


class Visits:
    """Reads and makes the cookie."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._key: bytes | None = None

    def of(self, request: Request) -> Visit:
        """The visit that a request belongs to; a new one where there is none, or it is over."""
        now = _now()
        try:
            found = self._serializer().loads(request.cookies.get(COOKIE, ""))
            visit = Visit(**found)
        except (BadSignature, TypeError):
            return _new(now)
        too_old = now - visit.seen > IDLE or now - visit.begun > LONGEST or visit.seen > now + IDLE
        return _new(now) if too_old else visit

    def cookie(self, request: Request, visit: Visit) -> str | None:
        """What the browser should keep from now on; None when it may keep what it has."""
        now = _now()
        kept = request.cookies.get(COOKIE)
        # A page that renews itself must not keep a session alive that nobody looks at.
        if "x-refresh" in request.headers and visit.seen != now:
            return None
        if kept is not None and now - visit.seen < _RENEW_AFTER:
            made = self._serializer().dumps(asdict(visit))
            return None if made == kept else made
        return self._serializer().dumps(asdict(replace(visit, seen=now)))

    def signed_in(self) -> Visit:
        """A visit of somebody who knew the password: never the one from before."""
        return replace(_new(_now()), signed_in=True)

    def signed_out(self) -> Visit:
        return _new(_now())

    def token(self, visit: Visit) -> str:
        """What a form of this visit carries; a page elsewhere cannot know it."""
        return hmac.new(self._derived("form"), visit.id.encode(), hashlib.sha256).hexdigest()

    def sealed(self, purpose: str) -> URLSafeSerializer:
        """Signs what a browser keeps for us, for one purpose."""
        return URLSafeSerializer(self._derived(purpose), salt=purpose)

    def _serializer(self) -> URLSafeSerializer:
        return self.sealed("visit")

    def _derived(self, purpose: str) -> bytes:
        if self._key is None:
            self._key = self._edge.book.run(
                lambda tx: installation.key(tx.session, self._edge.house.installation_key)
            )
        password = self._edge.settings.console_password
        secret = password.get_secret_value() if password else ""
        message = f"console\0{purpose}\0{secret}".encode()
        return hmac.new(self._key, message, hashlib.sha256).digest()


def is_signed_in(request: Request) -> bool:
    """Whether the request comes from somebody who knew CONSOLE_PASSWORD. Without a cookie nothing
    is read for the answer."""
    if edge_of(request).settings.console_password is None or COOKIE not in request.cookies:
        return False
    visits: Visits = request.app.state.visits
    return visits.of(request).signed_in


def _new(now: int) -> Visit:
    return Visit(secrets.token_urlsafe(18), signed_in=False, begun=now, seen=now)


def _now() -> int:
    return int(clock.host_time().timestamp())
