"""What is fuzzed: each target takes bytes from outside and swallows only documented errors.

Anything else that it raises is a find. Some bytes are valid on purpose (`SEEDS`), so that a change
of them gets past the first check.
"""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from zoneinfo import ZoneInfo

from billing.domain.declines import DeclineClass, DeclineTable
from billing.domain.enrolment import COLUMNS, new_subscription
from billing.domain.errors import Conflict, InvalidInput, InvalidSetting
from billing.domain.money import MINIMUM_CHARGE, Won
from billing.domain.outcome import Approved, Declined, NotSent, Unknown
from billing.domain.plan import Cron
from billing.domain.registration import Expected, registration
from billing.domain.webhook import STATUSES
from billing.portone import rows, webhook
from billing.portone.answer import Answer, Unreadable, envelope
from billing.portone.exchange import segment
from billing.portone.token import token_of
from billing.portone.wire import outcome_of_answer, retry_after_seconds
from billing.ports import Buyer, ChargeRequest
from billing.services.answer import MESSAGE_LENGTH, clean
from billing.services.csv_lines import records
from billing.services.forecast import moment_of
from billing.settings import Settings

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
SEOUL = ZoneInfo("Asia/Seoul")
ASKED = ChargeRequest("customer", "mw-1", Won(9900), "plan", Buyer())
BUILT_IN = files("billing.domain").joinpath("declines.toml").read_text(encoding="utf-8")
TABLE = DeclineTable.parse(BUILT_IN)
PAID = {
    "code": 0,
    "message": None,
    "response": {
        "imp_uid": "imp_1",
        "merchant_uid": "mw-1",
        "customer_uid": "customer",
        "amount": 9900,
        "currency": "KRW",
        "status": "paid",
        "sandbox": False,
        "paid_at": 1_732_400_000,
    },
}


def expect(what: bool) -> None:
    """What an error must say of itself."""
    assert what


def text_of(data: bytes) -> str:
    """Any text, halves of surrogate pairs included."""
    return data.decode("utf-8", "surrogateescape")


def answer_to_a_charge(data: bytes) -> None:
    """One of four outcomes, and approved only for the very order, amount and key."""
    status = (200, 200, 200, 401, 429, 500)[data[0] % 6] if data else 200
    found = outcome_of_answer(Answer(status, data[1:]), ASKED, sandbox=False, now=NOW)
    assert isinstance(found, Approved | Declined | NotSent | Unknown)
    if isinstance(found, Approved):
        said = json.loads(data[1:])["response"]
        assert (said["merchant_uid"], said["amount"], said["status"]) == ("mw-1", 9900, "paid")


def answer_to_a_look_up(data: bytes) -> None:
    try:
        answered = envelope(data)
        for row in (
            answered.response if isinstance(answered.response, list) else [answered.response]
        ):
            rows.payment(row)
    except Unreadable:
        return


def answer_with_a_token(data: bytes) -> None:
    from billing.domain.errors import GatewayError

    try:
        token_of(Answer(200, data), NOW)
    except GatewayError:
        return


def retry_after(data: bytes) -> None:
    seconds = retry_after_seconds(text_of(data), NOW)
    assert seconds is None or 0 <= seconds <= 900


def decline_text(data: bytes) -> None:
    assert isinstance(TABLE.classify(text_of(data)).decline_class, DeclineClass)


def table_of_declines(data: bytes) -> None:
    try:
        DeclineTable.parse(text_of(data))
    except InvalidInput as error:
        expect(bool(error.field == "DECLINES_FILE"))


def cron_line(data: bytes) -> None:
    try:
        cron = Cron.parse(text_of(data), field="CHARGE_CRON", for_each_day=True)
    except InvalidInput as error:
        expect(bool(error.field == "CHARGE_CRON"))
        expect(bool(error.remedy))
        return
    slot = cron.at_or_after(NOW, SEOUL)
    assert slot >= NOW


def setting(data: bytes) -> None:
    """One setting of any text: taken, or refused by its name."""
    names = [name for name in Settings.model_fields if name not in ("data_dir", "declines_file")]
    name = names[data[0] % len(names)] if data else names[0]
    text = text_of(data[1:])
    if "\0" in text:
        return
    try:
        Settings.load(**{name: text})
    except InvalidSetting as error:
        expect(bool(error.field.isupper()))


def moment(data: bytes) -> None:
    try:
        found = moment_of(text_of(data))
    except InvalidInput as error:
        expect(error.field == "--at")
        return
    assert found is not None
    assert found.tzinfo is not None


def csv_file(data: bytes) -> None:
    """Every line is read, or refused by its number; every row is a subscription, or refused."""
    try:
        for record in records(io.BytesIO(data)):
            row = dict.fromkeys(COLUMNS, "") | dict(zip(COLUMNS, record.cells, strict=False))
            try:
                new_subscription(row, NOW, SEOUL)
            except InvalidInput as error:
                expect(bool(error.field in COLUMNS))
    except InvalidInput:
        return


