"""The carrier's rules, one by one: when it declines, and in which words."""

from __future__ import annotations

import pytest

from tests.unit.sandbox.kit import ADA, Shop, a_customer

NO_LAST_MONTH = "[0060] 전월 등록된 월자동결제 이력이 없어 처리 불가합니다."
MISMATCH = "[0060] 전월에 등록된 자동결제 거래정보 불일치로 처리 불가합니다."
NOT_NORMAL = "[0060] 정상 결제 상태의 구매번호가 아님으로 처리 불가합니다."
UNREGISTERED = "[0060] 등록된 자동결제 거래정보가 존재하지 않습니다."


def test_first_repayment_in_the_next_month() -> None:
    assert Shop("2027-02-20 10:00").register().said() == "paid"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", 9_901),
        ("name", "연간 구독"),
        ("buyer_tel", "010-0000-0001"),
        ("buyer_tel", None),
        ("buyer_name", "홍길동"),
        ("buyer_email", "a@example.com"),
    ],
)
def test_everything_as_in_the_first_payment(field: str, value: object) -> None:
    assert Shop().register().said(**{field: value}) == MISMATCH


@pytest.mark.parametrize(
    ("initial", "day", "paid"),
    [
        ("2027-01-20 11:00", "2027-02-15 00:00", True),
        ("2027-01-20 11:00", "2027-02-14 23:59", False),
        ("2027-01-20 11:00", "2027-02-25 23:59", True),
        ("2027-01-20 11:00", "2027-02-26 00:00", False),
        # Clamped to the month's end, and never spilling into the neighbour month.
        ("2027-01-31 11:00", "2027-02-23 00:00", True),
        ("2027-01-31 11:00", "2027-02-22 23:59", False),
        ("2027-01-31 11:00", "2027-02-28 23:59", True),
        ("2027-01-02 11:00", "2027-02-01 00:00", True),
        ("2027-01-02 11:00", "2027-02-07 23:59", True),
        ("2027-01-02 11:00", "2027-02-28 10:00", False),
        # The day is the one in Korea: 23:30 on 20 January there is 14:30 in UTC.
        ("2027-01-21 00:30", "2027-02-15 23:59", False),
        ("2027-01-21 00:30", "2027-02-16 00:00", True),
    ],
)
def test_window(initial: str, day: str, paid: bool) -> None:
    said = Shop(day).register(a_customer(initial)).said()
    assert said == ("paid" if paid else MISMATCH)


@pytest.mark.parametrize(
    ("reading", "day", "paid"),
    [
        ("both", "2027-03-25 10:00", False),
        ("anchor", "2027-03-25 10:00", True),
        ("previous", "2027-03-25 10:00", False),
        ("both", "2027-03-12 10:00", False),
        ("anchor", "2027-03-12 10:00", False),
        ("previous", "2027-03-12 10:00", True),
        ("off", "2027-03-31 10:00", True),
        ("both", "2027-03-17 10:00", True),
    ],
)
def test_readings_of_the_window(reading: str, day: str, paid: bool) -> None:
    """Anchor 20, last month's payment on the 15th."""
    shop = Shop(day, faults={"carrier": {"window": reading}})
    shop.register(a_customer(last="2027-02-15 10:00"))
    assert (shop.said() == "paid") is paid


def test_a_month_without_payment_ends_the_chain_for_good() -> None:
    shop = Shop("2027-03-20 10:00").register()
    assert shop.said() == NO_LAST_MONTH
    shop.register(a_customer(uid="bob", last="2027-02-20 10:00"))
    assert shop.said("m-2", "bob") == "paid"
    assert shop.at("2027-05-20 10:00").said("m-3", "bob") == NO_LAST_MONTH
    assert shop.at("2027-06-20 10:00").said("m-4", "bob") == NO_LAST_MONTH


def test_twelve_months_in_a_row() -> None:
    shop = Shop("2027-01-31 12:00").register(a_customer("2027-01-31 11:00"))
    days = ["02-28", "03-31", "04-30", "05-31", "06-30", "07-31", "08-31", "09-30", "10-31"]
    for number, day in enumerate([*days, "11-30", "12-31"]):
        assert shop.at(f"2027-{day} 10:00").said(f"m-{number}") == "paid"


def test_a_cancelled_payment_breaks_the_chain() -> None:
    shop = Shop().register()
    imp_uid = shop.payment()["imp_uid"]
    shop.call("POST", "/payments/cancel", json={"imp_uid": imp_uid})
    assert shop.at("2027-03-20 10:00").said("m-2") == NOT_NORMAL


