"""What may be given back, whose it is, and what must be said before: nothing is sent here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from billing.domain.errors import Conflict, NotFound
from billing.domain.money import Won
from billing.domain.policy import BillingPolicy
from billing.sandbox.model import Status
from billing.services.open_cycles import open_cycles
from billing.services.refund import Named, Proposal, payment_of_month, propose, request
from billing.store.session import Book, Transaction
from tests.builders import execute, query
from tests.conftest import MovedClock
from tests.town import Town, seoul, uid

KEPT = Proposal(
    subscription_id=1,
    customer_uid=uid(1),
    cycle_number=1,
    imp_uid="imp_1",
    merchant_uid="mw-1",
    amount=Won(9900),
    refund_by=seoul("2026-12-01 00:00"),
    breaks_chain=False,
)


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0, canary_charges=0)


@pytest.fixture
def town(book: Book, policy: BillingPolicy, clock: MovedClock) -> Town:
    """One subscriber, charged at 10:00 on 20 November 2026 in Seoul."""
    return Town(book, policy, clock).charged()


def name_of(town: Town, number: int = 1) -> str:
    """What the newest charge of a subscriber is called."""
    (found, *_) = query(
        town.book,
        "SELECT a.merchant_uid FROM attempts a JOIN cycles c ON c.id = a.cycle_id"
        " JOIN subscriptions s ON s.id = c.subscription_id WHERE s.customer_uid = :uid"
        " ORDER BY a.id DESC",
        uid=uid(number),
    )
    return str(found[0])


def proposed(town: Town, merchant_uid: str | None = None, imp_uid: str | None = None) -> Proposal:
    name = merchant_uid or name_of(town)
    return town.run(lambda client: propose(town.book, client, town.policy, name, imp_uid))


def shown_as(town: Town, name: str, **facts: Any) -> None:
    """What the gateway shows under a name: the month's payment, but for these facts."""
    row = town.row(town.paid_imp_uid(), **facts)
    page = {"total": 1, "previous": 0, "next": 0, "list": [row]}
    town.wire.faults[f"/payments/findAll/{name}"] = lambda: town.says(page)


def refunds(town: Town, columns: str = "status") -> list[tuple[Any, ...]]:
    return query(town.book, f"SELECT {columns} FROM refunds ORDER BY id")


# -- what is said before ------------------------------------------------------------------------


def test_before_the_chain_breaks_it_is_said_in_both_languages() -> None:
    """This cannot be undone, and next month nobody can help."""
    breaks = replace(KEPT, breaks_chain=True)
    assert "without a payment" in breaks.warning_en
    assert "결제 이력 단절" in breaks.warning_ko
    assert "stays paid by another payment" in KEPT.warning_en
    assert "다른 결제로 유지됩니다" in KEPT.warning_ko
    for said in (breaks.warning_en, breaks.warning_ko, KEPT.warning_en, KEPT.warning_ko):
        assert "9,900" in said


def test_a_proposal_says_all_that_a_person_decides_by(town: Town) -> None:
    assert proposed(town) == Proposal(
        subscription_id=1,
        customer_uid=uid(1),
        cycle_number=1,
        imp_uid=town.paid_imp_uid(),
        merchant_uid=name_of(town),
        amount=Won(1001),
        refund_by=seoul("2026-12-01 00:00"),
        breaks_chain=True,
    )
    assert refunds(town) == [], "and nothing is written by it"


# -- what keeps the month -----------------------------------------------------------------------


def test_a_second_payment_keeps_the_month_while_it_is_not_given_back(town: Town) -> None:
    by_hand = town.pay_by_hand()
    town.move(minutes=5)
    found = proposed(town)
    assert (found.others, found.breaks_chain) == ((by_hand.imp_uid,), False)
    town.cancel_outside(by_hand.imp_uid)
    found = proposed(town)
    assert (found.others, found.breaks_chain) == ((), True)


def test_a_payment_of_another_month_keeps_nothing(town: Town) -> None:
    """October's last minutes are in the gateway's answer, and are October's."""
    town.pay_by_hand(at=seoul("2026-10-31 23:59:59"))
    assert proposed(town).others == ()


def test_a_row_without_a_moment_of_paying_keeps_nothing(town: Town) -> None:
    by_hand = town.pay_by_hand()
    town.changed(by_hand.imp_uid, paid_at=0)
    assert proposed(town).others == ()


# -- whose it is --------------------------------------------------------------------------------


def nameless(town: Town, imp_uid: str) -> None:
    """The gateway's row does not say whose key it was."""
    town.changed(imp_uid, customer_uid="")


