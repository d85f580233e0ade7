"""`why`: one answer for every state a cycle can be in, in both languages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from billing.domain.errors import NotFound
from billing.domain.policy import BillingPolicy
from billing.domain.refund import REFUSED_NEXT_MONTH
from billing.services.change_status import cancel, pause
from billing.services.close_cycles import close_cycles
from billing.services.explain import why
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.builders import a_row, enrolled, execute, query
from tests.conftest import MovedClock

WHO = "customer-1"


@pytest.fixture
def opened(book: Book, policy: BillingPolicy) -> Book:
    """One subscriber, whose first attempt is due now."""
    enrolled(book, policy, a_row(1))
    assert open_cycles(book, policy) == 1
    return book


def asked(book: Book, policy: BillingPolicy, number: int | None = None) -> dict[str, Any]:
    found = why(book, policy, WHO, number)
    for name in ("next", "what_a_person_can_do"):
        assert found[name]
        assert any("가" <= letter <= "힣" for letter in found[f"{name}_ko"])
    return found


def declined(book: Book, message: str, follows: bool) -> None:
    """The first attempt was declined; a second one is planned for 18:00, or none is."""
    execute(
        book,
        "UPDATE attempts SET status = 'declined', sent_at = '2026-11-20T01:00Z',"
        " settled_at = '2026-11-20T01:00Z', decline_class = 'x', message = :why",
        why=message,
    )
    if follows:
        execute(
            book,
            "INSERT INTO attempts (cycle_id, number, merchant_uid, status, closes_at, planned_at,"
            " ready_at) SELECT id, 2, 'mw-second', 'due', closes_at, :at, :at FROM cycles",
            at="2026-11-20T09:00Z",
        )


def paid(book: Book, reason: str | None) -> None:
    execute(
        book,
        "UPDATE cycles SET status = 'paid', reason = :reason, settled_at = now(),"
        " paid_imp_uid = 'imp_1', paid_merchant_uid = 'order-1', paid_at = now()",
        reason=reason,
    )


def test_a_stranger_is_not_found(book: Book, policy: BillingPolicy) -> None:
    with pytest.raises(NotFound):
        why(book, policy, "nobody")


def test_not_opened(book: Book, policy: BillingPolicy, clock: MovedClock) -> None:
    clock.move(days=-3)
    enrolled(book, policy, a_row(1))
    found = asked(book, policy)
    assert (found["status"], found["cycle"], found["attempts"]) == ("not opened", 1, [])
    assert found["window"] == ["2026-11-15", "2026-11-25"]
    assert found["band"] == ["2026-11-20", "2026-11-25"]
    assert "opens at 2026-11-20T10:00:00+09:00" in found["next"]
    assert "2026-11-20T10:00:00+09:00" in found["next_ko"]
    clock.move(days=3)
    assert "opens at the next tick" in asked(book, policy)["next"]
    clock.move(days=5, hours=14)
    assert "Too late for cycle 1 (2026-11)" in asked(book, policy)["next"]


def test_an_open_month_is_told_as_it_was_opened(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """Whatever the settings say by now."""
    narrow, wide = make_policy(window_days=0, close_margin_minutes=60), make_policy()
    enrolled(book, narrow, a_row(1))
    assert open_cycles(book, narrow) == 1
    found = asked(book, wide)
    assert found["window"] == found["band"] == ["2026-11-20", "2026-11-20"]
    clock.move(hours=13, minutes=1)
    assert "the last moment was 2026-11-20T23:00:00+09:00" in asked(book, wide)["next"]
    assert asked(book, wide, 2)["window"] == ["2026-12-15", "2026-12-25"]


def test_a_month_to_come_is_told_by_the_settings_in_force(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    clock.move(days=-3)
    enrolled(book, make_policy(), a_row(1))
    noon = make_policy(charge_cron="0 12 * * *")
    assert "opens at 2026-11-20T12:00:00+09:00" in asked(book, noon)["next"]
    clock.move(days=3)
    assert "opens at 2026-11-20T12:00:00+09:00" in asked(book, noon)["next"]


def test_a_cycle_that_does_not_exist_yet(opened: Book, policy: BillingPolicy) -> None:
    found = asked(opened, policy, 500)
    assert found["status"] == "not opened"
    assert "Cycle 500 (2068-06) is not there yet: the next is 2" in found["next"]
    assert "500회차(2068-06)는 아직 없습니다" in found["next_ko"]
    assert "opens at 2026-12-20" in asked(opened, policy, 2)["next"]


def test_a_month_before_the_enrolment(book: Book, policy: BillingPolicy) -> None:
    enrolled(book, policy, a_row(1, "2026-01-20T14:30:00+09:00"))
    found = asked(book, policy, 3)
    assert "came before the enrolment" in found["next"]
    assert "등록 이전" in found["next_ko"]


def test_a_cycle_older_than_the_newest_hundred(opened: Book, policy: BillingPolicy) -> None:
    """The cycle that is asked for is read, not one of a page."""
    execute(
        opened,
        "INSERT INTO cycles (subscription_id, number, month, amount, due_on, opens_on, closes_on,"
        " band_opens_at, last_start_at, closes_at, status, reason, opened_at, settled_at)"
        " SELECT subscription_id, n, m, amount, m + 19, m + 14, m + 24, m, m, m, 'skipped',"
        " 'paused', m, m FROM cycles, generate_series(2, 151) n,"
        " LATERAL (SELECT (date '2026-11-01' + make_interval(months => n - 1))::date) month(m)",
    )
    assert query(opened, "SELECT count(*) FROM cycles") == [(151,)]
    assert asked(opened, policy, 1)["status"] == "open"
    assert asked(opened, policy)["cycle"] == 151


def test_due(opened: Book, policy: BillingPolicy, clock: MovedClock) -> None:
    assert "Attempt 1 is due" in asked(opened, policy)["next"]
    clock.move(hours=-1)
    assert "Attempt 1 goes out at 2026-11-20T10:00:00+09:00" in asked(opened, policy)["next"]


def test_all_charging_held(opened: Book, policy: BillingPolicy) -> None:
    execute(opened, "UPDATE installation SET hold_reason = 'a drill'")
    found = asked(opened, policy)
    assert "all charging is held (a drill)" in found["next"]
    assert "maewol release" in found["what_a_person_can_do"]


def test_too_late(opened: Book, policy: BillingPolicy, clock: MovedClock) -> None:
    clock.move(days=5, hours=14)
    assert "Too late for attempt 1" in asked(opened, policy)["next"]


def test_an_attempt_that_came_back_goes_out_when_it_may(
    opened: Book, policy: BillingPolicy
) -> None:
    """Its slot has passed; a request that did not leave waits longer each time."""
    execute(opened, "UPDATE attempts SET ready_at = planned_at + interval '15 minutes'")
    assert asked(opened, policy)["next"] == "Attempt 1 goes out at 2026-11-20T10:15:00+09:00."


def test_an_attempt_that_came_back_too_late_goes_out_no_more(
    opened: Book, policy: BillingPolicy
) -> None:
    execute(opened, "UPDATE attempts SET ready_at = c.last_start_at + interval '1 s' FROM cycles c")
    found = asked(opened, policy)
    assert found["next"] == (
        "Too late for attempt 1: it may go again at 2026-11-25T23:30:01+09:00, and the last moment"
        " is 2026-11-25T23:30:00+09:00."
    )
    assert "2026-11-25T23:30:01+09:00" in found["next_ko"]


def test_sending(opened: Book, policy: BillingPolicy) -> None:
    execute(
        opened,
        "UPDATE attempts SET status = 'sending', sent_at = now(), lease_until = now(), fence = 1",
    )
    assert "at the gateway now" in asked(opened, policy)["next"]


def test_unknown(opened: Book, policy: BillingPolicy) -> None:
    execute(opened, "UPDATE attempts SET status = 'unknown'")
    assert "is asked what became of attempt 1" in asked(opened, policy)["next"]


def test_declined_with_a_retry_planned(opened: Book, policy: BillingPolicy) -> None:
    declined(opened, "한도초과", follows=True)
    found = asked(opened, policy)
    assert "Attempt 2 goes out at 2026-11-20T18:00:00+09:00" in found["next"]
    assert "raise the monthly phone-payment limit" in found["what_a_person_can_do"]
    assert "월 한도" in found["what_a_person_can_do_ko"]
    assert [one["message"] for one in found["attempts"]] == ["한도초과", None]


def test_declined_for_the_last_time(opened: Book, policy: BillingPolicy) -> None:
    declined(opened, "한도초과", follows=False)
    found = asked(opened, policy)
    assert found["next"] == "No further attempt; the window closes on 2026-11-25."
    assert "raise the monthly phone-payment limit" in found["what_a_person_can_do"]


def test_held(opened: Book, policy: BillingPolicy) -> None:
    execute(opened, "UPDATE cycles SET held = 'facts_changed'")
    found = asked(opened, policy)
    assert (found["held"], found["status"]) == ("facts_changed", "open")
    assert "Held (facts_changed)" in found["next"]


@pytest.mark.parametrize(
    ("verdicts", "hold", "following", "people"),
    [
        ("as", None, "it is suspended within a minute", "register"),
        ("sss", None, "stands until somebody is approved", "maewol release CUSTOMER_UID"),
        ("as", "the brake", "All charging is held (the brake)", "then run: maewol release"),
    ],
)
def test_what_may_be_our_own_mistake_says_who_decides(
    opened: Book,
    policy: BillingPolicy,
    verdicts: str,
    hold: str | None,
    following: str,
    people: str,
) -> None:
    declined(opened, "[0014] 해지", follows=False)
    execute(opened, "UPDATE cycles SET held = 'unconfirmed'")
    execute(opened, "UPDATE gateway_health SET verdicts = :verdicts", verdicts=verdicts)
    execute(opened, "UPDATE installation SET hold_reason = :hold, held_at = now()", hold=hold)
    found = asked(opened, policy)
    assert found["next"].startswith("Attempt 1 was declined for good")
    assert following in found["next"]
    assert people in found["what_a_person_can_do"]


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("facts_changed", "maewol subscription correct CUSTOMER_UID"),
        ("facts_mismatch", "maewol subscription correct CUSTOMER_UID"),
        ("contradiction", "console with the book; then `maewol release CUSTOMER_UID`"),
        ("payment_cancelled", "console with the book; then `maewol release CUSTOMER_UID`"),
    ],
)
def test_what_is_held_names_the_command_that_helps(
    opened: Book, policy: BillingPolicy, reason: str, command: str
) -> None:
    execute(opened, "UPDATE cycles SET held = :reason", reason=reason)
    found = asked(opened, policy)
    assert command in found["what_a_person_can_do"]
    assert ("subscription correct" in found["what_a_person_can_do_ko"]) is (
        "subscription correct" in command
    )


def test_what_is_held_over_an_unknown_charge_is_not_said_to_be_charged(
    opened: Book, policy: BillingPolicy
) -> None:
    """Money may have moved: a release only asks again, and what was taken can be given back."""
    execute(opened, "UPDATE attempts SET status = 'unknown'")
    execute(opened, "UPDATE cycles SET held = 'contradiction'")
    found = asked(opened, policy)
    for text in (found["what_a_person_can_do"], found["what_a_person_can_do_ko"]):
        assert "maewol reconcile" in text
        assert "maewol refund" in text
    assert "charges it" not in found["what_a_person_can_do"]
    assert "asks once more" in found["what_a_person_can_do"]


def test_a_chain_at_risk_says_what_it_means_and_what_to_do(
    opened: Book, policy: BillingPolicy
) -> None:
    """In the words of the refund's own warning; the charge that is planned is told, too."""
    execute(opened, "UPDATE subscriptions SET status_reason = 'chain_at_risk'")
    found = asked(opened, policy)
    assert found["next"].startswith("Attempt 1 is due and goes out as soon as a worker takes it. ")
    assert REFUSED_NEXT_MONTH[0] in found["next"]
    assert REFUSED_NEXT_MONTH[1] in found["next_ko"]
    assert "Ask the customer to register again" in found["what_a_person_can_do"]
    assert "Nothing." not in found["what_a_person_can_do"]
    declined(opened, "한도초과", follows=False)
    found = asked(opened, policy)
    assert "raise the monthly phone-payment limit" in found["what_a_person_can_do"]
    assert "subscription cancel CUSTOMER_UID" in found["what_a_person_can_do"]
    execute(opened, "UPDATE subscriptions SET status_reason = NULL")
    assert REFUSED_NEXT_MONTH[0] not in asked(opened, policy)["next"]


