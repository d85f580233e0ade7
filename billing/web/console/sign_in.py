"""Coming in and going out; and what can be seen without either: the files, language, theme."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.responses import RedirectResponse, Response

from billing.web.access import same_secret
from billing.web.console import look
from billing.web.console.door import Porch
from billing.web.edge import TheEdge
from billing.web.limiting import peer_of
from billing.web.texts import COOKIE as LANGUAGE_COOKIE

router = APIRouter(route_class=Porch, include_in_schema=False)
# Without a door: the same for everybody, and kept by browsers and caches.
files = APIRouter(include_in_schema=False)

# Wrong passwords, by one peer and by all together. A proxy before us makes all one peer.
_BY_PEER: tuple[RateLimitItem, ...] = (RateLimitItemPerMinute(8), RateLimitItemPerHour(60))
_BY_ALL: tuple[RateLimitItem, ...] = (RateLimitItemPerMinute(40), RateLimitItemPerHour(400))


class Attempts:
    """Counts tries at the password; kept by this process alone."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        # Whoever knew the password here: many guessers elsewhere must not lock them out.
        self._known: set[str] = set()

    def take(self, peer: str) -> bool:
        """Count a try, before it is judged; False when there were too many."""
        by_peer = all([self._limiter.hit(item, "peer", peer) for item in _BY_PEER])
        # Who is over the limit for one peer must not use up everybody's.
        if not by_peer or peer in self._known:
            return by_peer
        return all([self._limiter.hit(item, "all") for item in _BY_ALL])

    def forgive(self, peer: str) -> None:
        """The right password: what came before was a slip."""
        self._known.add(peer)
        for item in _BY_PEER:
            self._limiter.clear(item, "peer", peer)


@router.get("/sign-in")
def ask(request: Request, edge: TheEdge, next: str = "/") -> Response:
    """The form; whoever is in already goes on."""
    if edge.settings.console_password is None or request.state.visit.signed_in:
        return RedirectResponse(ours(next), status_code=303)
    return look.render(request, "sign_in.html", next=ours(next), wrong=None)


@router.post("/sign-in")
def sign_in(
    request: Request,
    edge: TheEdge,
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Compare, and let in."""
    attempts: Attempts = request.app.state.attempts
    wanted = edge.settings.console_password
    peer = peer_of(request)
    if wanted is None:
        return RedirectResponse("/", status_code=303)
    if not attempts.take(peer):
        page = look.render(
            request, "sign_in.html", code=429, next=ours(next), wrong="sign_in.too_often"
        )
        page.headers["Retry-After"] = "60"
        return page
    if not same_secret(password, wanted):
        return look.render(
            request, "sign_in.html", code=403, next=ours(next), wrong="sign_in.wrong"
        )
    attempts.forgive(peer)
    request.state.visit = request.app.state.visits.signed_in()
    return RedirectResponse(ours(next), status_code=303)


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    request.state.visit = request.app.state.visits.signed_out()
    return RedirectResponse("/sign-in", status_code=303)


@router.post("/preferences")
def prefer(
    request: Request,
    language: Annotated[str, Form()] = "",
    theme: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Remember a language or a theme."""
    response = RedirectResponse(ours(next), status_code=303)
    for name, value, known in (
        (LANGUAGE_COOKIE, language, ("en", "ko")),
        (look.THEME_COOKIE, theme, look.THEMES),
    ):
        if value in known:
            response.set_cookie(
                name,
                value,
                max_age=look.YEAR,
                httponly=True,
                samesite="strict",
                secure=look.is_https(request),
            )
    return response


@files.get("/console/static/{name}")
def static(name: str) -> Response:
    found = look.static(name)
    if found is None:
        raise HTTPException(404)
    return found


def ours(path: str) -> str:
    """A path of ours to go on to; `/` for anything that could lead elsewhere."""
    good = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if good and path.isascii() and path.isprintable() and "\\" not in path else "/"
