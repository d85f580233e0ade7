"""Whatever the gateway answers: one outcome, no exception, and approved only for an exact echo."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.outcome import Approved, Declined, NotSent, Unknown
from billing.portone.answer import Unreadable, envelope
from billing.portone.wire import IMP_UID, retry_after_seconds
from tests.unit.portone.ladder import ASKED, ECHO, NOW, outcome_of, wrapped

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from([*ECHO.values(), "failed", "ready", 9900.0, "9900", -9900, 1])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
payments = st.dictionaries(st.sampled_from([*ECHO, "extra"]), anything).map(
    lambda changes: {**ECHO, **changes}
)
envelopes = st.fixed_dictionaries(
    {"code": st.sampled_from([0, 0, 0, 1, -1, True, "0", None]), "message": anything},
    optional={"response": payments | anything},
)
statuses = st.sampled_from([200, 200, 200, 200, 401, 404, 429, 500, 302])


def echoes(body: bytes, sandbox: bool) -> bool:
    """Said once more, differently: what an approval must rest on."""
    try:
        answered = json.loads(body)
        payment = answered["response"]
        return (
            type(answered["code"]) is int
            and answered["code"] == 0
            and payment["status"] == "paid"
            and payment["merchant_uid"] == "mw-1"
            and payment.get("customer_uid") in (None, "", "customer")
            and type(payment["amount"]) in (int, float)
            and payment["amount"] == 9900
            and payment.get("currency") in (None, "", "KRW")
            and payment.get("sandbox") in (None, sandbox)
            and type(payment.get("sandbox")) in (type(None), bool)
            and bool(payment["imp_uid"])
            and payment["paid_at"] >= 1
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


@given(statuses, envelopes, st.booleans())
def test_any_envelope(status: int, answered: object, sandbox: bool) -> None:
    body = json.dumps(answered).encode()
    match outcome_of(status, body, sandbox):
        case Approved() as approved:
            assert status == 200
            assert echoes(body, sandbox)
            assert approved.amount == ASKED.amount
        case Declined() as declined:
            payment = json.loads(body)["response"]
            assert (status, payment["status"]) == (200, "failed")
            assert payment["merchant_uid"] == "mw-1"
            declined.message.encode()  # can be stored
            assert declined.imp_uid is None or IMP_UID.fullmatch(declined.imp_uid)
        case NotSent(credentials=True):
            assert status == 401
        case Unknown() as unknown:
            assert unknown.slow_down == (status == 429)
            (unknown.refusal or "").encode()
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("paid_at", [-1, -0.5, -1_732_400_000])
def test_paid_before_there_was_a_gateway_is_unknown(paid_at: float) -> None:
    """The look-up that follows tells what became of it."""
    assert outcome_of(200, wrapped({**ECHO, "paid_at": paid_at})) == Unknown(
        "paid_at is before 1970"
    )


@given(st.binary(max_size=300))
def test_any_bytes(body: bytes) -> None:
    assert isinstance(outcome_of(200, body), Unknown)


@given(st.integers(0, 400), st.integers(0, 255))
def test_any_single_damage_never_approves_something_else(at: int, value: int) -> None:
    whole = bytearray(wrapped(ECHO))
    whole[at % len(whole)] = value
    body = bytes(whole)
    if isinstance(outcome_of(200, body), Approved):
        assert echoes(body, False)


@given(st.integers(0, 400))
def test_any_cut_is_unknown(length: int) -> None:
    whole = wrapped(ECHO)
    assert isinstance(outcome_of(200, whole[: length % len(whole)]), Unknown)


@pytest.mark.parametrize("field", ["amount", "merchant_uid", "customer_uid", "currency", "sandbox"])
@given(value=scalars)
def test_no_field_may_differ(field: str, value: object) -> None:
    body = wrapped({**ECHO, field: value})
    assert isinstance(outcome_of(200, body), Approved) == echoes(body, False)


@pytest.mark.parametrize("status", ["paid", "failed"])
@pytest.mark.parametrize("imp_uid", ["imp_" + "1" * 61, "imp 1", "imp_1\n", "결제"])
def test_an_imp_uid_that_does_not_fit_its_column_is_unknown(status: str, imp_uid: str) -> None:
    facts = {"failed": {"paid_at": 0}, "paid": {}}[status]
    payment = {**ECHO, **facts, "status": status, "imp_uid": imp_uid}
    body = wrapped(payment)
    assert outcome_of(200, body) == Unknown("imp_uid is malformed")


@pytest.mark.parametrize("imp_uid", [None, "", "imp_" + "1" * 60])
def test_a_decline_may_be_without_an_imp_uid(imp_uid: str | None) -> None:
    payment = {**ECHO, "paid_at": 0, "status": "failed", "imp_uid": imp_uid}
    body = wrapped(payment)
    assert outcome_of(200, body) == Declined("", imp_uid or None)


@given(st.binary(max_size=200))
def test_an_envelope_is_read_or_unreadable(body: bytes) -> None:
    try:
        code: object = envelope(body).code
    except Unreadable:
        code = 0
    assert type(code) is int


@given(st.text(max_size=40) | st.integers().map(str))
def test_retry_after_is_bounded(header: str) -> None:
    seconds = retry_after_seconds(header, NOW)
    assert seconds is None or 0 <= seconds <= 900
