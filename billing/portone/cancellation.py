"""The ladder of `POST /payments/cancel`: what its answer proves (docs/gateway.md §8).

The same two questions as for a charge (`wire`): could the request have left, and does the answer
prove what became of it? A request without a whole answer is judged by `wire.outcome_of_failure`.

| seen                                                   | outcome                             |
|--------------------------------------------------------|-------------------------------------|
| refused, unreachable, DNS, TLS, connect or pool wait   | NotSent                             |
| no token to be had                                     | NotSent, credentials if refused     |
| a request that could not be built                      | NotSent, our fault                  |
| anything else without a whole answer                   | Unknown                             |
| 401 (a second time; the client resends once)           | NotSent, credentials                |
| 429                                                    | Unknown, slow down                  |
| 3xx, other 4xx, 5xx, unreadable body                   | Unknown                             |
| 200, code ≠ 0                                          | Unknown, with the refusal's text    |
| 200, code 0, another payment                           | Unknown, contradiction              |
| 200, code 0, cancelled in part                         | Unknown, contradiction              |
| 200, code 0, ours, cancelled, whole                    | Cancelled                           |
| 200, code 0, any other status                          | Unknown                             |

A refusal is a text, not proof: "already cancelled" and "not found" come with the same code. The
look-up that follows decides.
"""

from __future__ import annotations

import json
from datetime import datetime

from billing.domain.outcome import NotSent, Unknown
from billing.domain.refund import Cancelled, CancelOutcome, CancelRequest
from billing.portone import fields, rows
from billing.portone.answer import Answer, Envelope, Unreadable, envelope
from billing.portone.wire import IMP_UID, Unsendable, retry_after_seconds

# The gateway shows the reason in its console; longer texts help nobody there.
LONGEST_REASON = 200

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def cancel_body(asked: CancelRequest) -> bytes:
    """The JSON of the request. Raises `Unsendable` or `UnicodeError`.

    No `amount`: without one the gateway cancels in full, which is all that phone billing knows.
    `checksum` is the balance that we believe in; the gateway refuses when it holds another, so that
    a second request for the same payment can do nothing.
    """
    if not IMP_UID.fullmatch(asked.imp_uid):
        raise Unsendable("imp_uid")
    body = {
        "imp_uid": asked.imp_uid,
        "checksum": asked.amount.amount,
        "reason": asked.reason[:LONGEST_REASON],
    }
    return _ENCODER.encode(body).encode("utf-8")


def outcome_of_answer(answer: Answer, asked: CancelRequest, *, now: datetime) -> CancelOutcome:
    """What a whole answer proves. `now` is for a `Retry-After` with a date. Raises nothing."""
    match answer.status:
        case 200:
            try:
                return _outcome_of_envelope(envelope(answer.body), asked)
            except Unreadable as error:
                return Unknown(str(error))
        case 401:
            return NotSent("HTTP 401: the token was refused twice", credentials=True)
        case 429:
            wait = retry_after_seconds(answer.retry_after, now)
            return Unknown("HTTP 429", slow_down=True, retry_after_seconds=wait)
    return Unknown(f"HTTP {answer.status}")


def _outcome_of_envelope(answered: Envelope, asked: CancelRequest) -> CancelOutcome:
    if answered.code != 0:
        if answered.response is not None:
            return Unknown(f"code {answered.code} with a payment in it")
        said = fields.message(answered.message) or f"code {answered.code}"
        return Unknown(f"code {answered.code}", refusal=said)
    payment = rows.payment(answered.response)
    if payment.imp_uid != asked.imp_uid:
        return Unknown("the answer is about another payment", contradiction=True)
    if payment.status != "cancelled":
        if payment.cancelled_amount.amount:
            return Unknown("cancelled in part", contradiction=True)
        return Unknown("the payment is not cancelled in the answer")
    if payment.cancelled_amount != asked.amount:
        return Unknown("cancelled in part", contradiction=True)
    if payment.cancelled_at is None:
        return Unknown("cancelled, without a moment")
    return Cancelled(payment.imp_uid, payment.cancelled_at)
