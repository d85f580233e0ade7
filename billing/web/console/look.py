"""How the console looks: templates, texts, formats, language, theme; the word after an action."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from fastapi import Request
from itsdangerous import BadSignature
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

import billing
from billing.presenting import told
from billing.presenting.formats import Formats
from billing.store import health
from billing.web.edge import Edge, edge_of
from billing.web.texts import texts_for

THEME_COOKIE: Final = "maewol_theme"
THEMES: Final = ("auto", "light", "dark")
FLASH_COOKIE: Final = "maewol_message"
# Browsers drop a cookie of more than 4,096 bytes, its name and attributes included.
_MOST_BYTES: Final = 3800
YEAR: Final = 365 * 24 * 60 * 60
# The pages, in the order of the menu: the name of the text, the path.
MENU: Final = (
    ("today", "/"),
    ("calendar", "/calendar"),
    ("money", "/money"),
    ("forecast", "/forecast"),
    ("subscriptions", "/subscriptions"),
    ("cycles", "/cycles"),
    ("events", "/events"),
    ("differences", "/differences"),
    ("notices", "/notices"),
    ("system", "/system"),
)
_STATIC: Final = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def render(request: Request, template: str, *, code: int = 200, **context: Any) -> Response:
    """A page. What every page shows to those who are in is read here: whether charging is on, and
    the message that waits."""
    t = texts_for(request)
    edge = edge_of(request)
    inside = getattr(request.state, "inside", False)
    message = _waiting(request) if inside else None
    page = _environment().get_template(template)
    body = page.render(
        t=t,
        f=Formats(t, edge.settings.zone),
        path=request.url.path,
        here=_here(request),
        theme=theme_of(request),
        menu=MENU,
        asset=_asset,
        version=billing.__version__,
        message=message,
        may_sign_out=edge.settings.console_password is not None,
        visit=getattr(request.state, "visit", None),
        form_token=getattr(request.state, "form_token", ""),
        standing=_standing(edge) if inside else None,
        **context,
    )
    response = HTMLResponse(body, status_code=code)
    # So that forms carry their origin; nothing of ours links elsewhere but to Flower.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Vary"] = "Accept-Language, Cookie"
    if message is not None:
        response.delete_cookie(FLASH_COOKIE)
    return response


def _standing(edge: Edge) -> Mapping[str, Any]:
    """What is told on top of every page."""
    with edge.book.transaction() as tx:
        state = health.read(tx.session)
        return {
            "now": tx.now,
            "hold": health.hold_reason(tx.session),
            "gateway_up": health.is_up(state, tx.now),
            "sandbox": edge.policy.sandbox,
        }


def _here(request: Request) -> str:
    """This page, to come back to after a change of language."""
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.url.path}{query}" if request.method == "GET" else request.url.path


def theme_of(request: Request) -> str:
    """As chosen; `auto` follows the browser."""
    asked = request.query_params.get("theme") or request.cookies.get(THEME_COOKIE)
    return asked if asked in THEMES else "auto"


def tell(request: Request, path: str, kind: str, text: str) -> Response:
    """After an action: to a page of ours, with a message. `kind` is done, warning or refused."""
    response = RedirectResponse(path, status_code=303)
    response.set_cookie(
        FLASH_COOKIE,
        _sealed(request, kind, text),
        max_age=60,
        httponly=True,
        samesite="strict",
        secure=is_https(request),
    )
    return response


def _sealed(request: Request, kind: str, text: str) -> str:
    """The message for a cookie, cut where it takes more room than one has: how much that is depends
    on its characters."""
    seal = request.app.state.visits.sealed("message")
    while len(kept := str(seal.dumps([kind, text]))) > _MOST_BYTES:
        text = f"{text[: len(text) * 3 // 4]}…"
    return kept


def _waiting(request: Request) -> tuple[str, str] | None:
    kept = request.cookies.get(FLASH_COOKIE)
    if not kept:
        return None
    try:
        kind, text = request.app.state.visits.sealed("message").loads(kept)
    except (BadSignature, ValueError, TypeError):
        return None
    return str(kind), str(text)


def is_https(request: Request) -> bool:
    """Whether the browser speaks TLS; a proxy's word is enough, since a wrong one only keeps the
    cookie from coming back."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))


def static(name: str) -> Response | None:
    """A file of ours; None when there is no such."""
    kind = _STATIC.get(name)
    if kind is None:
        return None
    headers = {"Cache-Control": f"public, max-age={YEAR}, immutable"}
    return Response(_content(name), media_type=kind, headers=headers)


def _asset(name: str) -> str:
    """The address of a file of ours; another one whenever it changes."""
    return f"/console/static/{name}?v={hashlib.sha256(_content(name)).hexdigest()[:12]}"


@cache
def _content(name: str) -> bytes:
    return files("billing.web.console").joinpath("static", name).read_bytes()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("billing.web.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["told"] = told.event
    return environment
