"""A charge that was asked for, the answer that echoes it, and how answers are wrapped."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from billing.domain.money import Won
from billing.domain.outcome import Outcome
from billing.portone.answer import Answer
from billing.portone.wire import outcome_of_answer
from billing.ports import Buyer, ChargeRequest

NOW = datetime(2024, 11, 24, tzinfo=UTC)
ASKED = ChargeRequest("customer", "mw-1", Won(9900), "plan", Buyer())
ECHO: dict[str, Any] = {
    "imp_uid": "imp_1",
    "merchant_uid": "mw-1",
    "customer_uid": "customer",
    "amount": 9900,
    "currency": "KRW",
    "status": "paid",
    "sandbox": False,
    "paid_at": 1_732_400_000,
    "failed_at": 0,
    "fail_reason": None,
}


def wrapped(response: object, code: object = 0, message: object = None) -> bytes:
    """The body of an answer, in the gateway's envelope."""
    return json.dumps({"code": code, "message": message, "response": response}).encode()


def listed(*rows: object, more: int = 0, total: int | None = None) -> Answer:
    """One page of a list in the gateway's own words."""
    response = {"list": list(rows), "next": more, "total": len(rows) if total is None else total}
    return Answer(200, wrapped(response))


ABSENT = Answer(404, wrapped(None, code=-1, message="존재하지 않는 결제정보입니다."))

# What a gateway without a network says: an answer, a break, or nothing at all.
Said = Answer | Exception | None


async def told(says: list[Said]) -> Answer:
    """The next of these, the last again and again."""
    said = says.pop(0) if len(says) > 1 else says[0]
    if said is None:
        await asyncio.Event().wait()
    if isinstance(said, Exception):
        raise said
    assert isinstance(said, Answer)
    return said


def outcome_of(status: int, body: bytes, sandbox: bool = False) -> Outcome:
    """What an answer to the charge proves."""
    return outcome_of_answer(Answer(status, body), ASKED, sandbox=sandbox, now=NOW)
