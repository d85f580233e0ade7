"""What every route of the console goes through, so that none can forget it.

before   may they come in (a session, or this machine where no password is set); is a form ours
after    the cookie; errors as a page in the reader's language
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from billing.domain.errors import BillingError, GatewayError, InvalidSetting
from billing.store.session import is_away
from billing.web.access import is_local
from billing.web.console import look
from billing.web.console.visit import COOKIE, Visits
from billing.web.edge import edge_of
from billing.web.problems import status_of

_log = logging.getLogger(__name__)

# Our forms are small; more is not read.
_LARGEST_FORM = 16 * 1024
_FORM = "application/x-www-form-urlencoded"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Room(APIRoute):
    """A route for people who were let in."""

    needs_sign_in = True

    def get_route_handler(self) -> Handler:
        """The route's own handler, with the door before it."""
        handler = super().get_route_handler()

        async def through_the_door(request: Request) -> Response:
            try:
                response = await self._enter(request, handler)
            except (HTTPException, RequestValidationError, BillingError, OperationalError) as error:
                response = await run_in_threadpool(_error_page, request, error)
            except Exception as error:
                known = error if is_away(error) else None
                if known is None:
                    # For the log; the page tells nothing of it.
                    _log.exception("a page failed")
                response = await run_in_threadpool(_error_page, request, known)
            return response

        return through_the_door

    async def _enter(self, request: Request, handler: Handler) -> Response:
        _refuse_strangers(request)
        visits: Visits = request.app.state.visits
        visit = await run_in_threadpool(visits.of, request)
        request.state.visit = visit
        request.state.form_token = visits.token(visit)
        with_password = edge_of(request).settings.console_password is not None
        if self.needs_sign_in and with_password and not visit.signed_in:
            return _to_sign_in(request)
        request.state.inside = self.needs_sign_in
        if request.method not in ("GET", "HEAD"):
            await _check_form(request)
        response = await handler(request)
        cookie = visits.cookie(request, request.state.visit)
        if cookie is not None:
            response.set_cookie(
                COOKIE, cookie, httponly=True, samesite="strict", secure=look.is_https(request)
            )
        return response


class Porch(Room):
    """A route that can be seen before signing in."""

    needs_sign_in = False


def _refuse_strangers(request: Request) -> None:
    if edge_of(request).settings.console_password is None and not is_local(request):
        raise HTTPException(403, "local_only")
    # A page elsewhere may lead people here, but not load from here behind their backs.
    site, mode = (request.headers.get(f"sec-fetch-{name}") for name in ("site", "mode"))
    if site in ("cross-site", "same-site") and mode != "navigate":
        raise HTTPException(403, "elsewhere")


def _to_sign_in(request: Request) -> Response:
    if request.method != "GET" or "x-refresh" in request.headers:
        raise HTTPException(401, "session_over")
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/sign-in?next={quote(wanted, safe='')}", status_code=303)


async def _check_form(request: Request) -> None:
    """A form of ours, of this visit, from a page of ours. Raises 403, 413, 415."""
    if request.headers.get("content-type", "").partition(";")[0] != _FORM:
        raise HTTPException(415, "form")
    length = request.headers.get("content-length", "")
    if not length.isascii() or not length.isdigit() or int(length) > _LARGEST_FORM:
        raise HTTPException(413, "form")
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin is not None and _host_of(origin) != request.headers.get("host"):
        raise HTTPException(403, "elsewhere")
    if site not in (None, "same-origin"):
        raise HTTPException(403, "elsewhere")
    given = (await request.form(max_files=0, max_fields=30)).get("token")
    wanted = request.state.form_token
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), wanted.encode()):
        raise HTTPException(403, "stale_form")


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        # An open bracket; no browser sends it.
        return ""


def _error_page(request: Request, error: Exception | None) -> Response:
    status, about, detail = _told(error)
    if error is None or _is_of_the_database(error):
        # The database may be what is missing: a page without anything from it.
        request.state.inside = False
    return look.render(request, "error.html", code=status, about=about, detail=detail)


def _is_of_the_database(error: Exception) -> bool:
    return isinstance(error, OperationalError) or is_away(error)


def _told(error: Exception | None) -> tuple[int, str, str]:
    """The status, the text that explains it, and what the use case said."""
    match error:
        case HTTPException():
            known = error.detail in _ABOUT
            about = str(error.detail) if known else f"status_{error.status_code}"
            return error.status_code, about, ""
        case RequestValidationError():
            return 422, "status_422", ""
        case Exception() if _is_of_the_database(error):
            return 503, "database", ""
        case InvalidSetting():
            return 503, "setting", str(error)
        case GatewayError():
            return 502, "gateway", str(error)
        case BillingError():
            status = status_of(error)
            return status, f"status_{status}", str(error)
        case _:
            return 500, "status_500", ""


_ABOUT = frozenset({"local_only", "elsewhere", "session_over", "stale_form", "form"})
