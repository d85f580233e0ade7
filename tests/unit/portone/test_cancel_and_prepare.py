"""What the answer to a cancellation proves, rung by rung, and to a pinned amount."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from billing.domain.errors import GatewayRefused, GatewayUnavailable
from billing.domain.money import Won
from billing.domain.outcome import NotSent, Unknown
from billing.domain.refund import Cancelled, CancelRequest
from billing.portone import cancellation, preparation
from billing.portone.answer import Answer
from billing.portone.wire import Unsendable
from tests.unit.portone.ladder import wrapped

NOW = datetime(2026, 11, 20, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
ASKED = CancelRequest("imp_1", "mw-1", Won(9900), "asked by the customer")
ROW = {
    "imp_uid": "imp_1",
    "merchant_uid": "mw-1",
    "status": "cancelled",
    "amount": 9900,
    "cancel_amount": 9900,
    "cancelled_at": SECONDS,
}


def answer(response: object, code: object = 0, message: object = None) -> Answer:
    return Answer(200, wrapped(response, code, message))


def test_the_request_asks_for_all_of_one_payment() -> None:
    body = cancellation.cancel_body(CancelRequest("imp_1", "mw-1", Won(9900), "이" * 201))
    assert json.loads(body) == {"imp_uid": "imp_1", "checksum": 9900, "reason": "이" * 200}
    assert b"\\u" not in body
    assert b" " not in body


def test_a_payment_that_cannot_be_named_is_not_asked_about() -> None:
    with pytest.raises(Unsendable, match=r"^imp_uid$"):
        cancellation.cancel_body(CancelRequest("imp 1", "mw-1", Won(9900), ""))


@pytest.mark.parametrize(
    ("given", "proved"),
    [
        (answer(ROW), Cancelled("imp_1", NOW)),
        (
            answer({**ROW, "imp_uid": "imp_2"}),
            Unknown("the answer is about another payment", contradiction=True),
        ),
        (answer({**ROW, "cancel_amount": 9899}), Unknown("cancelled in part", contradiction=True)),
        (
            answer({**ROW, "status": "paid", "cancel_amount": 1}),
            Unknown("cancelled in part", contradiction=True),
        ),
        (
            answer({**ROW, "status": "paid", "cancel_amount": 0}),
            Unknown("the payment is not cancelled in the answer"),
        ),
        (answer({**ROW, "cancelled_at": 0}), Unknown("cancelled, without a moment")),
        (answer(None, 1, "기 취소 거래"), Unknown("code 1", refusal="기 취소 거래")),
        (answer(None, -1), Unknown("code -1", refusal="code -1")),
        (answer(ROW, 1, "no"), Unknown("code 1 with a payment in it")),
        (Answer(200, b"<html>"), Unknown("not JSON")),
        (Answer(401, b""), NotSent("HTTP 401: the token was refused twice", credentials=True)),
        (
            Answer(429, b"", "7"),
            Unknown("HTTP 429", slow_down=True, retry_after_seconds=7),
        ),
        (Answer(500, json.dumps(ROW).encode()), Unknown("HTTP 500")),
        (Answer(302, b""), Unknown("HTTP 302")),
    ],
)
def test_what_an_answer_to_a_cancellation_proves(given: Answer, proved: object) -> None:
    assert cancellation.outcome_of_answer(given, ASKED, now=NOW) == proved


def test_the_request_for_a_pin() -> None:
    assert preparation.PATH == "/payments/prepare"
    told = json.loads(preparation.body("mw-1", Won(9900)))
    assert told == {"merchant_uid": "mw-1", "amount": 9900}


@pytest.mark.parametrize("amount", [9900, 9900.0, "9900", "9900.00"])
def test_a_pin_in_every_spelling(amount: object) -> None:
    given = answer({"merchant_uid": "mw-1", "amount": amount})
    assert preparation.is_done(given, "mw-1", Won(9900)) is True


def test_an_order_that_has_a_pin_already_is_looked_up() -> None:
    assert preparation.is_done(answer(None, 1, "이미 등록된"), "mw-1", Won(9900)) is False


@pytest.mark.parametrize(
    ("given", "kind", "why"),
    [
        (Answer(401, b""), GatewayRefused, "prepare: HTTP 401"),
        (Answer(403, b""), GatewayRefused, "prepare: HTTP 403"),
        (Answer(500, b""), GatewayUnavailable, "prepare: HTTP 500"),
        (Answer(201, answer(ROW).body), GatewayUnavailable, "prepare: HTTP 201"),
        (Answer(200, b"no"), GatewayUnavailable, "prepare: not JSON"),
        (answer(None), GatewayUnavailable, "prepare: the answer is about another order"),
        (
            answer({"merchant_uid": "mw-2", "amount": 9900}),
            GatewayUnavailable,
            "prepare: the answer is about another order",
        ),
        *(
            (
                answer({"merchant_uid": "mw-1", "amount": amount}),
                GatewayRefused,
                "prepare: the amount of the order is not pinned",
            )
            for amount in (9901, None, "many", "nan", "sNaN", "9900.0000000000000001", [9900])
        ),
    ],
)
def test_what_is_no_pin(given: Answer, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind) as raised:
        preparation.is_done(given, "mw-1", Won(9900))
    assert (type(raised.value), str(raised.value)) == (kind, why)


@pytest.mark.parametrize("row", [None, [], "9900"])
def test_an_order_that_is_not_shown_has_no_pin(row: object) -> None:
    with pytest.raises(GatewayRefused, match="not pinned"):
        preparation.check_pinned(row, Won(9900))
