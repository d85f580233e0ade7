"""One subscription by hand, and what the gateway is asked before it comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from billing.domain.enrolment import Misfit
from billing.domain.errors import Conflict, GatewayUnavailable, InvalidInput
from billing.domain.money import Won
from billing.domain.outcome import Outcome
from billing.domain.payment import Buyer, ChargeRequest, Payment
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import Facts, NewSubscription
from billing.ports import BillingKey, ScheduledPayment
from billing.services.enrol import enrol, verify_at_gateway
from billing.store.session import Book
from tests.builders import KEY, query

FIELDS = {
    "customer_uid": "customer-1",
    "amount": "9900",
    "order_name": '월정액, "프로"',
    "initial_paid_at": "2026-10-20T14:30:00+09:00",
    "buyer_name": "홍길동",
}
PAID_AT = datetime(2026, 10, 20, 5, 30, tzinfo=UTC)


def added(book: Book, policy: BillingPolicy, **changes: str) -> bool:
    return enrol(book, policy, lambda: KEY, FIELDS | changes)


def test_a_subscription_comes_in_once(book: Book, policy: BillingPolicy) -> None:
    assert added(book, policy) is True
    assert added(book, policy) is False
    rows = query(
        book,
        "SELECT amount, order_name, anchor_on, status, b.name"
        " FROM subscriptions s JOIN buyers b ON b.subscription_id = s.id",
    )
    assert rows == [(9900, '월정액, "프로"', date(2026, 10, 20), "active", "홍길동")]


@pytest.mark.parametrize(
    ("name", "value"),
    [("amount", "12"), ("order_name", ""), ("order_name", "pl\udcffan"), ("customer_uid", "a\nb")],
)
def test_a_wrong_field_is_named_with_a_remedy(
    book: Book, policy: BillingPolicy, name: str, value: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        added(book, policy, **{name: value})
    assert caught.value.field == name
    assert caught.value.remedy
    assert query(book, "SELECT count(*) FROM subscriptions") == [(0,)]


def test_a_missing_field_is_an_empty_one(book: Book, policy: BillingPolicy) -> None:
    fields = {name: value for name, value in FIELDS.items() if name != "amount"}
    with pytest.raises(InvalidInput, match="amount=''"):
        enrol(book, policy, lambda: KEY, fields)


def test_an_unknown_field_is_refused(book: Book, policy: BillingPolicy) -> None:
    with pytest.raises(InvalidInput, match=r"^colour='': is no field"):
        added(book, policy, colour="red")


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "9901"},
        {"initial_paid_at": "2026-10-21T14:30:00+09:00"},
        {"buyer_name": "김철수"},
    ],
)
def test_other_facts_of_a_known_customer_conflict(
    book: Book, policy: BillingPolicy, changes: dict[str, str]
) -> None:
    added(book, policy)
    with pytest.raises(Conflict, match="differs from the book") as caught:
        added(book, policy, **changes)
    assert "김철수" not in str(caught.value)
    assert query(book, "SELECT amount FROM subscriptions") == [(9900,)]


@dataclass
class KnownGateway:
    """A gateway that knows what the test says and takes no charge."""

    keys: set[str] = field(default_factory=lambda: {"customer-1"})
    payments: list[Payment] = field(default_factory=list)
    schedule: list[ScheduledPayment] = field(default_factory=list)
    asked_until: datetime | None = None
    away: bool = False
    now: datetime = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)

    async def charge(self, request: ChargeRequest) -> Outcome:
        raise AssertionError("a verification never charges")

    async def payments_of_order(self, merchant_uid: str) -> Sequence[Payment]:
        return [one for one in self.payments if one.merchant_uid == merchant_uid]

    async def payments_of_key(self, customer_uid: str, since: datetime) -> Sequence[Payment]:
        moments = [one.paid_at or self.now for one in self.payments]
        found = zip(self.payments, moments, strict=True)
        return [one for one, at in found if one.customer_uid == customer_uid and at >= since]

    async def payment(self, imp_uid: str) -> Payment | None:
        return next((one for one in self.payments if one.imp_uid == imp_uid), None)

    async def billing_key(self, customer_uid: str) -> BillingKey | None:
        if self.away:
            raise GatewayUnavailable("away")
        known = customer_uid in self.keys
        return BillingKey(customer_uid, "mobilians", False, None) if known else None

    async def scheduled_payments(
        self, customer_uid: str, since: datetime, until: datetime
    ) -> Sequence[ScheduledPayment]:
        assert since == self.now
        self.asked_until = until
        return self.schedule

    async def moment(self) -> datetime:
        return self.now

    async def aclose(self) -> None:
        """Nothing is open."""


PAYMENT = Payment("imp_1", "order-1", "paid", Won(9900), "customer-1", paid_at=PAID_AT)
NEW = NewSubscription(
    Facts("customer-1", Won(9900), "plan", PAID_AT),
    initial_merchant_uid="order-1",
    initial_imp_uid="imp_1",
)


MISSING = "the initial payment is not at the gateway"


def verdict(gateway: KnownGateway, new: NewSubscription = NEW) -> Misfit | None:
    (found,) = asyncio.run(verify_at_gateway(gateway, [new]))
    return found if isinstance(found, Misfit) else None


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"initial_merchant_uid": None},
        {"initial_imp_uid": None},
        {"initial_imp_uid": None, "initial_merchant_uid": None},
    ],
)
def test_what_the_gateway_confirms_is_fine(known: dict[str, Any]) -> None:
    assert verdict(KnownGateway(payments=[PAYMENT]), replace(NEW, **known)) is None


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"status": "cancelled"}, "initial_imp_uid", "is cancelled"),
        ({"status": "failed", "paid_at": None}, "initial_imp_uid", "not at the gateway"),
        ({"amount": Won(9901)}, "amount", "9,901 KRW"),
        ({"customer_uid": "customer-2"}, "customer_uid", "another billing key"),
        ({"order_name": "another plan"}, "order_name", "was for 'another plan'"),
        ({"merchant_uid": "order-2"}, "initial_merchant_uid", "another merchant_uid"),
        ({"imp_uid": "imp_2"}, "initial_imp_uid", "not at the gateway"),
        # 23:59 and 00:01 in Seoul, on one UTC day
        (
            {"paid_at": datetime(2026, 10, 20, 15, 1, tzinfo=UTC)},
            "initial_paid_at",
            "made on 2026-10-21",
        ),
    ],
)
def test_another_initial_payment_is_a_problem(
    changes: dict[str, Any], field: str, problem: str
) -> None:
    found = verdict(KnownGateway(payments=[replace(PAYMENT, **changes)]))
    assert found is not None
    assert found.field == field
    assert problem in found.problem


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"merchant_uid": "order-2"}, Misfit("initial_merchant_uid", MISSING)),
        ({"status": "failed", "paid_at": None}, Misfit("initial_merchant_uid", MISSING)),
        ({"amount": Won(9901)}, Misfit("amount", "the initial payment was 9,901 KRW")),
    ],
)
def test_another_payment_under_the_order_number_is_a_problem(
    changes: dict[str, Any], problem: Misfit
) -> None:
    gateway = KnownGateway(payments=[replace(PAYMENT, **changes)])
    assert verdict(gateway, replace(NEW, initial_imp_uid=None)) == problem


@pytest.mark.parametrize(
    ("theirs", "field"),
    [
        (Buyer("홍길동", "Hong@example.com", "01012345678"), None),
        (Buyer(None, None, None), None),
        (Buyer("", "", ""), None),
        (Buyer("홍*동", "ho**@example.com", "010****5678"), None),
        (Buyer("홍길순", "hong@example.com", "010-1234-5678"), "buyer_name"),
        (Buyer("홍길동", "kim@example.com", "010-1234-5678"), "buyer_email"),
        (Buyer("홍길동", "hong@example.com", "010-1234-5679"), "buyer_tel"),
    ],
)
def test_another_buyer_is_a_problem_whoever_that_is(theirs: Buyer, field: str | None) -> None:
    facts = replace(
        NEW.facts, buyer_name="홍길동", buyer_email="hong@example.com", buyer_tel="010-1234-5678"
    )
    payment = replace(PAYMENT, order_name="plan", buyer=theirs)
    found = verdict(KnownGateway(payments=[payment]), replace(NEW, facts=facts))
    assert (found and found.field) == field
    assert found is None or found.problem == "the initial payment was made with another one"
    assert verdict(KnownGateway(payments=[payment])) is None, "we know of no buyer to compare"


UNNAMED = replace(NEW, initial_imp_uid=None, initial_merchant_uid=None)
# Noon of 18, 19, 21, 22 October in Seoul.
TWO_BEFORE, DAY_BEFORE, DAY_AFTER, TWO_AFTER = (
    datetime(2026, 10, day, 3, tzinfo=UTC) for day in (18, 19, 21, 22)
)


@pytest.mark.parametrize(
    ("payments", "problem"),
    [
        ([], "no payment around 2026-10-20"),
        ([replace(PAYMENT, paid_at=TWO_BEFORE)], "no payment around 2026-10-20"),
        ([replace(PAYMENT, paid_at=TWO_AFTER)], "no payment around 2026-10-20"),
        ([replace(PAYMENT, status="failed", paid_at=None)], "no payment around 2026-10-20"),
        ([replace(PAYMENT, amount=Won(9901))], "was 9,901 KRW"),
        ([replace(PAYMENT, status="cancelled")], "is cancelled"),
        ([replace(PAYMENT, paid_at=DAY_BEFORE)], "made on 2026-10-19"),
        ([replace(PAYMENT, paid_at=DAY_AFTER)], "made on 2026-10-21"),
        # That of another amount does not hide the right one, nor the nearer guess.
        ([replace(PAYMENT, amount=Won(500)), PAYMENT], None),
        (
            [replace(PAYMENT, amount=Won(500)), replace(PAYMENT, paid_at=DAY_BEFORE)],
            "made on 2026-10-19",
        ),
        # Nor does one of another plan, and one that was paid is a nearer guess than one that was
        # given back.
        ([replace(PAYMENT, order_name="another plan"), PAYMENT], None),
        (
            [replace(PAYMENT, status="cancelled"), replace(PAYMENT, amount=Won(500))],
            "was 500 KRW",
        ),
    ],
)
def test_an_initial_payment_without_a_name_is_found_by_its_day(
    payments: list[Payment], problem: str | None
) -> None:
    found = verdict(KnownGateway(payments=payments), UNNAMED)
    assert found is None if problem is None else problem in str(found)
    if found is not None:
        assert found.field == ("amount" if "KRW" in found.problem else "initial_paid_at")


@pytest.mark.parametrize("asked", [NEW, UNNAMED, replace(NEW, initial_imp_uid=None)])
def test_the_payment_that_was_found_is_told(asked: NewSubscription) -> None:
    """However it was found: by its ids it is found again."""
    other = replace(PAYMENT, imp_uid="imp_0", merchant_uid="order-0", amount=Won(500))
    gateway = KnownGateway(payments=[other, PAYMENT])
    assert asyncio.run(verify_at_gateway(gateway, [asked])) == [PAYMENT]


def test_a_payment_that_names_no_key_is_taken() -> None:
    assert verdict(KnownGateway(payments=[replace(PAYMENT, customer_uid=None)])) is None


def test_a_failed_try_under_the_same_order_does_not_hide_the_payment() -> None:
    failed = replace(PAYMENT, imp_uid="imp_0", status="failed", paid_at=None)
    gateway = KnownGateway(payments=[failed, PAYMENT])
    assert verdict(gateway, replace(NEW, initial_imp_uid=None)) is None


def test_a_key_that_is_not_there_is_a_problem() -> None:
    found = verdict(KnownGateway(keys=set(), payments=[PAYMENT]))
    assert found == Misfit("customer_uid", "no such billing key at the gateway")


@pytest.mark.parametrize(
    ("status", "is_problem"), [("scheduled", True), ("executed", False), ("revoked", False)]
)
def test_a_second_charger_is_a_problem(status: str, is_problem: bool) -> None:
    at = datetime(2026, 12, 19, 16, 0, tzinfo=UTC)
    gateway = KnownGateway(
        payments=[PAYMENT], schedule=[ScheduledPayment("other-1", at, Won(9900), status)]
    )
    problem = verdict(gateway)
    assert (problem is not None) is is_problem
    if problem is not None:
        assert problem.field == "customer_uid"
        assert "2026-12-20" in problem.problem
    assert gateway.asked_until is not None
    span = gateway.asked_until - gateway.now
    assert timedelta(days=80) < span < timedelta(days=90), "three months at once"


def test_answers_keep_the_order_of_the_questions() -> None:
    news = [
        replace(NEW, facts=replace(NEW.facts, customer_uid=f"c-{number}"), initial_imp_uid=None)
        for number in range(40)
    ]
    news = [replace(new, initial_merchant_uid=None) for new in news]
    keys = [f"c-{number}" for number in range(0, 40, 2)]
    payments = [replace(PAYMENT, customer_uid=key) for key in keys]
    gateway = KnownGateway(keys=set(keys), payments=payments)
    found = asyncio.run(verify_at_gateway(gateway, news))
    assert [isinstance(one, Payment) for one in found] == [True, False] * 20


def test_a_gateway_that_is_away_says_nothing_about_anybody() -> None:
    with pytest.raises(GatewayUnavailable):
        verdict(KnownGateway(away=True))