def test_a_cancelled_payment_that_was_made_again_does_not() -> None:
    shop = Shop().register()
    shop.call("POST", "/payments/cancel", json={"imp_uid": shop.payment()["imp_uid"]})
    assert shop.said("m-2") == "paid"
    assert shop.at("2027-03-20 10:00").said("m-3") == "paid"


def test_carrier_without_the_agreement() -> None:
    assert Shop().register(a_customer(carrier_knows=False)).said() == UNREGISTERED


def test_once_a_month() -> None:
    shop = Shop().register()
    assert shop.said() == "paid"
    assert shop.said("m-2").startswith("[0039] 1회 결제 유효시간내")
    assert shop.at("2027-03-20 10:00").said("m-3") == "paid"


def test_not_again_in_the_month_of_the_initial_payment() -> None:
    assert Shop("2027-01-20 12:00").register().said().startswith("[0039] 1회 결제")


def test_lenient_carrier_takes_two() -> None:
    shop = Shop(faults={"carrier": {"once_a_month": False}}).register()
    assert [shop.said("m-1"), shop.said("m-2")] == ["paid", "paid"]


def test_failures_block_the_day_and_no_longer() -> None:
    shop = Shop().register(a_customer(script=["declined:0016"] * 3))
    for number in range(3):
        assert shop.said(f"m-{number}").startswith("[0016]")
    assert shop.said("m-3").startswith("[0039] 반복적인 실패로 당일 결제가 불가합니다.")
    assert shop.at("2027-02-20 23:59").said("m-4").startswith("[0039] 반복적인")
    assert shop.at("2027-02-21 00:00").said("m-5") == "paid"


def test_faults_of_the_system_do_not_count_as_failures() -> None:
    shop = Shop().register(a_customer(script=["declined:0098"] * 5))
    for number in range(5):
        assert shop.said(f"m-{number}").startswith("[0098]")
    assert shop.said("m-5") == "paid"


def test_what_is_spent_elsewhere_counts() -> None:
    shop = Shop().register(
        a_customer(monthly_limit=20_000, spent_elsewhere=10_101),
        a_customer(uid="bob", monthly_limit=20_000, spent_elsewhere=10_100),
    )
    assert shop.said("m-1").startswith("[0031] 한도초과")
    assert shop.said("m-2", "bob") == "paid"


def test_monthly_limit_starts_anew_with_the_month() -> None:
    shop = Shop(faults={"carrier": {"once_a_month": False}})
    shop.register(a_customer(monthly_limit=15_000))
    assert shop.said("m-1") == "paid"
    assert shop.said("m-2").startswith("[0031] 한도초과")
    assert shop.at("2027-03-20 10:00").said("m-3") == "paid"


def test_limit_raised() -> None:
    shop = Shop().register(a_customer(monthly_limit=9_899))
    assert shop.said("m-1").startswith("[0031]")
    shop.control("POST", f"customers/{ADA}", {"monthly_limit": 9_900})
    assert shop.said("m-2") == "paid"


def test_condition_until_it_is_lifted() -> None:
    shop = Shop().register(a_customer(condition="0016"))
    assert shop.said("m-1").startswith("[0016]")
    shop.control("POST", f"customers/{ADA}", {"condition": ""})
    assert shop.said("m-2") == "paid"


def test_condition_that_ends_by_itself() -> None:
    until = "2027-02-21T00:00:00+09:00"
    shop = Shop().register(a_customer(condition="D", condition_until=until))
    assert shop.said("m-1").startswith("[0016]")
    assert shop.at("2027-02-21 00:00").said("m-2") == "paid"


def test_smallest_amount() -> None:
    shop = Shop().register(a_customer(amount=300), a_customer(uid="bob", amount=301))
    assert shop.said("m-1", amount=300).startswith("[0096]")
    assert shop.said("m-2", "bob", amount=301) == "paid"


def test_key_issued_anew_starts_a_chain_of_its_own() -> None:
    shop = Shop("2027-03-20 10:00").register()
    assert shop.said("m-1") == NO_LAST_MONTH
    shop.register(a_customer("2027-03-20 10:00"))
    assert shop.at("2027-04-20 10:00").said("m-2") == "paid"


def test_text_without_its_code() -> None:
    shop = Shop(faults={"code_style": "plain"}).register(a_customer(condition="0031"))
    assert shop.said().startswith("한도초과")
