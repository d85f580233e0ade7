"""The payment window without a browser: its orders, its steps, and how each ends."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.unit.sandbox.kit import ADA, TERMS, Shop, a_customer

PARAMS = {
    "pg": "mobilians",
    "pay_method": "phone",
    "merchant_uid": "order-1",
    "customer_uid": ADA,
    "m_redirect_url": "https://shop.example/back?order=1",
    **TERMS,
}
LINE = {
    "carrier": "kt",
    "number": "010 1234 5678",
    "birth": "000229",
    "digit": "3",
    **{f"agree_{name}": "on" for name in ("monthly", "terms", "privacy", "third_party")},
}


class Customer:
    """Somebody at the window of a shop."""

    def __init__(self, shop: Shop, device: str = "pc", **params: Any) -> None:
        self.shop = shop
        document = {
            "params": {**PARAMS, **params},
            "device": device,
            "shop": "https://shop.example",
        }
        answer = shop.call("POST", "/window", json=document, headers={})
        self.opened = answer.json()
        self.url = self.opened.get("url", "")

    @property
    def refused(self) -> tuple[str, str]:
        rsp = self.opened["rsp"]
        assert rsp["success"] is False
        return rsp["error_code"], rsp["error_msg"]

    def do(self, step: str, **form: str) -> int:
        return self.shop.call("POST", f"{self.url}/{step}", data=form, headers={}).status_code

    def page(self, **query: str) -> str:
        return self.shop.call("GET", self.url, params=query, headers={}).text

    def code(self) -> str:
        found = re.search(r'id="sms_code">([0-9]{6})<', self.page())
        assert found
        return found[1]

    def pay(self, **wishes: str) -> str:
        assert self.do("line", **LINE, **wishes) == 303
        assert self.do("code", code=self.code()) == 303
        return self.page()


def rows(shop: Shop) -> list[dict[str, Any]]:
    return list(shop.control("GET", "ledger")["payments"])


def test_a_payment_issues_the_key_and_can_be_charged_next_month() -> None:
    shop = Shop("2027-01-20 11:00")
    assert "Paid" in Customer(shop).pay()

    (initial,) = rows(shop)
    assert (initial["status"], initial["origin"], initial["amount"]) == ("paid", "window", 9_900)
    row = shop.found(f"/payments/{initial['imp_uid']}")
    assert (row["customer_uid_usage"], row["pay_method"], row["pg_provider"]) == (
        "issue",
        "phone",
        "mobilians",
    )
    assert row["buyer_tel"] == TERMS["buyer_tel"]
    shop.at("2027-02-20 10:00")
    assert shop.said() == "paid"


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"merchant_uid": ""}, "merchant_uid"),
        ({"merchant_uid": "x" * 41}, "merchant_uid"),
        ({"customer_uid": None}, "no billing key"),
        ({"name": ""}, "name"),
        ({"pay_method": "card"}, "pay_method"),
        ({"pg": "danal"}, "pg"),
        ({"amount": 300}, "301"),
        ({"amount": "9900.5"}, "amount"),
        ({"amount": None}, "amount"),
        ({"notice_url": "shop.example"}, "notice_url"),
        ({"m_redirect_url": "javascript:alert(1)"}, "m_redirect_url"),
    ],
)
def test_a_wrong_call_is_refused_with_what_is_wrong(params: dict[str, Any], named: str) -> None:
    code, text = Customer(Shop(), **params).refused
    assert code == "F0001"
    assert named in text


def test_a_phone_must_find_back() -> None:
    assert "m_redirect_url" in Customer(Shop(), "phone", m_redirect_url="").refused[1]


def test_an_order_that_was_paid_opens_no_window() -> None:
    shop = Shop()
    Customer(shop).pay()
    assert Customer(shop).refused == ("F1002", "이미 결제가 이루어진 거래건입니다.")


def test_of_two_windows_of_one_order_one_is_paid() -> None:
    shop = Shop()
    slow, fast = Customer(shop), Customer(shop)
    slow.do("line", **LINE)
    code = slow.code()
    fast.pay()
    slow.do("code", code=code)
    assert "F1002" in slow.page()
    assert [row["status"] for row in rows(shop)] == ["paid"]


def test_the_pinned_amount_is_the_only_one() -> None:
    shop = Shop()
    pin = {"merchant_uid": "order-1", "amount": 9_900}
    assert shop.call("POST", "/payments/prepare", json=pin).json()["response"] == pin
    again = shop.call("POST", "/payments/prepare", json={**pin, "amount": 1_000}).json()
    assert (again["code"], again["message"]) == (1, "이미 등록된 merchant_uid입니다.")
    assert shop.found("/payments/prepare/order-1") == pin
    assert shop.ask("/payments/prepare/order-2").status_code == 404
    assert Customer(shop, amount=1_000).refused[0] == "F0002"
    assert "Paid" in Customer(shop).pay()


def test_a_key_that_is_registered_again_is_overwritten() -> None:
    shop = Shop("2027-01-20 11:00").register(a_customer("2026-12-05 09:00"))
    Customer(shop, amount=4_900).pay()
    shop.at("2027-02-20 10:00")
    assert "0060" in shop.said()
    assert shop.said("m-2", amount=4_900) == "paid"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"carrier": "att"}, "carrier"),
        ({"number": "02-123-4567"}, "number"),
        ({"birth": "010229"}, "birth"),
        ({"birth": "901301"}, "birth"),
        ({"digit": "9"}, "birth"),
        ({"agree_privacy": ""}, "consents"),
    ],
)
def test_what_is_typed_wrongly_is_named(change: dict[str, str], problem: str) -> None:
    customer = Customer(Shop())
    form = {**LINE, **change}
    answer = customer.shop.call("POST", f"{customer.url}/line", data=form, headers={})
    assert answer.status_code == 422
    assert f'id="{problem}_problem"' in answer.text
    assert customer.do("code", code="000000") == 303
    assert rows(customer.shop) == []


def test_nothing_typed_is_kept_but_a_masked_number() -> None:
    customer = Customer(Shop())
    customer.do("line", **LINE)
    page = customer.page()
    assert "010-****-5678" in page
    assert "000229" not in page
    assert "1234" not in page.replace(customer.code(), "")


def test_three_wrong_codes_end_it() -> None:
    customer = Customer(Shop())
    customer.do("line", **LINE)
    wrong = "000000" if customer.code() != "000000" else "000001"
    assert [customer.do("code", code=wrong) for _ in range(3)] == [422, 422, 303]
    assert "F401" in customer.page()
    (row,) = rows(customer.shop)
    assert (row["status"], row["fail_reason"][:6]) == ("failed", "[인증실패]")
    assert customer.do("code", code=wrong) == 303
    assert len(rows(customer.shop)) == 1


def test_a_code_grows_old_and_a_new_one_replaces_it() -> None:
    customer = Customer(Shop())
    customer.do("line", **LINE)
    old = customer.code()
    customer.shop.sandbox.clock.advance(200)
    assert customer.do("code", code=old) == 422
    customer.do("resend")
    assert customer.code() != old
    assert customer.do("code", code=customer.code()) == 303
    assert "Paid" in customer.page()


@pytest.mark.parametrize("steps", [0, 1])
def test_given_up_at_any_step(steps: int) -> None:
    customer = Customer(Shop())
    if steps:
        customer.do("line", **LINE)
    assert customer.do("cancel") == 303
    page = customer.page()
    assert "F400" in page
    assert "data-at-once" in page
    assert [row["status"] for row in rows(customer.shop)] == ["failed"]


def test_giving_up_after_the_payment_takes_nothing_back() -> None:
    customer = Customer(Shop())
    customer.pay()
    customer.do("cancel")
    assert "Paid" in customer.page()
    assert [row["status"] for row in rows(customer.shop)] == ["paid"]


@pytest.mark.parametrize("moved", [16 * 60, 31 * 86_400, -86_400])
def test_a_window_has_its_time(moved: float) -> None:
    customer = Customer(Shop())
    customer.shop.sandbox.clock.advance(moved)
    assert "F408" in customer.page()


@pytest.mark.parametrize(
    ("now", "told", "state"),
    [
        ("0031", "0031", "failed"),
        ("0024", "0024", "failed"),
        ("0098", "0098", "failed"),
        ("expired", "F408", "failed"),
        ("nonsense", "Paid", "paid"),
    ],
)
def test_what_shall_happen_now(now: str, told: str, state: str) -> None:
    customer = Customer(Shop())
    assert told in customer.pay(now=now)
    assert [row["status"] for row in rows(customer.shop)] == [state]
    key = customer.shop.call("GET", f"/subscribe/customers/{ADA}")
    assert key.status_code == (200 if state == "paid" else 404)


def test_paid_and_the_shop_never_hears_of_it() -> None:
    customer = Customer(Shop())
    page = customer.pay(now="lost")
    assert "F400" in page
    assert "imp_00" not in page
    assert [row["status"] for row in rows(customer.shop)] == ["paid"]


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ("paid", ["paid"]),
        ("declined:0098", ["0098", "paid"]),
        ("0031", ["0031", "0031"]),
        ("0023", ["0023", "0023"]),
    ],
)
def test_what_shall_happen_later(later: str, said: list[str]) -> None:
    shop = Shop("2027-01-20 11:00")
    Customer(shop).pay(later=later)
    shop.at("2027-02-20 10:00")
    for number, words in enumerate(said):
        assert words in shop.said(f"m-{number}")


def test_a_bill_that_is_paid_two_days_later() -> None:
    shop = Shop("2027-01-31 11:00")
    Customer(shop).pay(later="0016")
    assert "0016" in shop.at("2027-02-28 10:00").said()
    shop.at("2027-03-02 10:00")
    key = shop.sandbox.ledger.keys[ADA]
    assert key.condition_until < shop.sandbox.clock.unix()


def test_a_phone_goes_back_with_what_became_of_it() -> None:
    customer = Customer(Shop(), "phone", m_redirect_url="https://shop.example/back?order=1&a=%20b")
    page = customer.pay()
    found = re.search(r'data-back href="([^"]+)"', page)
    assert found
    back = found[1].replace("&amp;", "&")
    assert back.startswith("https://shop.example/back?order=1&a=+b&imp_uid=imp_000000000001")
    assert "imp_success=true" in back
    assert TERMS["buyer_tel"] not in back


def test_both_languages() -> None:
    customer = Customer(Shop())
    assert 'lang="en"' in customer.page()
    assert "통신사" in customer.page(lang="ko")
    assert "통신사" in customer.page()


def test_a_page_of_another_site_presses_no_button() -> None:
    customer = Customer(Shop())
    for headers in ({"Sec-Fetch-Site": "same-site"}, {"Origin": "https://elsewhere.example"}):
        answer = customer.shop.call("POST", f"{customer.url}/cancel", headers=headers)
        assert answer.status_code == 403
    assert customer.do("line", **LINE) == 303


def test_markup_in_an_order_stays_text() -> None:
    evil = "</dd><script>alert(1)</script>"
    customer = Customer(Shop(), name=evil, custom_data={"x": '"><script>'})
    assert "<script>alert" not in customer.page()
    assert "<script>alert" not in customer.pay()


def test_a_window_that_is_not_there() -> None:
    answer = Shop().call("GET", "/window/nothing", headers={})
    assert answer.status_code == 404
    assert "no longer there" in answer.text


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"x" * 40_000])
def test_only_the_sdk_opens_a_window(body: bytes) -> None:
    assert Shop().call("POST", "/window", content=body, headers={}).status_code == 400


def test_its_files_and_nothing_else() -> None:
    shop = Shop()
    sdk = shop.call("GET", "/sdk/iamport.js", headers={})
    assert sdk.headers["content-type"].startswith("text/javascript")
    assert "request_pay" in sdk.text
    for name in ("sandbox.css", "window.js", "open.js"):
        assert shop.call("GET", f"/static/{name}", headers={}).status_code == 200
    for name in ("nothing.css", "..%2Fserver.py", "iamport.py"):
        assert shop.call("GET", f"/static/{name}", headers={}).status_code == 404


def test_its_pages_run_no_script_of_an_order() -> None:
    customer = Customer(Shop())
    answer = customer.shop.call("GET", customer.url, headers={})
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors *" in policy
    assert (
        "frame-ancestors 'none'"
        in (customer.shop.call("GET", "/", headers={}).headers["content-security-policy"])
    )