def test_missed(opened: Book, policy: BillingPolicy, clock: MovedClock) -> None:
    clock.move(days=7)
    close_cycles(opened, policy)
    found = asked(opened, policy)
    assert (found["status"], found["reason"]) == ("missed", "not_attempted")
    assert (found["subscription"], found["subscription_reason"]) == ("suspended", "chain_broken")
    assert found["next"] == "The cycle ended: missed, not_attempted."
    assert found["what_a_person_can_do"] == "The customer must register again."


def test_suspended_with_the_cycle_still_open(opened: Book, policy: BillingPolicy) -> None:
    declined(opened, "[0014] 해지", follows=False)
    execute(opened, "UPDATE subscriptions SET status = 'suspended', status_reason = 'key_invalid'")
    found = asked(opened, policy)
    assert "Suspended (key_invalid)" in found["next"]
    assert found["what_a_person_can_do"] == "The customer must register again."


def test_paused(opened: Book, policy: BillingPolicy, clock: MovedClock) -> None:
    pause(opened, policy, WHO)
    found = asked(opened, policy)
    assert found["next"] == "Paused: nothing is sent."
    assert "Resume it before 2026-11-25T23:30:00+09:00" in found["what_a_person_can_do"]
    clock.move(days=5, hours=14)
    found = asked(opened, policy)
    assert "has passed" in found["next"]
    assert found["what_a_person_can_do"] == "The customer must register again."