def shown_text(data: bytes) -> None:
    """What a terminal gets of the gateway's words: bounded, and no control or direction marks."""
    text = clean(text_of(data))
    assert len(text) <= MESSAGE_LENGTH
    text.encode()
    assert not any(unicodedata.category(one) in ("Cc", "Cs") for one in text)
    assert not {"\u202e", "\u2066", "\u2067", "\u2068", "\u2069"} & set(text)


def webhook_body(data: bytes) -> None:
    """Whatever is posted: refused, or an id that can be part of an address, and nothing else that
    is not ours."""
    content_type = ("application/json", "application/x-www-form-urlencoded")[data[:1] > b"m"]
    try:
        one = webhook.read(content_type, data[1:])
    except Unreadable:
        return
    assert segment("imp_uid", one.imp_uid) == one.imp_uid
    assert len(one.imp_uid) <= 64
    assert one.status is None or one.status in STATUSES
    assert one.merchant_uid is None or (one.merchant_uid.isascii() and len(one.merchant_uid) <= 40)


def registered_payment(data: bytes) -> None:
    """A payment of any kind: enrolled with texts that fit the book, or refused by name."""
    try:
        payment = rows.payment(json.loads(data))
        new = registration(payment, Expected(), NOW, sandbox=payment.sandbox)
    except (ValueError, RecursionError, Unreadable, Conflict, InvalidInput):
        return
    facts = new.facts
    assert facts.amount >= Won(MINIMUM_CHARGE)
    assert 0 < len(facts.customer_uid) <= 80
    assert 0 < len(facts.order_name) <= 40
    assert len(facts.buyer_name or "") <= 16


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        answer_to_a_charge,
        answer_to_a_look_up,
        answer_with_a_token,
        retry_after,
        decline_text,
        table_of_declines,
        cron_line,
        setting,
        moment,
        csv_file,
        shown_text,
        webhook_body,
        registered_payment,
    )
}

_HEADER = b"customer_uid,amount,order_name,initial_paid_at\n"
_PAID = json.dumps(PAID).encode()
_REGISTERED = json.dumps(
    {
        **dict(PAID["response"]),
        "pay_method": "phone",
        "pg_provider": "mobilians",
        "name": "plan",
        "customer_uid_usage": "issue",
        "buyer_name": "홍길동",
    }
).encode()
SEEDS: dict[str, tuple[bytes, ...]] = {
    "answer_to_a_charge": (
        b"\x00" + _PAID,
        b"\x00" + b"[" * 100_000,
        b'\x00{"code":0,"code":0}',
        b'\x00{"code":NaN}',
        b'\x00{"code":1,"message":"\\ud800"}',
        b"\x00" + _PAID.replace(b"9900", b"true"),
        b"\x00" + _PAID.replace(b"9900", b"9900.0"),
        b"\x00" + _PAID.replace(b"1732400000", b"1e400"),
    ),
    "answer_to_a_look_up": (_PAID, _PAID.replace(b"paid_at", b"failed_at"), b"\xff\xfe{"),
    "answer_with_a_token": (
        b'{"code":0,"response":{"access_token":"a","now":1,"expired_at":99999999999999}}',
        b'{"code":0,"response":{"access_token":"a\\r\\nX: 1","now":1,"expired_at":2}}',
    ),
    "retry_after": (b"120", b"Wed, 21 Oct 2015 07:28:00 GMT", b"99999999999999999999", b"-1"),
    "decline_text": ("[0031] 한도초과".encode(), b"0039", b"\xed\xa0\x80", b"0" * 5000),
    "table_of_declines": (BUILT_IN.encode()[:3000], b"[[decline]]\ncodes = ['0031']\n", b"a = 1"),
    "cron_line": (b"0 10 * * *", b"*/7 1-5 * * *", b"0 10 31 2 *", b"0-0 * * * *", b"* * * * * *"),
    "setting": tuple(bytes([number]) + b"1" for number in range(60)),
    "moment": (b"2026-11-20T10:00:00+09:00", b"2026-W48-1", b"9999-12-31T23:59:59-23:59"),
    "csv_file": (
        _HEADER + b"a,9900,plan,2026-10-20T14:30:00+09:00\n",
        b"\xef\xbb\xbf" + _HEADER.replace(b"\n", b"\r\n") + b'"a\nb",1,,\r\n',
        _HEADER + b'"' + b"x" * 200_000,
        _HEADER + "가,９９００,=1+1,2026-W48-1\n".encode("cp949", "replace"),
    ),
    "shown_text": ("\x1b]8;;file:///\u202e한도".encode(), b"\x00\x9b31m", b"\xed\xa0\x80"),
    "webhook_body": (
        b'a{"imp_uid":"imp_1","merchant_uid":"mw-abcdefghabcdefgh-202611-01","status":"paid"}',
        b"zimp_uid=imp_1&merchant_uid=order-1&status=cancelled",
        b"zimp_uid=%69mp_1&imp_uid=..%2f",
        b"a" + b"[" * 100_000,
        b'a{"imp_uid":"\\ud800"}',
    ),
    "registered_payment": (_REGISTERED, _REGISTERED.replace(b"plan", b"\\u0007")),
}
