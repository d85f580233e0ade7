"""The ladder: what one charge request's answer, or failure, proves (docs/gateway.md §3).

This is the only table of its kind. Two questions decide every rung: could the request have left,
and does the answer prove what became of it? Whatever is not proven is `Unknown`.

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
| 200, code 0, paid, everything echoed                   | Approved                            |
| 200, code 0, something else than we asked              | Unknown, contradiction              |
| 200, code 0, failed, our order                         | Declined                            |
| 200, code 0, ready, cancelled, a new word              | Unknown                             |
"""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime
from email.utils import parsedate_to_datetime

import httpx

from billing.domain.errors import GatewayRefused, GatewayUnavailable
from billing.domain.money import CURRENCY, Won
from billing.domain.outcome import Approved, Declined, NotSent, Outcome, Unknown
from billing.portone import fields
from billing.portone.answer import Answer, Envelope, Unreadable, envelope
from billing.ports import ChargeRequest

# The gateway's limits (docs/gateway.md §3); the charset is ours, narrower on purpose.
_MERCHANT_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
IMP_UID = re.compile(r"[A-Za-z0-9_-]{1,64}")
LONGEST_CUSTOMER_UID = 80

# However long the gateway asks us to wait, a look sooner than this costs nothing (reliability G4).
LONGEST_RETRY_AFTER = 900.0

# Not escaping: half a surrogate then fails to encode, instead of leaving as an escape.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Unsendable(Exception):
    """A request that must not be sent as it is: a fault of ours."""


def charge_body(asked: ChargeRequest) -> bytes:
    """The JSON of `POST /subscribe/payments/again`: what identifies the order, what the carrier
    compares with last month, and nothing else. Raises `Unsendable` or `UnicodeError`."""
    if not _MERCHANT_UID.fullmatch(asked.merchant_uid):
        raise Unsendable("merchant_uid")
    if not 0 < len(asked.customer_uid) <= LONGEST_CUSTOMER_UID:
        raise Unsendable("customer_uid")
    if not asked.order_name:
        raise Unsendable("order_name")
    body: dict[str, str | int] = {
        "customer_uid": asked.customer_uid,
        "merchant_uid": asked.merchant_uid,
        "amount": asked.amount.amount,
        "name": asked.order_name,
    }
    buyer = asked.buyer
    for name, value in (
        ("buyer_name", buyer.name),
        ("buyer_email", buyer.email),
        ("buyer_tel", buyer.tel),
    ):
        if value:
            body[name] = value
    return _ENCODER.encode(body).encode("utf-8")


def outcome_of_failure(error: BaseException, *, may_have_left: bool) -> NotSent | Unknown:
    """What it means that there is no whole answer.

    `may_have_left` is False only while no charge request was handed to the transport, or the last
    one was answered 401.
    """
    why = type(error).__name__
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
            return NotSent(f"never connected: {why}")
        case httpx.ProxyError():
            return NotSent(f"never connected: {why}")
        case httpx.LocalProtocolError() | httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return NotSent(f"request could not be built: {why}", our_fault=True)
    if may_have_left:
        return Unknown(str(error) if isinstance(error, Unreadable) else f"no answer: {why}")
    match error:
        case GatewayRefused():
            return NotSent(f"no token: {error}", credentials=True)
        case GatewayUnavailable():
            return NotSent(f"no token: {error}")
        case TimeoutError() | asyncio.CancelledError():
            return NotSent(f"given up before sending: {why}")
    return NotSent(f"request could not be built: {why}", our_fault=True)


def outcome_of_answer(
    answer: Answer, asked: ChargeRequest, *, sandbox: bool, now: datetime
) -> Outcome:
    """What a whole answer proves. `sandbox` says which kind of payment we deal with; `now` is only
    for a `Retry-After` that names a date. Raises nothing."""
    match answer.status:
        case 200:
            try:
                return _outcome_of_envelope(envelope(answer.body), asked, sandbox)
            except Unreadable as error:
                return Unknown(str(error))
        case 401:
            return NotSent("HTTP 401: the token was refused twice", credentials=True)
        case 429:
            wait = retry_after_seconds(answer.retry_after, now)
            return Unknown("HTTP 429", slow_down=True, retry_after_seconds=wait)
    return Unknown(f"HTTP {answer.status}")


def _outcome_of_envelope(answered: Envelope, asked: ChargeRequest, sandbox: bool) -> Outcome:
    if answered.code != 0:
        if answered.response is not None:
            return Unknown(f"code {answered.code} with a payment in it")
        said = fields.message(answered.message) or f"code {answered.code}"
        return Unknown(f"code {answered.code}", refusal=said)
    payment = fields.row(answered.response)
    # Whose order it is comes first: another's answer proves nothing about ours.
    if fields.needed_text(payment, "merchant_uid") != asked.merchant_uid:
        return _contradiction("merchant_uid")
    status = fields.needed_text(payment, "status")
    match status:
        case "paid":
            return _paid(payment, asked, sandbox)
        case "failed":
            return _failed(payment, asked)
        case "ready" | "cancelled":
            return Unknown(f"status {status}")
    return Unknown("a status that is not known")


def _paid(payment: fields.Row, asked: ChargeRequest, sandbox: bool) -> Outcome:
    """Approved only if the answer echoes everything that we asked for."""
    amount = fields.needed_amount(payment, "amount")
    currency = fields.text(payment, "currency")
    customer_uid = fields.text(payment, "customer_uid")
    if amount != asked.amount.amount:
        return _contradiction("amount")
    # What an answer leaves out contradicts nothing: the order and the amount are ours.
    if currency not in (None, CURRENCY):
        return _contradiction("currency")
    if customer_uid is not None and customer_uid != asked.customer_uid:
        return _contradiction("customer_uid")
    if fields.flag(payment, "sandbox") not in (None, sandbox):
        return _contradiction("sandbox", other_mode=True)
    imp_uid = fields.needed_text(payment, "imp_uid")
    if not IMP_UID.fullmatch(imp_uid):
        return Unknown("imp_uid is malformed")
    paid_at = fields.needed_moment(payment, "paid_at")
    if paid_at.timestamp() < 0:
        return Unknown("paid_at is before 1970")
    return Approved(imp_uid, Won(amount), paid_at)


def _failed(payment: fields.Row, asked: ChargeRequest) -> Outcome:
    if fields.text(payment, "customer_uid") not in (None, asked.customer_uid):
        return _contradiction("customer_uid")
    if fields.moment(payment, "paid_at") is not None:
        return Unknown("failed, yet paid_at is set")
    imp_uid = fields.text(payment, "imp_uid")
    if imp_uid is not None and not IMP_UID.fullmatch(imp_uid):
        return Unknown("imp_uid is malformed")
    return Declined(fields.message(payment.get("fail_reason")), imp_uid)


def _contradiction(field: str, *, other_mode: bool = False) -> Unknown:
    why = f"the answer has another {field}"
    return Unknown(why, contradiction=True, other_mode=other_mode)


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """`Retry-After` in seconds, in both spellings, capped; None when it cannot be understood."""
    if header is None:
        return None
    header = header.strip()
    if re.fullmatch(r"[0-9]{1,9}", header):
        return min(float(header), LONGEST_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(header)
        seconds = (until - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
