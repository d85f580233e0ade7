"""What the sandbox's pages share: templates, files, headers, and who may press a button."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from billing.sandbox.words import Language, Words

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors {frames}"
)
_TYPES = {"css": "text/css", "js": "text/javascript"}
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def rendered(
    name: str,
    language: Language,
    values: Mapping[str, object],
    *,
    status: int = 200,
    framed: bool = False,
) -> Response:
    """A page. `framed`: another site may show it in a frame, as the payment window is."""
    text = _templates().get_template(name).render(w=Words(language), lang=language, **values)
    return HTMLResponse(text, status, headers=_headers(framed))


def file(name: str) -> Response | None:
    """A script or style of ours; None for anything else."""
    found = _files().get(name)
    if found is None:
        return None
    kind = _TYPES[name.rpartition(".")[2]]
    # The SDK is loaded by pages of the merchant.
    headers = {
        "Cache-Control": "no-cache",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(found, media_type=f"{kind}; charset=utf-8", headers=headers)


def is_foreign(request: Request) -> bool:
    """Whether a page of somebody else sent this request, as its browser tells."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def is_disguised(request: Request) -> bool:
    """Whether a browser came by another name than this machine's: a page elsewhere can make a name
    of its own lead here."""
    browser = "sec-fetch-site" in request.headers or "origin" in request.headers
    return browser and request.url.hostname not in _LOCAL_NAMES


def _headers(framed: bool) -> dict[str, str]:
    return {
        "Content-Security-Policy": _POLICY.format(frames="*" if framed else "'none'"),
        "Cache-Control": "no-store",
        # With none at all a browser would not say either which page sent a form.
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }


@cache
def _templates() -> Environment:
    folder = str(files("billing.sandbox").joinpath("templates"))
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["won"] = lambda amount: f"{amount:,}"
    return made


@cache
def _files() -> Mapping[str, bytes]:
    folder = files("billing.sandbox").joinpath("static")
    return {
        one.name: one.read_bytes()
        for one in folder.iterdir()
        if one.name.rpartition(".")[2] in _TYPES
    }
