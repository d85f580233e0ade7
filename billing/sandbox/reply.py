"""What the gateway answers: an envelope, or something that breaks on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from billing.sandbox.faults import Fault

NO_SUCH_PAYMENT = "존재하지 않는 결제정보입니다."
NO_SUCH_BUYER = "등록되지 않은 구매자입니다."

Json = Mapping[str, object] | Sequence[object] | None


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer."""

    status: int
    body: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Broken:
    """An answer that does not arrive as it should; `reply` is what it would have been."""

    fault: Fault
    reply: Reply


def success(response: Json, status: int = 200) -> Reply:
    """`code` 0."""
    return Reply(status, {"code": 0, "message": None, "response": response})


def refusal(message: str, *, code: int = 1, status: int = 200) -> Reply:
    """`code` other than 0: the gateway did not do it."""
    return Reply(status, {"code": code, "message": message, "response": None})


def not_found(message: str = NO_SUCH_PAYMENT) -> Reply:
    """404 in the gateway's own envelope."""
    return refusal(message, code=-1, status=404)


def bad_request(message: str) -> Reply:
    """400: the query cannot be answered."""
    return refusal(message, code=-1, status=400)


def unauthorized(message: str = "Unauthorized") -> Reply:
    """401: the token or the credentials are refused, and nothing was done."""
    return refusal(message, code=-1, status=401)


def door(fault: Fault) -> Reply | None:
    """The answer of a fault that turns every request away at the door; None for other faults."""
    match fault.kind:
        case "unauthorized":
            return unauthorized()
        case "too_many":
            turned_away = refusal("Too Many Requests", code=-1, status=429)
            return Reply(429, turned_away.body, {"Retry-After": fault.argument})
    return None
