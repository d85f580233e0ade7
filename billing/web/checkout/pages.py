"""The pages of the checkout: templates, files, and what the gateway's script may do on them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from billing.presenting.texts import Language
from billing.web.texts import COOKIE, texts_for

_FOLDER = files("billing.web.checkout")
_TYPES = {"checkout.css": "text/css", "checkout.js": "text/javascript"}
_GATEWAY = ".iamport.kr"
_POLICY = (
    "default-src 'none'; script-src 'self' {sdk}; frame-src {sdk}; connect-src 'self'{more};"
    " style-src 'self'; img-src 'self' data:{more}; form-action 'self'{more};"
    " frame-ancestors 'none'; base-uri 'none'"
)


def page(request: Request, name: str, status: int = 200, **values: object) -> Response:
    """One page in the visitor's language, which it remembers where it was asked for by name."""
    t = texts_for(request)
    other = "en" if t.language == "ko" else "ko"
    made = _templates().get_template(name)
    switch = request.url.include_query_params(lang=other)
    text = made.render(t=t, other=other, switch=f"{switch.path}?{switch.query}", **values)
    answer = HTMLResponse(text, status)
    if request.query_params.get("lang") in ("en", "ko"):
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, t.language, httponly=True, samesite="lax", secure=secure)
    return answer


def file(name: str) -> Response | None:
    """A script or style of the checkout; None for anything else."""
    kind = _TYPES.get(name)
    if kind is None:
        return None
    content = _FOLDER.joinpath("static", name).read_bytes()
    return Response(content, media_type=f"{kind}; charset=utf-8")


def headers_with_sdk(sdk_url: str) -> Mapping[str, str]:
    """The page that opens the payment window: the gateway's script and frame, and nothing else.

    The gateway's own script comes from one host of its and opens frames of another; and it may
    open a window that speaks to this one.
    """
    parts = urlsplit(sdk_url)
    sdk = f"{parts.scheme}://{parts.netloc}"
    more = ""
    if (parts.hostname or "").endswith(_GATEWAY):
        more = f" https://*{_GATEWAY}"
    return {
        "Content-Security-Policy": _POLICY.format(sdk=sdk + more, more=more),
        "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
    }


def day(value: date, language: Language) -> str:
    """A date as people write it."""
    if language == "ko":
        return f"{value.year}년 {value.month}월 {value.day}일"
    return f"{value.day} {value:%B} {value.year}"


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(str(_FOLDER.joinpath("templates"))),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["won"] = lambda amount: f"{amount:,}"
    made.filters["day"] = day
    return made
