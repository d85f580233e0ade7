"""What every route of the API has in common: who may call it, and how a path names a customer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, Path, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from billing.domain.enrolment import LENGTHS, UNPRINTABLE
from billing.domain.errors import NotFound
from billing.web.access import bearer, check_api_token

PREFIX = "/v1"
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ApiRoute(APIRoute):
    """Asks for the credential before it reads anything else of the request."""

    def get_route_handler(self) -> Handler:
        """The framework's own handler behind the door."""
        handle = super().get_route_handler()

        async def behind_the_door(request: Request) -> Response:
            check_api_token(request)
            return await handle(request)

        return behind_the_door


# For the description alone; `ApiRoute` has asked by then.
Described = Depends(bearer)


class EncodedPaths:
    """Hands paths under `/v1` on as they were sent, with their percent signs.

    A `customer_uid` may hold a slash. Decoded, `a%2Fpause` would be the action `pause` on `a`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        raw = scope.get("raw_path") if scope["type"] == "http" else None
        if raw is not None and scope["path"].startswith(f"{PREFIX}/"):
            scope = {**scope, "path": raw.partition(b"?")[0].decode("latin-1")}
        await self._app(scope, receive, send)


def _customer_uid(
    customer_uid: Annotated[
        str,
        Path(
            description="The billing key's name, percent-encoded as one segment of the path.",
            min_length=1,
            examples=["customer-1"],
        ),
    ],
) -> str:
    """The name that one segment of the path means. Raises `NotFound` for what can be none."""
    try:
        name = unquote(customer_uid, errors="strict")
    except UnicodeDecodeError:
        name = ""
    if not name or len(name) > LENGTHS["customer_uid"] or UNPRINTABLE.search(name):
        raise NotFound("no subscription has such a customer_uid")
    return name


CustomerUid = Annotated[str, Depends(_customer_uid)]
