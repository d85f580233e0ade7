"""`/openapi.json`, and `/docs`: the same as a page that needs no script and nothing from elsewhere.

Both under the rule of the API itself, and open to whoever is signed in to the console: a browser
has no way to send the token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, JSONResponse

from billing.web import problems
from billing.web.access import check_api_token
from billing.web.api.routes import Handler
from billing.web.console.visit import is_signed_in


class ReferenceRoute(APIRoute):
    """Asks for a session of the console, or for the API's credential."""

    def get_route_handler(self) -> Handler:
        """The framework's own handler behind both doors."""
        handle = super().get_route_handler()

        async def behind_a_door(request: Request) -> Response:
            if not await run_in_threadpool(is_signed_in, request):
                check_api_token(request)
            return await handle(request)

        return behind_a_door


router = APIRouter(route_class=ReferenceRoute, include_in_schema=False)

_METHODS = ("get", "post", "put", "patch", "delete")


@router.get("/openapi.json")
def openapi(request: Request) -> Response:
    """The description for programs."""
    return JSONResponse(description(request.app))


@router.get("/docs")
def page(request: Request) -> Response:
    """The description for people."""
    described = description(request.app)
    template = _environment().get_template("reference.html")
    return HTMLResponse(template.render(api=described, operations=list(_operations(described))))


@router.get("/docs/style.css")
def style() -> Response:
    """What the page looks like."""
    text = files("billing.web.api").joinpath("reference.css").read_text(encoding="utf-8")
    return Response(text, media_type="text/css")


def description(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = problems.component()
        app.openapi_schema = made
    return app.openapi_schema


@dataclass(frozen=True, slots=True)
class _Operation:
    """One route as the page shows it."""

    method: str
    path: str
    told: dict[str, Any]

    @property
    def anchor(self) -> str:
        return str(self.told["operationId"])

    @property
    def body(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Media types of the request's body with their schemas."""
        for media_type, content in self.told.get("requestBody", {}).get("content", {}).items():
            yield media_type, content.get("schema", {})


def _operations(described: dict[str, Any]) -> Iterator[_Operation]:
    for path, methods in described["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield _Operation(method.upper(), path, methods[method])


@cache
def _environment() -> Environment:
    made = Environment(loader=PackageLoader("billing.web.api", "."), autoescape=True)
    made.filters["kind"] = _kind
    made.filters["pretty"] = lambda value: json.dumps(value, ensure_ascii=False, indent=2)
    return made


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words: `integer`, `Subscription`, `list of Cycle`, `text or null`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(str(one) for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    named = schema.get("format") or schema.get("type") or "anything"
    return str(named)
