"""What is taken from a webhook, and from which bodies nothing is."""

from __future__ import annotations

import json

import pytest

from billing.domain.webhook import announced
from billing.portone.answer import Unreadable
from billing.portone.webhook import read

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
ORDER = "mw-abcdefgh234567ij-202611-01"
TOLD = announced("imp_1", ORDER, "paid")
assert TOLD.merchant_uid == ORDER


@pytest.mark.parametrize("kind", [FORM, "Application/X-WWW-Form-Urlencoded ; charset=utf-8"])
def test_a_form(kind: str) -> None:
    assert (
        read(kind, f"imp_uid=imp_1&merchant_uid={ORDER}&status=paid&new=%ED%95%9C".encode()) == TOLD
    )


@pytest.mark.parametrize("kind", [JSON, "application/json; charset=utf-8", "", "text/plain"])
def test_everything_else_is_json(kind: str) -> None:
    body = {"imp_uid": "imp_1", "merchant_uid": ORDER, "status": "paid", "new": ["한"]}
    assert read(kind, json.dumps(body).encode()) == TOLD


def test_a_form_has_room_for_fields_to_come_but_not_for_any_number() -> None:
    most = b"imp_uid=imp_1" + b"".join(b"&f%d=" % number for number in range(31))
    assert read(FORM, most) == announced("imp_1", None, None)
    with pytest.raises(Unreadable, match=r"^not a form$"):
        read(FORM, most + b"&f31=")


@pytest.mark.parametrize(
    ("kind", "body", "why"),
    [
        (FORM, b"imp_uid=\xff", "not a form"),
        (FORM, b"imp_uid=imp_1&x=%FF", "not a form"),
        (FORM, b"merchant_uid=mw-1", "no imp_uid"),
        (FORM, b"imp_uid=", "no imp_uid"),
        (FORM, b"imp_uid=imp_1&imp_uid=", "no imp_uid"),
        (FORM, b"imp_uid=../../customers", "no imp_uid"),
        (JSON, b"\xff", "not JSON"),
        (JSON, b"{", "not JSON"),
        (JSON, b"[" * 100_000, "not JSON"),
        (JSON, b"[]", "not an object"),
        (JSON, b"{}", "no imp_uid"),
        (JSON, b'{"imp_uid": 7}', "no imp_uid"),
    ],
)
def test_what_nothing_is_taken_from(kind: str, body: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=f"^{why}$"):
        read(kind, body)