def test_paused_is_told_by_the_month_that_it_endangers(
    opened: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """Whatever month is asked about: the newest may be paid, and a later one never comes to be."""
    pause(opened, policy, WHO)
    for number in (1, 2, 500):
        told = asked(opened, policy, number)["what_a_person_can_do"]
        assert told.startswith("Resume it before 2026-11-25T23:30:00+09:00")
    paid(opened, None)
    for ask in (None, 1, 2, 500):
        told = asked(opened, policy, ask)["what_a_person_can_do"]
        assert told.startswith("Resume it before 2026-12-25T23:30:00+09:00")
    found = asked(opened, policy)
    assert found["next"] == "The cycle ended: paid. Paused: nothing is sent."
    paid(opened, "paid_elsewhere")
    told = asked(opened, policy)["what_a_person_can_do"]
    assert "who else charges this key" in told
    assert "Resume it before 2026-12-25" in told
    clock.move(days=35, hours=14)
    assert asked(opened, policy, 1)["what_a_person_can_do"].endswith("must register again.")


def test_cancelled(opened: Book, policy: BillingPolicy) -> None:
    cancel(opened, policy, WHO)
    found = asked(opened, policy)
    assert found["next"] == "The cycle ended: skipped, cancelled."
    assert asked(opened, policy, 2)["next"] == "Cancelled: nothing more is sent."


@pytest.mark.parametrize(
    ("reason", "people"), [("paid_elsewhere", "who else charges this key"), (None, "Nothing.")]
)
def test_paid(opened: Book, policy: BillingPolicy, reason: str | None, people: str) -> None:
    paid(opened, reason)
    found = asked(opened, policy)
    assert found["status"] == "paid"
    assert people in found["what_a_person_can_do"]
