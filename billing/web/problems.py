"""Errors as problem documents (RFC 9457): what is wrong, where, and what to do about it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing.domain.errors import (
    BillingError,
    Conflict,
    GatewayError,
    InvalidInput,
    InvalidSetting,
    NotFound,
    TransitionRefused,
)
from billing.store.session import is_away

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
# The names of fields come from the request.
_LONGEST_FIELD = 100
_MOST_ERRORS = 20
# The first that fits; a subclass stands before its base.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (TransitionRefused, 409),
    # The caller did nothing wrong: a setting of ours is missing.
    (InvalidSetting, 503),
    (InvalidInput, 422),
    (GatewayError, 502),
    (OperationalError, 503),
)


class Problem(BaseModel):
    """RFC 9457; `errors` names the fields that are wrong."""

    type: str = "about:blank"
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str = Field("", examples=["imp_1 is cancelled, not paid"])
    errors: list[dict[str, str]] | None = Field(
        None, examples=[[{"field": "amount", "problem": "Input should be a valid integer"}]]
    )


def answer(status: int, detail: str = "", errors: list[dict[str, str]] | None = None) -> Response:
    """A problem document as a response."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors)
    return JSONResponse(
        problem.model_dump(exclude_none=True), status_code=status, media_type=MEDIA_TYPE
    )


def install(app: FastAPI) -> None:
    """Turn everything that a route raises into a problem document."""
    app.add_exception_handler(BillingError, _ours)
    app.add_exception_handler(DBAPIError, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(PoolTimeout, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)


def status_of(error: Exception) -> int:
    """The status that fits what a use case or the database raised."""
    if is_away(error):
        # Also one that only reads just now, as after a failover, and one that is too busy.
        return 503
    return next((number for kind, number in _STATUS if isinstance(error, kind)), 500)


async def _ours(_: Request, error: Exception) -> Response:
    status = status_of(error)
    if status == 500:
        raise error
    if status == 503 and not isinstance(error, BillingError):
        # The driver's words may hold an address or a query.
        return answer(503, "the database cannot be reached")
    if isinstance(error, InvalidInput) and not isinstance(error, InvalidSetting):
        return answer(status, str(error), [{"field": error.field, "problem": error.problem}])
    return answer(status, str(error))


async def _http(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    answered = answer(error.status_code, str(error.detail or ""))
    answered.headers.update(error.headers or {})
    return answered


async def _invalid(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    # Values are left out: they may be somebody's data.
    wrong: list[dict[str, str]] = [
        {"field": _named(one), "problem": str(one["msg"])} for one in error.errors()[:_MOST_ERRORS]
    ]
    return answer(422, "the request does not fit its description", wrong)


def _named(error: Mapping[str, Any]) -> str:
    """The field, or `body` where the body is none that has fields."""
    where, *parts = error["loc"]
    if not parts or error["type"] == "json_invalid":
        # Of a body that is no JSON the place is told, which is a number of bytes and no name.
        parts = [where]
    return ".".join(str(part) for part in parts)[:_LONGEST_FIELD]


class Unexpected:
    """Answers what nobody else caught, behind whoever adds headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; a route's mistake is a line in the log and a problem document."""
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            if scope["type"] != "http" or started:
                raise
            _log.exception("a route failed")
            await answer(500, "an error of ours; the log tells more")(scope, receive, send)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of the errors of a route; `component` describes the document."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def component() -> dict[str, Any]:
    """The schema that `described` refers to."""
    return Problem.model_json_schema(ref_template="#/components/schemas/{model}")
