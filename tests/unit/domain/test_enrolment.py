"""One row of text: what it may hold, to the last character, and what a refusal shows of it."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.enrolment import COLUMNS, LENGTHS, OPTIONAL, REQUIRED, new_subscription, shown
from billing.domain.errors import InvalidInput
from billing.domain.subscription import NewSubscription

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
ROW = {
    "customer_uid": "customer-1",
    "amount": "9900",
    "order_name": "월정액",
    "initial_paid_at": "2026-10-20T14:30:00+09:00",
}


def read(**cells: str) -> NewSubscription:
    return new_subscription(ROW | cells, NOW, SEOUL)


def refused(**cells: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as told:
        read(**cells)
    return told.value


def test_the_columns_are_those_of_the_contract() -> None:
    assert REQUIRED == ("customer_uid", "amount", "order_name", "initial_paid_at")
    assert OPTIONAL == (
        "initial_merchant_uid",
        "initial_imp_uid",
        "last_paid_on",
        "buyer_name",
        "buyer_email",
        "buyer_tel",
        "reference",
    )
    assert COLUMNS == REQUIRED + OPTIONAL


def test_what_may_be_left_out_may_be_left_out() -> None:
    found = read()
    assert found.facts.buyer_name is found.facts.buyer_email is found.facts.buyer_tel is None
    assert found.initial_merchant_uid is found.initial_imp_uid is found.last_paid_on is None
    assert found.reference is None


def test_every_cell_has_its_place() -> None:
    found = read(
        initial_merchant_uid="first-1",
        initial_imp_uid="imp_1",
        last_paid_on="2026-11-20",
        buyer_name="홍길동",
        buyer_email="a@b.kr",
        buyer_tel="+82-10-0000-0000",
        reference="r",
    )
    assert (found.initial_merchant_uid, found.initial_imp_uid) == ("first-1", "imp_1")
    assert (found.last_paid_on, found.reference) == (date(2026, 11, 20), "r")
    facts = found.facts
    assert (facts.buyer_name, facts.buyer_email, facts.buyer_tel) == (
        "홍길동",
        "a@b.kr",
        "+82-10-0000-0000",
    )


@pytest.mark.parametrize(
    ("field", "longest"),
    [
        ("customer_uid", 80),
        ("order_name", 40),
        ("initial_merchant_uid", 40),
        ("initial_imp_uid", 64),
        ("buyer_name", 16),
        ("buyer_email", 64),
        ("buyer_tel", 16),
        ("reference", 200),
    ],
)
def test_how_long_a_text_may_be(field: str, longest: int) -> None:
    assert LENGTHS[field] == longest
    read(**{field: "1" * longest})
    assert f"at most {longest} " in refused(**{field: "1" * (longest + 1)}).problem


@pytest.mark.parametrize("field", REQUIRED)
def test_an_empty_cell_that_must_not_be_is_named(field: str) -> None:
    told = refused(**{field: ""})
    assert (told.field, told.value, told.problem) == (field, "", "is empty")


@pytest.mark.parametrize("value", [".", ".."])
def test_a_dot_is_no_name(value: str) -> None:
    assert refused(reference=value).problem == "is no name"


def test_the_oldest_payment() -> None:
    read(initial_paid_at="2010-01-01T00:00:00Z")
    told = refused(initial_paid_at="2009-12-31T23:59:59.999999Z")
    assert told.problem == "lies before 2010"


def test_what_a_refusal_shows() -> None:
    assert shown("reference", "\x07" + "x" * 100) == "?" + "x" * 79
    assert (shown("buyer_name", "홍길동"), shown("buyer_name", "")) == ("[hidden]", "")
    assert refused(buyer_tel="none").value == "[hidden]"
    told = refused(amount="９")
    assert (told.field, told.value) == ("amount", "９")
    assert "plain digits" in told.problem
    assert refused(initial_paid_at="yesterday").problem == "is not a moment"