def test_without_a_key_the_month_that_counts_it_says_whose_it_is(town: Town) -> None:
    town.subscribe(1, first=2)
    shown_as(town, "renamed", customer_uid=None, merchant_uid="renamed")
    found = proposed(town, "renamed")
    assert (found.customer_uid, found.cycle_number) == (uid(1), 1)


def test_without_a_key_our_own_name_says_whose_it_is(town: Town) -> None:
    """A second row under the name of an attempt, which no month counts."""
    town.subscribe(1, first=2)
    town.charge()
    second = town.pay_by_hand(2, merchant_uid=name_of(town, 2))
    nameless(town, second.imp_uid)
    found = proposed(town, name_of(town, 2), second.imp_uid)
    assert (found.customer_uid, found.cycle_number) == (uid(2), None)


def test_without_a_key_the_registration_says_whose_it_is(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    town = Town(book, policy, clock)
    town.subscribe(2, paid="2026-11-10 14:30")
    for payment in [*town.sandbox.ledger.payments]:
        nameless(town, payment.imp_uid)
    name = payment_of_month(book, policy, uid(2)).merchant_uid
    assert proposed(town, name).customer_uid == uid(2)


def test_a_payment_that_two_books_name_is_nobodys_to_give_back(town: Town) -> None:
    """The gateway says that it is another customer's: somebody must look before money moves."""
    town.subscribe(1, first=2)
    town.changed(town.paid_imp_uid(), customer_uid=uid(2))
    with pytest.raises(Conflict, match="another customer's month"):
        proposed(town)


def test_a_payment_that_may_be_of_two_customers_is_given_back_for_neither(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """The gateway does not say whose it is, and two registrations were imported with its name: the
    wrong chain would be marked as broken."""
    town = Town(book, policy, clock)
    town.subscribe(2, paid="2026-11-10 14:30")
    name = payment_of_month(book, policy, uid(1)).merchant_uid
    execute(book, "UPDATE subscriptions SET initial_merchant_uid = :name", name=name)
    for payment in [*town.sandbox.ledger.payments]:
        nameless(town, payment.imp_uid)
    with pytest.raises(Conflict, match="several customers"):
        proposed(town, name)


# -- what may be given back ---------------------------------------------------------------------


def test_a_payment_of_the_other_mode_is_not_given_back(town: Town) -> None:
    shown_as(town, name_of(town), sandbox=True)
    with pytest.raises(Conflict, match="test or live"):
        proposed(town)


def test_what_was_given_back_in_part_is_a_persons_matter(town: Town) -> None:
    shown_as(town, name_of(town), cancel_amount=1)
    with pytest.raises(Conflict, match="in part"):
        proposed(town)


def test_after_the_month_only_a_transfer_helps_and_it_is_said(town: Town) -> None:
    town.at("2026-11-30 23:59:59")
    assert proposed(town).refund_by == seoul("2026-12-01 00:00")
    town.at("2026-12-01 00:00")
    with pytest.raises(Conflict, match=r"ended at 2026-12-01 00:00 .* by transfer"):
        proposed(town)


def test_what_was_cancelled_without_being_paid_is_no_refund(town: Town) -> None:
    town.changed(town.paid_imp_uid(), status=Status.CANCELLED, paid_at=0)
    with pytest.raises(Conflict, match="never paid"):
        proposed(town)


def test_of_a_name_used_twice_the_one_that_is_still_paid(town: Town) -> None:
    name = name_of(town)
    town.cancel_outside(town.paid_imp_uid())
    second = town.pay_by_hand(merchant_uid=name)
    found = proposed(town)
    assert (found.imp_uid, found.cancelled_at) == (second.imp_uid, None)


# -- given back already -------------------------------------------------------------------------


def test_what_the_gateway_gave_back_is_written_down_also_after_the_month(town: Town) -> None:
    """Cancelled in the console on the 21st, told to us in December: nothing is to be sent, so no
    month is too late."""
    town.at("2026-11-21 10:00")
    town.cancel_outside(town.paid_imp_uid())
    town.at("2026-12-02 10:00")
    found = proposed(town)
    assert found.cancelled_at == seoul("2026-11-21 10:00")
    request(town.book, found, "done in the console")
    assert refunds(town, "status, cancelled_at") == [("done", found.cancelled_at)]
    assert query(town.book, "SELECT status FROM cycles") == [("refunded",)]


def test_a_cancellation_without_a_moment_was_at_the_latest_now(town: Town) -> None:
    town.changed(town.paid_imp_uid(), status=Status.CANCELLED, cancelled_at=0)
    assert proposed(town).cancelled_at == town.clock.now


def test_a_request_that_is_under_way_is_not_ended_by_another_wish(town: Town) -> None:
    """Its own answer ends it; the wish finds it, and changes nothing."""
    before = proposed(town)
    first = request(town.book, before, "asked for")
    execute(
        town.book,
        "UPDATE refunds SET status = 'sending', sent_at = now(), lease_until = now(), fence = 1",
    )
    given_back = replace(before, cancelled_at=town.clock.now)
    assert request(town.book, given_back, "asked for again") == first
    assert refunds(town) == [("sending",)]


def test_a_refund_in_question_is_ended_by_a_look(town: Town) -> None:
    before = proposed(town)
    request(town.book, before, "asked for")
    execute(town.book, "UPDATE refunds SET status = 'unknown', provable_at = now(), ask_at = now()")
    request(town.book, replace(before, cancelled_at=town.clock.now), "asked for again")
    assert refunds(town) == [("done",)]


# -- the wish -----------------------------------------------------------------------------------


def test_what_is_wished_for_is_written_down_whole(town: Town) -> None:
    found = replace(proposed(town), merchant_uid="x" * 150)
    request(town.book, found, "\x1b[31m" + "y" * 300)
    columns = "cycle_id, imp_uid, merchant_uid, amount, breaks_chain, refund_by, status, reason"
    assert refunds(town, columns) == [
        (
            1,
            found.imp_uid,
            "x" * 100,
            1001,
            True,
            found.refund_by,
            "requested",
            (" [31m" + "y" * 300)[:200],
        )
    ]
    assert refunds(town, "requested_at") == [(town.clock.now,)]


def test_what_is_done_with_the_wish_is_done_once_for_each_asking(town: Town) -> None:
    """Also where the refund stands already: a customer who is cancelled and given back."""
    found, also = proposed(town), list[Transaction]()
    for _ in range(2):
        request(town.book, found, "asked for", also.append)
    assert len(also) == 2
    told = query(town.book, "SELECT count(*) FROM events WHERE kind = 'refund.requested'")
    assert told == [(1,)]


def test_a_wish_of_the_next_month_is_too_late(town: Town) -> None:
    """Looked up in the last second, confirmed in the first one after it."""
    town.at("2026-11-30 23:59:59")
    found = proposed(town)
    town.at("2026-12-01 00:00:00")
    with pytest.raises(Conflict, match="nothing was sent"):
        request(town.book, found, "asked for")
    assert refunds(town) == []


def test_of_two_payments_that_are_given_back_at_once_one_is_the_last(town: Town) -> None:
    """Each was proposed while the other kept the month; whoever is second ends the chain."""
    by_hand = town.pay_by_hand()
    town.move(minutes=5)
    first, second = proposed(town), proposed(town, by_hand.merchant_uid)
    assert (first.breaks_chain, second.breaks_chain) == (False, False)
    other = threading.Thread(target=lambda: request(town.book, second, "at the same time"))

    def meanwhile(_: Transaction) -> None:
        other.start()
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while other.is_alive() and query(town.book, blocked) == [(0,)]:
            other.join(0.05)

    request(town.book, first, "asked for", meanwhile)
    other.join(30)
    assert refunds(town, "breaks_chain") == [(False,), (True,)]


# -- this month's -------------------------------------------------------------------------------


def test_the_payment_of_this_month_is_the_customers_own(town: Town) -> None:
    town.subscribe(1, first=2)
    town.charge()
    named = [payment_of_month(town.book, town.policy, uid(number)) for number in (1, 2)]
    assert named == [Named(name_of(town, number), town.paid_imp_uid(number)) for number in (1, 2)]


def test_a_month_that_is_open_has_no_payment_and_last_months_is_not_its(town: Town) -> None:
    town.at("2026-12-20 10:00")
    assert open_cycles(town.book, town.policy) == 1
    with pytest.raises(NotFound, match="this calendar month"):
        payment_of_month(town.book, town.policy, uid(1))
    town.charge()
    assert payment_of_month(town.book, town.policy, uid(1)).merchant_uid == name_of(town)


def test_one_of_its_two_names_is_enough_for_the_initial_payment(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    town = Town(book, policy, clock)
    town.subscribe(paid="2026-11-10 14:30")
    execute(book, "UPDATE subscriptions SET initial_merchant_uid = NULL, initial_imp_uid = 'imp_9'")
    assert payment_of_month(book, policy, uid(1)) == Named(None, "imp_9")
