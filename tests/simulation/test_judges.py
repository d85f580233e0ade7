"""The judges on histories made by hand: a clean one passes, and each promise is broken once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from billing.simulation import event_judge, ledger_judge, refund_judge
from billing.simulation.event_judge import Ends, Limits, Told
from billing.simulation.ledger_judge import KOREA, Asked, Breach, Looked, Month, Paid, Rules
from billing.simulation.refund_judge import LookedBack, Request

WHO, ORDER, NOVEMBER = "anna", "mw-1-01", date(2026, 11, 1)
ANCHORS = {WHO: date(2026, 10, 20)}
RULES = Rules(
    margin=timedelta(minutes=30),
    slack=timedelta(minutes=1),
    most_declines=3,
    most_a_day=2,
    in_flight=timedelta(seconds=90),
)


def at(day: int, hour: int = 10, minute: int = 0, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=KOREA)


def paid(order: str = ORDER, moment: datetime | None = None, **other: Any) -> Paid:
    moment = moment or at(20)
    return Paid(
        **{
            "customer": WHO,
            "order": order,
            "amount": 9_900,
            "at": moment,
            "ours": True,
            "entered_at": moment,
        }
        | other
    )


def asked(order: str = ORDER, moment: datetime | None = None, **other: Any) -> Asked:
    return Asked(
        **{
            "at": moment or at(20),
            "customer": WHO,
            "order": order,
            "differs": "",
            "outcome": "paid",
        }
        | other
    )


def month(**other: Any) -> Month:
    return Month(
        **{
            "customer": WHO,
            "first": NOVEMBER,
            "status": "paid",
            "reason": "",
            "held": False,
            "order": ORDER,
            "amount": 9_900,
            "orders": [ORDER],
        }
        | other
    )


def looked(order: str, moment: datetime) -> list[Looked]:
    return [Looked(moment, order, ""), Looked(moment, "", WHO)]


def rules_broken(
    payments: Sequence[Paid],
    requests: Sequence[Asked],
    months: Sequence[Month],
    looks: Sequence[Looked] = (),
) -> list[str]:
    found = ledger_judge.judge(ANCHORS, payments, requests, looks, months, RULES)
    return sorted({one.rule for one in found})


def test_a_clean_month_is_clean() -> None:
    assert rules_broken([paid()], [asked()], [month()]) == []


def test_two_payments_of_ours_in_a_month() -> None:
    second = paid("mw-1-02", at(21))
    found = rules_broken([paid(), second], [asked()], [month(), month(order="mw-1-02")])
    assert found == ["I1"]


def test_asked_although_somebody_else_paid() -> None:
    hand = paid("hand", at(19), ours=False)
    missed = month(status="paid", order="hand")
    assert rules_broken([hand], [asked(outcome="declined:0039")], [missed]) == ["I1"]


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        (at(19, 23, 58), False),
        (at(20, 0, 0), True),
        (at(25, 23, 30), True),
        (at(25, 23, 34), False),
        (at(26, 0, 1), False),
    ],
)
def test_the_band_and_its_margin(moment: datetime, inside: bool) -> None:
    found = rules_broken([paid(moment=moment)], [asked(moment=moment)], [month()])
    assert found == ([] if inside else ["I2"])


@pytest.mark.parametrize(
    ("anchor", "day", "first", "last"),
    [
        (date(2024, 1, 31), date(2024, 2, 10), 26, 29),
        (date(2024, 1, 31), date(2025, 2, 10), 26, 28),
        (date(2024, 1, 31), date(2024, 3, 10), 26, 31),
        (date(2024, 1, 1), date(2024, 2, 10), 1, 6),
        (date(2024, 1, 28), date(2024, 4, 10), 26, 30),
    ],
)
def test_bands_at_the_ends_of_months(anchor: date, day: date, first: int, last: int) -> None:
    begins, ends = ledger_judge.band(anchor, day)
    assert (begins.day, (ends - timedelta(days=1)).day) == (first, last)


def test_other_terms() -> None:
    assert rules_broken([paid()], [asked(differs="amount")], [month()]) == ["I3"]


@pytest.mark.parametrize(
    ("ended", "requests", "broken"),
    [
        (month(status="missed", reason="declined", order=""), [], ["I4"]),
        (month(status="missed", reason="held", order=""), [], ["I4"]),
        (month(status="missed", reason="unproven", order=""), [], ["I4"]),
        (
            month(status="missed", reason="not_attempted", order=""),
            [asked(outcome="declined:0098")],
            ["I4"],
        ),
        (
            month(status="missed", reason="declined", order=""),
            [asked(outcome="declined:0098")],
            [],
        ),
        (month(status="missed", reason="held", held=True, order=""), [], []),
    ],
)
def test_reasons_must_be_true(ended: Month, requests: list[Asked], broken: list[str]) -> None:
    assert rules_broken([], requests, [ended]) == broken


def test_a_paid_month_called_missed() -> None:
    missed = month(status="missed", reason="not_attempted", order="")
    assert rules_broken([paid()], [asked()], [missed]) == ["I4", "I8"]


def test_asked_twice_without_looking_in_between() -> None:
    first, second = asked(outcome="lost"), asked(moment=at(20, 11))
    blind = rules_broken([paid(moment=at(20, 11))], [first, second], [month()])
    half = [Looked(at(20, 10, 30), ORDER, "")]
    whole = looked(ORDER, at(20, 10, 30))
    too_late = looked(ORDER, at(20, 12))
    assert blind == ["I5"]
    for looks, found in ((half, ["I5"]), (whole, []), (too_late, ["I5"])):
        payments = [paid(moment=at(20, 11))]
        assert rules_broken(payments, [first, second], [month()], looks) == found


def test_declined_without_a_refusal() -> None:
    assert rules_broken([paid()], [asked()], [month(declined=["mw-1-00"])]) == ["I5"]


def test_two_charges_in_hand() -> None:
    assert rules_broken([paid()], [asked(overlaps=True)], [month()]) == ["I6"]


def test_the_ledgers_disagree() -> None:
    assert rules_broken([], [], [month()]) == ["I8"]
    assert rules_broken([paid()], [asked()], []) == ["I8"]
    assert rules_broken([paid(amount=1)], [asked()], [month()]) == ["I8"]


def test_too_many_declines() -> None:
    refused = [
        asked(f"mw-1-0{n}", at(20 + n // 3, 10 + n % 3), outcome="declined:0098") for n in range(6)
    ]
    looks = [one for n in range(6) for one in looked(f"mw-1-0{n}", at(20 + n // 3, 10 + n % 3))]
    assert rules_broken([], refused[:2], [], looks) == []
    assert rules_broken([], refused[:3], [], looks) == ["I9"]
    assert rules_broken([], [refused[0], refused[1], refused[3], refused[4]], [], looks) == ["I9"]
    forgotten = [replace(refused[0], forgotten=True), *refused[1:3]]
    assert rules_broken([], forgotten, [], looks) == []


def test_what_a_book_that_was_set_back_has_forgotten_is_no_reason_of_it() -> None:
    missed = month(status="missed", reason="not_attempted", order="")
    refused = asked(outcome="declined:0098")
    assert rules_broken([], [refused], [missed]) == ["I4"]
    assert rules_broken([], [replace(refused, forgotten=True)], [missed]) == []
    # That it happened is true all the same.
    found = replace(missed, reason="declined", declined=[ORDER])
    assert rules_broken([], [replace(refused, forgotten=True)], [found]) == []
    assert rules_broken([paid()], [replace(refused, forgotten=True)], [missed]) == ["I4", "I8"]


# -- event lines -------------------------------------------------------------------------------

LIMITS = Limits(
    lease=timedelta(seconds=120),
    settle=timedelta(seconds=120),
    visibility=timedelta(seconds=30),
    steady=True,
    ended_at=at(24),
    slack=timedelta(minutes=1),
)
ENDS = Ends(
    attempts={1: (WHO, "approved")},
    months={(WHO, NOVEMBER): "paid"},
    subscriptions={WHO: ("active", date(2026, 10, 20), NOVEMBER)},
)


def line(kind: str, seconds: float = 0, attempt: int | None = None, **data: Any) -> Told:
    return Told(
        at=at(20) + timedelta(seconds=seconds),
        kind=kind,
        customer=WHO,
        month=None if kind.startswith(("subscription", "charging")) else NOVEMBER,
        attempt=attempt,
        order="" if attempt is None else f"mw-1-0{attempt}",
        data=data,
    )


ENROLLED, OPENED = line("subscription.enrolled", -90), line("cycle.opened", -60)
SENDING = line("attempt.sending", 0, 1, fence=1)
APPROVED, PAID = line("attempt.approved", 1, 1), line("cycle.paid", 1)
CLEAN = [ENROLLED, OPENED, SENDING, APPROVED, PAID]


def story_breaks(
    told: Sequence[Told], ends: Ends = ENDS, requests: Sequence[Asked] = (), **limits: Any
) -> list[str]:
    found: list[Breach] = event_judge.judge(told, requests, ends, replace(LIMITS, **limits))
    return sorted({one.rule for one in found})


def test_a_clean_story_is_clean() -> None:
    assert story_breaks(CLEAN, requests=[asked(moment=at(20, 10, 1))]) == []


def test_a_state_that_no_line_tells_of() -> None:
    assert story_breaks([ENROLLED, OPENED, SENDING, PAID]) == ["I7"]
    assert story_breaks([ENROLLED, OPENED, SENDING, APPROVED]) == ["I7"]
    assert story_breaks(CLEAN[1:]) == ["I11", "I7"]


def test_an_unlawful_step() -> None:
    assert "I7" in story_breaks([*CLEAN, line("attempt.declined", 2, 1)])


def test_a_claim_while_held_paused_or_ended() -> None:
    held = [ENROLLED, OPENED, line("charging.held"), SENDING, APPROVED, PAID]
    cycle_held = [ENROLLED, OPENED, line("cycle.held"), SENDING, APPROVED, PAID]
    released = [ENROLLED, OPENED, line("charging.held"), line("charging.released"), *CLEAN[2:]]
    paused = [ENROLLED, OPENED, line("subscription.paused"), SENDING, APPROVED, PAID]
    assert story_breaks(held) == ["I10"]
    assert story_breaks(cycle_held) == ["I10"]
    assert story_breaks(released) == []
    assert "I11" in story_breaks(paused)
    assert "I6" in story_breaks([ENROLLED, OPENED, PAID, SENDING, APPROVED])


def test_a_book_that_was_set_back_is_left_alone_until_it_is_released() -> None:
    over = (at(20, 9), at(20, 11))
    before, after = (at(20, 8), at(20, 9, 30)), (at(20, 10, 30), at(20, 11))
    request = [asked(moment=at(20, 10, 1))]
    assert story_breaks(CLEAN, requests=request, set_back=[over]) == ["I10"]
    assert story_breaks(CLEAN, requests=request, set_back=[before, after]) == []
    # What had left before arrives a little later.
    assert story_breaks(CLEAN, requests=request, set_back=[(at(20, 10, 0), at(20, 11))]) == []
    missed = [ENROLLED, OPENED, line("cycle.missed")]
    ends = replace(ENDS, attempts={}, months={(WHO, NOVEMBER): "missed"})
    assert story_breaks(missed, ends, set_back=[over]) == ["I10"]
    assert story_breaks(missed, ends, set_back=[over], steady=False) == []
    assert story_breaks(missed, ends, set_back=[before, after]) == []


def test_what_a_book_that_was_set_back_calls_due_may_be_found_paid() -> None:
    told = [ENROLLED, OPENED, APPROVED, PAID]
    assert story_breaks(told) == ["I7"]
    assert story_breaks(told, requests=[asked("mw-1-01", at(20, 9))]) == ["I5", "I7"]
    assert story_breaks(told, requests=[asked("mw-1-01", at(20, 9), forgotten=True)]) == []


def test_a_fence_that_does_not_grow() -> None:
    again = [line("attempt.not_sent", 1, 1), line("attempt.sending", 2, 1, fence=1)]
    assert story_breaks([*CLEAN[:3], *again, APPROVED, PAID]) == ["I6"]


def test_two_attempts_at_once() -> None:
    second = line("attempt.sending", 0.5, 2, fence=1)
    ends = replace(ENDS, attempts={1: (WHO, "approved"), 2: (WHO, "sending")})
    assert story_breaks([ENROLLED, OPENED, SENDING, second, APPROVED, PAID], ends) == ["I6"]


@pytest.mark.parametrize(
    ("why", "seconds", "broken"),
    [
        ("no answer", 1 + 119, ["I5"]),
        ("no answer", 1 + 120, []),
        ("the lease ran out", 239, ["I5"]),
        ("the lease ran out", 240, []),
    ],
)
def test_proof_needs_its_time(why: str, seconds: float, broken: list[str]) -> None:
    told = [
        ENROLLED,
        OPENED,
        SENDING,
        line("attempt.unknown", 1, 1, why=why),
        line("attempt.not_sent", seconds, 1),
        line("attempt.sending", seconds + 5, 1, fence=2),
        line("attempt.approved", seconds + 6, 1),
        line("cycle.paid", seconds + 6),
    ]
    assert story_breaks(told) == broken


def test_asked_before_it_was_claimed() -> None:
    assert story_breaks(CLEAN, requests=[asked(moment=at(20, 9))]) == ["I5"]
    assert story_breaks(CLEAN, requests=[asked("mw-9-01", at(20, 10, 1))]) == ["I5"]


def test_approved_by_an_answer_about_something_else() -> None:
    wrong = [asked(moment=at(20), fault="wrong_amount")]
    asking = [*CLEAN[:3], line("attempt.unknown", 0.5, 1, why="another amount"), APPROVED, PAID]
    assert story_breaks(CLEAN, requests=wrong) == ["I3"]
    assert story_breaks(asking, requests=wrong) == []


def test_a_month_passed_over_or_left_open() -> None:
    far = {"ended_at": datetime(2027, 1, 20, tzinfo=KOREA)}
    assert story_breaks(CLEAN, **far) == ["I4"]
    left_open = replace(ENDS, months={(WHO, NOVEMBER): "open"}, attempts={})
    assert story_breaks([ENROLLED, OPENED], left_open, ended_at=at(20, month=12)) == ["I4"]


def test_a_month_that_ends_twice() -> None:
    ends = replace(ENDS, months={(WHO, NOVEMBER): "missed"})
    assert "I4" in story_breaks([*CLEAN, line("cycle.missed", 5)], ends)
    late = [ENROLLED, OPENED, SENDING, line("cycle.missed", 0.5), APPROVED, PAID]
    assert story_breaks(late) == []


REFUNDED = line("cycle.refunded", 60)
GONE = "imp_1"


def difference(imp_uid: str, kind: str) -> Told:
    return replace(line("reconcile.difference"), data={"imp_uid": imp_uid, "kind": kind})


def test_a_month_is_refunded_only_after_it_was_paid() -> None:
    ends = replace(ENDS, months={(WHO, NOVEMBER): "refunded"})
    assert story_breaks([*CLEAN, REFUNDED], ends) == []
    assert story_breaks([*CLEAN[:4], REFUNDED], ends) == ["I4"]
    assert story_breaks([*CLEAN, REFUNDED, REFUNDED], ends) == ["I4"]


def test_a_charge_after_the_other_payment_went_back_is_right() -> None:
    other = paid("hand-1", at(19), ours=False)
    second = asked(moment=at(20))
    assert rules_broken([paid(), other], [second], [month()]) == ["I1"]
    went_back = replace(other, cancelled_at=at(19, 12))
    assert rules_broken([paid(), went_back], [second], [month()]) == []


def back_breaks(
    payments: Sequence[Paid] = (),
    months: Sequence[Month] = (),
    told: Sequence[Told] = (),
    back: LookedBack | None = None,
) -> list[str]:
    found = refund_judge.judge(
        payments, months, told, back or LookedBack(), claimed_for=timedelta(minutes=3)
    )
    return sorted({one.rule for one in found})


def test_a_refund_is_not_sent_again_blindly() -> None:
    twice = [Request(at(20, 11), GONE), Request(at(20, 12), GONE)]
    other = [Request(at(20, 11, 30), "imp_2")]
    look = [Request(at(20, 11, 30), GONE)]
    assert back_breaks(back=LookedBack(asked_back=twice)) == ["I5"]
    assert back_breaks(back=LookedBack(asked_back=twice, looked_up=other)) == ["I5"]
    assert back_breaks(back=LookedBack(asked_back=twice, looked_up=look)) == []
    # A process that was frozen between its last check and the write.
    assert back_breaks(back=LookedBack(asked_back=twice, frozen=[at(20, 10, 58)])) == []
    assert back_breaks(back=LookedBack(asked_back=twice, frozen=[at(20, 10)])) == ["I5"]


def test_a_payment_goes_back_once() -> None:
    sent, done = line("refund.sending", imp_uid=GONE), line("refund.done", imp_uid=GONE)
    other = line("refund.sending", imp_uid="imp_2")
    assert back_breaks(told=[sent, done, other]) == []
    assert back_breaks(told=[sent, done, sent]) == ["I1"]
    assert back_breaks(told=[sent, done, done]) == ["I1"]


def test_a_refunded_month_went_back_at_the_gateway() -> None:
    went_back = paid(imp_uid=GONE, cancelled_at=at(21))
    refunded = month(status="refunded", imp_uid=GONE)
    assert back_breaks([went_back], [refunded]) == []
    assert back_breaks([paid(imp_uid=GONE)], [refunded]) == ["I8"]


def test_what_went_back_is_followed_and_what_was_taken_is_counted_or_told() -> None:
    twice = LookedBack(whole=[at(22), at(23)])
    went_back, stays = paid(imp_uid=GONE, cancelled_at=at(21)), month(imp_uid=GONE)
    assert back_breaks([went_back], [stays], back=twice) == ["I8"]
    assert back_breaks([went_back], [stays], back=LookedBack(whole=[at(22)])) == []
    taken = paid("hand-1", at(21), ours=False, imp_uid="imp_2")
    told = difference("imp_2", "double")
    assert back_breaks([taken], [stays], back=twice) == ["I8"]
    assert back_breaks([taken], [stays], back=LookedBack(whole=[at(21), at(22)])) == []
    assert back_breaks([taken], [stays], [told], back=twice) == []
    assert back_breaks([taken], [month(imp_uid="imp_2")], back=twice) == []
    assert back_breaks([replace(taken, initial=True)], [stays], back=twice) == []


def test_nobody_is_told_of_what_counts() -> None:
    counted = line("cycle.paid", imp_uid=GONE)
    told = difference(GONE, "double")
    assert back_breaks(told=[told, counted]) == []
    assert back_breaks(told=[counted, told]) == ["I8"]
    gone = difference(GONE, "cancelled_at_gateway")
    assert back_breaks(told=[counted, gone]) == []
