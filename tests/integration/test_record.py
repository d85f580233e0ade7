"""What each answer does to an attempt, its month, its subscriber: columns, lines, notices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.domain.brake import Verdict
from billing.domain.calendar import FIRST_MOMENT
from billing.domain.cycle import CycleReason
from billing.domain.errors import TransitionRefused
from billing.domain.finding import (
    Contradiction,
    FailedThis,
    Nothing,
    PaidByEarlier,
    PaidByThis,
    PaidElsewhere,
    Pending,
)
from billing.domain.money import Won
from billing.domain.outcome import Approved, Declined, NotSent, Unknown
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.services import change_status
from billing.services.answer import Answer, FactsChanged, GivenBack, Result, clean
from billing.services.inquire import _give_up_on_expired
from billing.services.open_cycles import open_cycles
from billing.services.record import adopt, record
from billing.services.recorder import over_at
from billing.store import attempts, health
from billing.store.session import Book
from billing.store.tables import Attempt
from tests.builders import a_refund, a_row, enrolled, execute, query
from tests.conftest import MovedClock

ASKED_AFTER = timedelta(minutes=10)


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy()


@pytest.fixture
def attempt_id(book: Book, policy: BillingPolicy, clock: MovedClock) -> int:
    """An attempt that was dispatched and that a worker has claimed just now."""
    enrolled(book, policy, a_row(1))
    assert open_cycles(book, policy) == 1
    execute(book, "UPDATE attempts SET dispatched_at = :now", now=clock.now)
    ((found,),) = query(book, "SELECT id FROM attempts")
    with book.transaction() as tx:
        assert attempts.claim(tx.session, [found], tx.now, tx.now + policy.lease)
    execute(book, "DELETE FROM notices")
    return int(found)


def payment(clock: MovedClock, imp_uid: str = "imp_1", merchant_uid: str = "by-hand") -> Payment:
    return Payment(
        imp_uid=imp_uid,
        merchant_uid=merchant_uid,
        status="paid",
        amount=Won(1001),
        customer_uid="customer-1",
        paid_at=clock.now,
        currency="KRW",
    )


@pytest.mark.parametrize(
    ("sent", "lease", "over"),
    [
        (None, None, 0),
        (None, 60, 0),
        (0, 60, 0),
        (-30, 30, 0),
        (1, 61, 61),
        (1, None, 0),
    ],
)
def test_without_an_answer_it_is_over_now_or_by_a_clock_that_leapt_back_with_its_lease(
    clock: MovedClock, sent: int | None, lease: int | None, over: int
) -> None:
    """Seconds from now."""

    def at(seconds: int | None) -> datetime | None:
        return None if seconds is None else clock.now + timedelta(seconds=seconds)

    given = Attempt(sent_at=at(sent), lease_until=at(lease))
    assert over_at(given, clock.now) == at(over)


class Case:
    """One attempt, and the answers that come for it."""

    def __init__(self, book: Book, policy: BillingPolicy, clock: MovedClock, attempt: int) -> None:
        self.book, self.policy, self.clock, self.attempt = book, policy, clock, attempt
        self.seen = query(book, "SELECT coalesce(max(id), 0) FROM events")[0][0]

    def answer(self, learnt: Any, *, asked: bool = False) -> Result:
        """What became of it; `asked` when it came from a look-up after the charge."""
        at = self.clock.now if asked else None
        answer = Answer(self.attempt, 1, learnt, at)
        return self.book.run(lambda tx: record(tx, self.policy, [answer]))[0]

    def was_unknown(self) -> Case:
        """No answer came, and it is late enough for a look-up to prove something."""
        assert self.answer(Unknown("no answer")) == "unknown"
        self.clock.move(seconds=ASKED_AFTER.total_seconds())
        execute(self.book, "DELETE FROM notices")
        self.seen = query(self.book, "SELECT max(id) FROM events")[0][0]
        return self

    def row(self, table: str, columns: str, where: str = "true") -> dict[str, Any]:
        """The columns that hold something; moments in seconds from now."""
        (values,) = query(self.book, f"SELECT {columns} FROM {table} WHERE {where}")
        named = zip(columns.split(", "), values, strict=True)
        held = {name: self.told(value) for name, value in named if value not in (None, 0)}
        if held["status"] != "due":
            held.pop("ready_at", None)
        return held

    def told(self, value: Any) -> Any:
        moment = isinstance(value, datetime)
        return (value - self.clock.now).total_seconds() if moment else value

    def attempt_row(self) -> dict[str, Any]:
        return self.row(
            "attempts",
            "status, ready_at, dispatched_at, lease_until, ask_at, provable_at, settled_at,"
            " refusal, not_sent, nothing_found, asked, decline_class, message, imp_uid",
            f"id = {self.attempt}",
        )

    def cycle_row(self) -> dict[str, Any]:
        return self.row(
            "cycles",
            "status, reason, held, settled_at, paid_imp_uid, paid_merchant_uid, paid_at",
        )

    def events(self) -> list[tuple[str, bool]]:
        """Kind and alarm of every line since."""
        found = query(
            self.book,
            "SELECT kind, alarm FROM events WHERE id > :seen ORDER BY id",
            seen=self.seen,
        )
        return [(kind, alarm) for kind, alarm in found]

    def notices(self) -> list[str]:
        """Their kinds; what they tell is test_news.py's."""
        return [kind for (kind,) in query(self.book, "SELECT kind FROM notices ORDER BY id")]


@pytest.fixture
def case(book: Book, policy: BillingPolicy, clock: MovedClock, attempt_id: int) -> Case:
    return Case(book, policy, clock, attempt_id)


def cases(clock: MovedClock) -> dict[str, Any]:
    """Everything that can be learnt of an attempt, by a name of ours."""
    paid, more = payment(clock), payment(clock, "imp_2")
    return {
        "approved": Approved("imp_1", Won(1001), clock.now),
        "paid by this, and once more": PaidByThis(paid, also=(more,)),
        "paid by an earlier one, and once more": PaidByEarlier(paid, also=(more,)),
        "paid elsewhere": PaidElsewhere(payment(clock, merchant_uid="m" * 50)),
        "paid elsewhere, and once more": PaidElsewhere(paid, also=(more,)),
        "declined": Declined("[0098] 시스템", "imp_1"),
        "declined in a new way": Declined("\x07?", None),
        "declined for good": Declined("[0018] 번호", "imp_1"),
        "declined as not matching": Declined("[0060] 전월", "imp_1"),
        "declined by our fault": Declined("[0071] 계약", "imp_1"),
        "declined as paid already": Declined("이미 결제가 이루어진 거래건입니다.", "imp_1"),
        "failed": FailedThis("[0098] 시스템", "imp_1"),
        "not sent": NotSent("no way\x07"),
        "not sent by our fault": NotSent("no way", our_fault=True),
        "given back": GivenBack("too late"),
        "no answer": Unknown("no answer"),
        "refused": Unknown("code 1", refusal="no\x07"),
        "another amount": Unknown("odd", contradiction=True),
        "contradiction": Contradiction("odd", "imp_1"),
        "cancelled": Contradiction("odd", "imp_1", cancelled=True),
        "facts changed": FactsChanged(),
        "pending": Pending("ready"),
        "nothing": Nothing(),
    }


OURS = "mw-2yy3bot4ujxhx3jn-202611-01"
SENDING, UNKNOWN = "S", "U"
# For an attempt that is being sent, or whose answer never came: the result; what the attempt and
# the month hold afterwards (moments in seconds from now); the lines, those that alarm with `!`; the
# notices.
EXPECTED: dict[tuple[str, str], tuple[Any, ...]] = {
    (SENDING, "approved"): (
        "approved",
        {"status": "approved", "settled_at": 0.0, "imp_uid": "imp_1"},
        {
            "status": "paid",
            "settled_at": 0.0,
            "paid_imp_uid": "imp_1",
            "paid_merchant_uid": OURS,
            "paid_at": 0.0,
        },
        ["attempt.approved", "cycle.paid"],
        ["payment.paid"],
    ),
    (SENDING, "paid by this, and once more"): (
        "approved",
        {"status": "approved", "settled_at": 0.0, "imp_uid": "imp_1"},
        {
            "status": "paid",
            "settled_at": 0.0,
            "paid_imp_uid": "imp_1",
            "paid_merchant_uid": OURS,
            "paid_at": 0.0,
        },
        ["payment.double!", "attempt.approved", "cycle.paid"],
        [
            "payment.unknown",
            "payment.paid",
        ],
    ),
    (SENDING, "paid by an earlier one, and once more"): (
        "paid_elsewhere",
        {"status": "withdrawn", "settled_at": 0.0},
        {
            "status": "paid",
            "reason": "paid_late",
            "settled_at": 0.0,
            "paid_imp_uid": "imp_1",
            "paid_merchant_uid": "by-hand",
            "paid_at": 0.0,
        },
        ["payment.double!", "attempt.withdrawn", "cycle.paid", "payment.found_elsewhere!"],
        [
            "payment.unknown",
            "payment.paid",
        ],
    ),
    (SENDING, "paid elsewhere"): (
        "paid_elsewhere",
        {"status": "withdrawn", "settled_at": 0.0},
        {
            "status": "paid",
            "reason": "paid_elsewhere",
            "settled_at": 0.0,
            "paid_imp_uid": "imp_1",
            "paid_merchant_uid": "m" * 40,
            "paid_at": 0.0,
        },
        ["attempt.withdrawn", "cycle.paid", "payment.found_elsewhere!"],
        ["payment.paid"],
    ),
    (SENDING, "paid elsewhere, and once more"): (
        "paid_elsewhere",
        {"status": "withdrawn", "settled_at": 0.0},
        {
            "status": "paid",
            "reason": "paid_elsewhere",
            "settled_at": 0.0,
            "paid_imp_uid": "imp_1",
            "paid_merchant_uid": "by-hand",
            "paid_at": 0.0,
        },
        ["payment.double!", "attempt.withdrawn", "cycle.paid", "payment.found_elsewhere!"],
        [
            "payment.unknown",
            "payment.paid",
        ],
    ),
    (SENDING, "declined"): (
        "declined",
        {
            "status": "declined",
            "settled_at": 0.0,
            "decline_class": "again_soon",
            "message": "[0098] 시스템",
            "imp_uid": "imp_1",
        },
        {},
        ["attempt.declined", "attempt.planned"],
        ["payment.declined"],
    ),
    (SENDING, "declined in a new way"): (
        "declined",
        {"status": "declined", "settled_at": 0.0, "decline_class": "unrecognized", "message": " ?"},
        {},
        ["attempt.declined!", "attempt.planned"],
        ["payment.declined"],
    ),
    (SENDING, "declined for good"): (
        "declined",
        {
            "status": "declined",
            "settled_at": 0.0,
            "decline_class": "register_anew",
            "message": "[0018] 번호",
            "imp_uid": "imp_1",
        },
        {"status": "open", "held": "unconfirmed"},
        ["attempt.declined", "cycle.held"],
        ["payment.declined"],
    ),
    (SENDING, "declined as not matching"): (
        "declined",
        {
            "status": "declined",
            "settled_at": 0.0,
            "decline_class": "mismatch",
            "message": "[0060] 전월",
            "imp_uid": "imp_1",
        },
        {"status": "open", "held": "facts_mismatch"},
        ["attempt.declined!", "cycle.held!"],
        ["payment.declined"],
    ),
    (SENDING, "declined by our fault"): (
        "declined",
        {
            "status": "declined",
            "settled_at": 0.0,
            "decline_class": "operator",
            "message": "[0071] 계약",
            "imp_uid": "imp_1",
        },
        {},
        ["attempt.declined!", "attempt.planned"],
        ["payment.declined"],
    ),
    (SENDING, "declined as paid already"): (
        "unknown",
        {
            "status": "unknown",
            "lease_until": 120.0,
            "ask_at": 5.0,
            "provable_at": 30.0,
            "refusal": "이미 결제가 이루어진 거래건입니다.",
            "asked": 1,
        },
        {},
        ["attempt.unknown"],
        [],
    ),
    (SENDING, "not sent"): (
        "not_sent",
        {"status": "due", "ready_at": 5.0, "not_sent": 1},
        {},
        ["attempt.not_sent"],
        [],
    ),
    (SENDING, "not sent by our fault"): (
        "not_sent",
        {"status": "due", "ready_at": 5.0, "not_sent": 1},
        {},
        ["attempt.not_sent!"],
        [],
    ),
    (SENDING, "given back"): (
        "not_sent",
        {"status": "due", "ready_at": 5.0},
        {},
        ["attempt.not_sent"],
        [],
    ),
    (SENDING, "no answer"): (
        "unknown",
        {
            "status": "unknown",
            "lease_until": 120.0,
            "ask_at": 5.0,
            "provable_at": 120.0,
            "asked": 1,
        },
        {},
        ["attempt.unknown"],
        [],
    ),
    (SENDING, "refused"): (
        "unknown",
        {
            "status": "unknown",
            "lease_until": 120.0,
            "ask_at": 5.0,
            "provable_at": 30.0,
            "refusal": "no ",
            "asked": 1,
        },
        {},
        ["attempt.unknown"],
        [],
    ),
    (SENDING, "another amount"): (
        "unknown",
        {
            "status": "unknown",
            "lease_until": 120.0,
            "ask_at": 5.0,
            "provable_at": 120.0,
            "asked": 1,
        },
        {"status": "open", "held": "contradiction"},
        ["cycle.held!", "attempt.unknown!"],
        [],
    ),
    (SENDING, "contradiction"): (
        "held",
        {"status": "due", "ready_at": 5.0},
        {"status": "open", "held": "contradiction"},
        ["attempt.not_sent", "cycle.held!"],
        [],
    ),
    (SENDING, "cancelled"): (
        "held",
        {"status": "due", "ready_at": 5.0},
        {"status": "open", "held": "payment_cancelled"},
        ["attempt.not_sent", "cycle.held!"],
        [],
    ),
    (SENDING, "facts changed"): (
        "held",
        {"status": "due", "ready_at": 5.0},
        {"status": "open", "held": "facts_changed"},
        ["attempt.not_sent", "cycle.held!"],
        [],
    ),
    (SENDING, "pending"): (
        "not_sent",
        {"status": "due", "ready_at": 60.0},
        {},
        ["attempt.not_sent"],
        [],
    ),
    (UNKNOWN, "approved"): (
        "approved",
        {
            "status": "approved",
            "provable_at": -480.0,
            "settled_at": 0.0,
            "asked": 1,
            "imp_uid": "imp_1",
        },
        {
            "status": "paid",
            "settled_at": 0.0,
            "paid_imp_uid": "imp_1",
            "paid_merchant_uid": OURS,
            "paid_at": 0.0,
        },
        ["attempt.approved", "cycle.paid"],
        ["payment.paid"],
    ),
    (UNKNOWN, "paid by this, and once more"): (
        "approved",
        {
            "status": "approved",
            "provable_at": -480.0,
            "settled_at": 0.0,
            "asked": 1,
            "imp_uid": "imp_1",
        },
        {
            "status": "paid",
            "settled_at": 0.0,
            "paid_imp_uid": "imp_1",
            "paid_merchant_uid": OURS,
            "paid_at": 0.0,
        },
        ["payment.double!", "attempt.approved", "cycle.paid"],
        [
            "payment.unknown",
            "payment.paid",
        ],
    ),
    (UNKNOWN, "paid by an earlier one, and once more"): (
        "paid_elsewhere",
        {"status": "withdrawn", "provable_at": -480.0, "settled_at": 0.0, "asked": 1},
        {
            "status": "paid",
            "reason": "paid_late",
            "settled_at": 0.0,
            "paid_imp_uid": "imp_1",
            "paid_merchant_uid": "by-hand",
            "paid_at": 0.0,
        },
        ["payment.double!", "attempt.withdrawn", "cycle.paid", "payment.found_elsewhere!"],
        [
            "payment.unknown",
            "payment.paid",
        ],
    ),
    (UNKNOWN, "paid elsewhere"): (
        "paid_elsewhere",
        {"status": "withdrawn", "provable_at": -480.0, "settled_at": 0.0, "asked": 1},
        {
            "status": "paid",
            "reason": "paid_elsewhere",
            "settled_at": 0.0,
            "paid_imp_uid": "imp_1",
            "paid_merchant_uid": "m" * 40,
            "paid_at": 0.0,
        },
        ["attempt.withdrawn", "cycle.paid", "payment.found_elsewhere!"],
        ["payment.paid"],
    ),
    (UNKNOWN, "paid elsewhere, and once more"): (
        "paid_elsewhere",
        {"status": "withdrawn", "provable_at": -480.0, "settled_at": 0.0, "asked": 1},
        {
            "status": "paid",
            "reason": "paid_elsewhere",
            "settled_at": 0.0,
            "paid_imp_uid": "imp_1",
            "paid_merchant_uid": "by-hand",
            "paid_at": 0.0,
        },
        ["payment.double!", "attempt.withdrawn", "cycle.paid", "payment.found_elsewhere!"],
        [
            "payment.unknown",
            "payment.paid",
        ],
    ),
    (UNKNOWN, "declined"): (
        "declined",
        {
            "status": "declined",
            "provable_at": -480.0,
            "settled_at": 0.0,
            "asked": 1,
            "decline_class": "again_soon",
            "message": "[0098] 시스템",
            "imp_uid": "imp_1",
        },
        {},
        ["attempt.declined", "attempt.planned"],
        ["payment.declined"],
    ),
    (UNKNOWN, "declined as paid already"): (
        "declined",
        {
            "status": "declined",
            "provable_at": -480.0,
            "settled_at": 0.0,
            "asked": 1,
            "decline_class": "already_paid",
            "message": "이미 결제가 이루어진 거래건입니다.",
            "imp_uid": "imp_1",
        },
        {"status": "open", "held": "contradiction"},
        ["attempt.declined", "cycle.held!"],
        ["payment.declined"],
    ),
    (UNKNOWN, "failed"): (
        "declined",
        {
            "status": "declined",
            "provable_at": -480.0,
            "settled_at": 0.0,
            "asked": 1,
            "decline_class": "again_soon",
            "message": "[0098] 시스템",
            "imp_uid": "imp_1",
        },
        {},
        ["attempt.declined", "attempt.planned"],
        ["payment.declined"],
    ),
    (UNKNOWN, "not sent"): (
        "too_late",
        {
            "status": "unknown",
            "lease_until": -480.0,
            "ask_at": -595.0,
            "provable_at": -480.0,
            "asked": 1,
        },
        {},
        [],
        [],
    ),
    (UNKNOWN, "not sent by our fault"): (
        "too_late",
        {
            "status": "unknown",
            "lease_until": -480.0,
            "ask_at": -595.0,
            "provable_at": -480.0,
            "asked": 1,
        },
        {},
        [],
        [],
    ),
    (UNKNOWN, "given back"): (
        "too_late",
        {
            "status": "unknown",
            "lease_until": -480.0,
            "ask_at": -595.0,
            "provable_at": -480.0,
            "asked": 1,
        },
        {},
        [],
        [],
    ),
    (UNKNOWN, "no answer"): (
        "unknown",
        {
            "status": "unknown",
            "lease_until": -480.0,
            "ask_at": 5.0,
            "provable_at": -480.0,
            "asked": 2,
        },
        {},
        ["attempt.unknown"],
        [],
    ),
    (UNKNOWN, "refused"): (
        "unknown",
        {
            "status": "unknown",
            "lease_until": -480.0,
            "ask_at": 5.0,
            "provable_at": -480.0,
            "refusal": "no ",
            "asked": 2,
        },
        {},
        ["attempt.unknown"],
        [],
    ),
    (UNKNOWN, "another amount"): (
        "unknown",
        {
            "status": "unknown",
            "lease_until": -480.0,
            "ask_at": 5.0,
            "provable_at": -480.0,
            "asked": 2,
        },
        {"status": "open", "held": "contradiction"},
        ["cycle.held!", "attempt.unknown!"],
        [],
    ),
    (UNKNOWN, "contradiction"): (
        "held",
        {
            "status": "unknown",
            "lease_until": -480.0,
            "ask_at": 3600.0,
            "provable_at": -480.0,
            "asked": 2,
        },
        {"status": "open", "held": "contradiction"},
        ["cycle.held!", "attempt.contradicted!"],
        [],
    ),
    (UNKNOWN, "cancelled"): (
        "held",
        {
            "status": "unknown",
            "lease_until": -480.0,
            "ask_at": 3600.0,
            "provable_at": -480.0,
            "asked": 2,
        },
        {"status": "open", "held": "payment_cancelled"},
        ["cycle.held!", "attempt.contradicted!"],
        [],
    ),
    (UNKNOWN, "facts changed"): (
        "held",
        {
            "status": "unknown",
            "lease_until": -480.0,
            "ask_at": -595.0,
            "provable_at": -480.0,
            "asked": 1,
        },
        {"status": "open", "held": "facts_changed"},
        ["cycle.held!"],
        [],
    ),
    (UNKNOWN, "pending"): (
        "unknown",
        {
            "status": "unknown",
            "lease_until": -480.0,
            "ask_at": 60.0,
            "provable_at": -480.0,
            "asked": 2,
        },
        {},
        [],
        [],
    ),
    (UNKNOWN, "nothing"): (
        "unknown",
        {
            "status": "unknown",
            "lease_until": -480.0,
            "ask_at": 30.0,
            "provable_at": 30.0,
            "nothing_found": 1,
            "asked": 2,
        },
        {},
        [],
        [],
    ),
}


@pytest.mark.parametrize(("state", "name"), EXPECTED, ids=lambda value: str(value))
def test_what_each_answer_does(case: Case, clock: MovedClock, state: str, name: str) -> None:
    if state == UNKNOWN:
        case.was_unknown()
    result = case.answer(cases(clock)[name], asked=state == UNKNOWN)
    expected, attempt, cycle, lines, notices = EXPECTED[state, name]
    assert result == expected
    assert case.attempt_row() == attempt
    assert case.cycle_row() == (cycle or {"status": "open"})
    assert [f"{kind}!" if alarm else kind for kind, alarm in case.events()] == lines
    assert case.notices() == notices


@pytest.mark.parametrize(("state", "name"), EXPECTED, ids=lambda value: str(value))
def test_what_never_left_has_no_moment_at_which_it_was_sent(
    case: Case, clock: MovedClock, state: str, name: str
) -> None:
    """`sent_at` is when a request may have left of which nobody has proved that it did nothing."""
    if state == UNKNOWN:
        case.was_unknown()
    claimed_at = query(case.book, "SELECT sent_at FROM attempts")
    case.answer(cases(clock)[name], asked=state == UNKNOWN)
    found = query(case.book, "SELECT status, sent_at FROM attempts WHERE id = :id", id=case.attempt)
    ((status, sent_at),) = found
    assert [(sent_at,)] == ([(None,)] if status in ("due", "withdrawn") else claimed_at)


def test_every_answer_is_tried() -> None:
    assert {name for _, name in EXPECTED} == set(cases(MovedClock()))


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("declined", "attempt.declined",
         {"merchant_uid": OURS, "class": "again_soon", "code": "0098", "message": "[0098] 시스템"}),
        ("approved", "attempt.approved", {"merchant_uid": OURS}),
        ("approved", "cycle.paid", {"imp_uid": "imp_1", "merchant_uid": OURS}),
        ("paid elsewhere, and once more", "payment.double",
         {"imp_uid": "imp_1", "also": "imp_2", "won": 1001}),
        ("paid elsewhere", "payment.found_elsewhere",
         {"imp_uid": "imp_1", "reason": "paid_elsewhere"}),
        ("not sent", "attempt.not_sent", {"why": "no way ", "again_in_seconds": 5}),
        ("pending", "attempt.not_sent",
         {"why": "an earlier request is ready at the gateway", "again_in_seconds": 60}),
        ("no answer", "attempt.unknown", {"why": "no answer"}),
        ("facts changed", "cycle.held", {"reason": "facts_changed"}),
    ],
)  # fmt: skip
def test_what_a_line_tells(case: Case, name: str, kind: str, told: dict[str, Any]) -> None:
    case.answer(cases(case.clock)[name])
    found = query(
        case.book,
        "SELECT e.data, e.subscription_id, e.cycle_id, e.attempt_id, c.id, c.subscription_id"
        " FROM events e, cycles c WHERE e.kind = :kind AND e.id > :seen",
        kind=kind,
        seen=case.seen,
    )
    ((data, subscription, cycle, attempt, its_cycle, its_subscription),) = found
    assert data == told
    assert (subscription, cycle, attempt) == (its_subscription, its_cycle, case.attempt)


@pytest.mark.parametrize(
    ("text", "held"), [("no", None), ("이미 결제가 이루어진 거래건입니다.", "contradiction")]
)
def test_a_refusal_without_a_payment_is_a_decline_once_it_is_late_enough(
    case: Case, text: str, held: str | None
) -> None:
    case.answer(Unknown("code 1", refusal=text))
    assert case.answer(Nothing(), asked=True) == "unknown"
    case.clock.move(seconds=ASKED_AFTER.total_seconds())
    assert case.answer(Nothing(), asked=True) == "declined"
    row = case.attempt_row()
    assert (row["status"], row["message"]) == ("declined", text)
    assert case.cycle_row().get("held") == held


def test_the_first_reason_to_hold_a_month_stays(case: Case) -> None:
    execute(case.book, "UPDATE cycles SET held = 'facts_changed'")
    case.answer(Unknown("odd", contradiction=True))
    assert case.cycle_row()["held"] == "facts_changed"
    assert case.events() == [("attempt.unknown", True)]


def test_a_retry_is_planned_and_told(case: Case) -> None:
    case.answer(cases(case.clock)["declined"])
    planned = query(case.book, "SELECT id, merchant_uid, planned_at FROM attempts WHERE number = 2")
    told = query(case.book, "SELECT attempt_id, data FROM events WHERE kind = 'attempt.planned'"
                 " ORDER BY id DESC LIMIT 1")  # fmt: skip
    ((attempt, merchant_uid, at),) = planned
    assert merchant_uid == OURS[:-1] + "2"
    allowed = {"declines_allowed": 8, "declines_allowed_a_day": 2}
    assert told == [(attempt, {"merchant_uid": merchant_uid, "at": at.isoformat(), **allowed})]


def test_the_last_decline_that_is_allowed_plans_no_retry(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock, attempt_id: int
) -> None:
    case = Case(book, make_policy(max_attempts=1), clock, attempt_id)
    assert case.answer(cases(clock)["declined"]) == "declined"
    assert case.events() == [("attempt.declined", False), ("cycle.no_more_attempts", False)]
    why = query(book, "SELECT data FROM events WHERE kind = 'cycle.no_more_attempts'")
    assert why == [({"why": "attempts_used_up"},)]


def test_a_decline_of_the_last_number_there_is_plans_no_retry(case: Case) -> None:
    """Each pause and resumption takes a number, and a month has 99: the answer counts all the same,
    instead of being asked for until the month ends unproven."""
    execute(case.book, "UPDATE attempts SET number = 99")
    assert case.answer(cases(case.clock)["declined"]) == "declined"
    assert case.events() == [("attempt.declined", False), ("cycle.no_more_attempts", False)]
    assert case.notices() == ["payment.declined"]
    why = query(case.book, "SELECT data FROM events WHERE kind = 'cycle.no_more_attempts'")
    assert why == [({"why": "attempts_used_up"},)]


def test_an_older_claim_changes_nothing(case: Case) -> None:
    execute(case.book, "UPDATE attempts SET fence = 2")
    before = case.attempt_row(), case.cycle_row()
    assert case.answer(Approved("imp_1", Won(1001), case.clock.now)) == "too_late"
    assert (case.attempt_row(), case.cycle_row()) == before
    assert case.events() == [("answer.too_late", True)]
    told = "SELECT data FROM events WHERE kind = 'answer.too_late'"
    assert query(case.book, told) == [({"learnt": "Approved"},)]


@pytest.mark.parametrize(
    "learnt",
    [
        "approved",
        "paid by this, and once more",
        "declined",
        "failed",
        "not sent",
        "given back",
    ],
)
def test_what_was_written_by_a_commit_whose_answer_was_lost_is_no_surprise(
    case: Case, clock: MovedClock, learnt: str
) -> None:
    told = cases(clock)[learnt]
    case.answer(told)
    before = case.attempt_row(), case.cycle_row(), case.events()
    assert case.answer(told) == "too_late"
    assert (case.attempt_row(), case.cycle_row(), case.events()) == before


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (Declined("[0098] 시스템", "imp_1"), Declined("[0098] 시스템", "imp_2")),
        (Declined("[0098] 시스템", "imp_1"), NotSent("no way")),
        (Declined("[0098] 시스템", "imp_1"), Unknown("no answer")),
        (NotSent("no way"), Declined("[0098] 시스템", None)),
        (NotSent("no way"), Unknown("no answer")),
    ],
)
def test_another_answer_to_what_is_settled_changes_nothing_and_is_told(
    case: Case, first: Any, then: Any
) -> None:
    case.answer(first)
    before = case.attempt_row(), case.cycle_row()
    assert case.answer(then) == "too_late"
    assert (case.attempt_row(), case.cycle_row()) == before
    assert case.events()[-1] == ("answer.too_late", True)


def test_the_same_answer_by_an_older_claim_is_told(case: Case) -> None:
    case.answer(NotSent("no way"))
    execute(case.book, "UPDATE attempts SET fence = 2")
    assert case.answer(NotSent("no way")) == "too_late"
    assert case.events()[-1] == ("answer.too_late", True)


def test_a_request_that_cannot_leave_goes_again_ever_more_slowly(case: Case) -> None:
    waits = []
    for _ in range(12):
        assert case.answer(NotSent("no way")) == "not_sent"
        waits.append(case.attempt_row()["ready_at"])
        claimed = "UPDATE attempts SET status = 'sending', lease_until = :now, sent_at = :now"
        execute(case.book, claimed, now=case.clock.now)
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900, 900]


def test_a_decline_is_judged_by_the_text_that_the_book_keeps(case: Case) -> None:
    """What is said of it later, when the customer comes back for one, is what was done about it."""
    case.answer(Declined("결제 실패 " * 100 + "[0014] 해지"))
    ((kept, stored),) = query(case.book, "SELECT message, decline_class FROM attempts WHERE id = 1")
    ((told,),) = query(case.book, "SELECT data ->> 'decline_class' FROM notices")
    now = case.policy.declines.classify(kept).decline_class
    assert stored == told == now == "unrecognized"


def test_what_comes_back_near_the_last_start_goes_once_more_before_it(case: Case) -> None:
    """The wait of a long outage would outlast the month, or end so late that no tick of a minute
    finds it before the last start: it takes half of what is left."""
    ((last,),) = query(case.book, "SELECT last_start_at FROM cycles")
    sent, lease = last - timedelta(minutes=40), last + timedelta(minutes=2)
    claimed = f"UPDATE attempts SET status = 'sending', sent_at = '{sent}', lease_until = '{lease}'"
    execute(case.book, f"{claimed}, not_sent = 9")
    waits = []
    for left in (1800, 930, 600, 15, 8, 4, 0, -1):
        case.clock.move_to(last - timedelta(seconds=left))
        assert case.answer(NotSent("no way")) == "not_sent"
        waits.append(case.attempt_row()["ready_at"])
        execute(case.book, claimed)
    assert waits == [900, 465, 300, 7.5, 5, 5, 900, 900]
    told = query(case.book, "SELECT data FROM events WHERE kind = 'attempt.not_sent' ORDER BY id")
    assert [data["again_in_seconds"] for (data,) in told] == waits


def test_what_follows_a_decline_that_comes_after_the_lease_waits_until_it_shows(
    case: Case, make_policy: Callable[..., BillingPolicy]
) -> None:
    """Its sender stood still. Said to have failed, it may have been a payment: the look before the
    next charge must see it."""
    case.policy = make_policy(retry_cron="* * * * *", retry_soon_minutes=0)
    case.clock.move(minutes=10)
    with case.book.transaction() as tx:
        health.note_skew(tx.session, tx.now, timedelta(0))
    assert case.answer(Declined("[0098] 잠시 후")) == "declined"
    ((ready_at,),) = query(case.book, "SELECT ready_at FROM attempts WHERE status = 'due'")
    assert ready_at >= case.clock.now + case.policy.visibility


@pytest.mark.parametrize(
    ("agrees", "moved", "asked", "ended"),
    [
        (True, 600, None, 600),
        (True, 600, 600, 600),
        # By a clock in doubt a claim and its lease bound what may be believed of its own answer.
        (False, 60, None, 60),
        (False, 600, None, 300),
        (False, -60, None, 0),
        # A look proves by a clock that agreed when it was made; made by none, as the answer.
        (False, 600, 500, 500),
        (False, 600, 0, 0),
        (False, 600, FIRST_MOMENT, 300),
    ],
)
def test_when_it_ended_is_not_reckoned_by_a_clock_that_leaps_just_now(
    case: Case, *, agrees: bool, moved: int, asked: int | datetime | None, ended: int
) -> None:
    """Seconds since the claim; the lease is of five minutes."""
    claimed = case.clock.now
    execute(
        case.book,
        "UPDATE attempts SET lease_until = :at",
        at=claimed + timedelta(minutes=5),
    )
    case.clock.move(seconds=moved)
    if agrees:
        with case.book.transaction() as tx:
            health.note_skew(tx.session, tx.now, timedelta(0))
    look = claimed + timedelta(seconds=asked) if isinstance(asked, int) else asked
    answer = Answer(case.attempt, 1, PaidByThis(payment(case.clock)), look)
    assert case.book.run(lambda tx: record(tx, case.policy, [answer])) == ["approved"]
    settled_at = "SELECT settled_at FROM attempts"
    assert query(case.book, settled_at) == [(claimed + timedelta(seconds=ended),)]


@pytest.mark.parametrize("status", ["paused", "cancelled"])
def test_what_comes_back_for_a_subscriber_who_left_is_withdrawn(case: Case, status: str) -> None:
    execute(case.book, f"UPDATE subscriptions SET status = '{status}'")
    assert case.answer(NotSent("no way")) == "not_sent"
    assert case.attempt_row()["status"] == "withdrawn"


def test_two_looks_prove_and_then_the_same_attempt_goes_again_at_once(case: Case) -> None:
    case.was_unknown()
    assert case.answer(Nothing(), asked=True) == "unknown"
    case.clock.move(seconds=30)
    assert case.answer(Nothing(), asked=True) == "not_sent"
    row = case.attempt_row()
    assert (row["status"], row["ready_at"]) == ("due", 0)
    assert "provable_at" not in row


@pytest.mark.parametrize("found", ["nothing", "failed", "paid elsewhere"])
def test_a_look_that_began_too_early_settles_nothing(
    case: Case, clock: MovedClock, found: str
) -> None:
    """However late its answer is: the request may have arrived behind the question."""
    case.answer(Unknown("no answer"))
    provable_in = case.attempt_row()["provable_at"]
    asked_at = clock.now
    clock.move(seconds=provable_in + 1)
    early = Answer(case.attempt, 1, cases(clock)[found], asked_at)
    assert case.book.run(lambda tx: record(tx, case.policy, [early])) == ["unknown"]
    row = case.attempt_row()
    assert (row["status"], row["ask_at"], row["asked"]) == ("unknown", -1, 2)
    assert "nothing_found" not in row
    assert case.cycle_row() == {"status": "open"}


def test_a_second_payment_is_told_once(case: Case, clock: MovedClock) -> None:
    case.answer(Unknown("no answer"))
    found = PaidElsewhere(payment(clock), also=(payment(clock, "imp_2", "by-hand-2"),))
    clock.move(seconds=5)
    assert case.answer(found, asked=True) == "unknown"
    assert case.notices() == []
    clock.move(minutes=10)
    assert case.answer(found, asked=True) == "paid_elsewhere"
    assert case.notices() == ["payment.unknown", "payment.paid"]
    assert case.events().count(("payment.double", True)) == 1


def another_month_counts(case: Case, imp_uid: str) -> None:
    """A month before, of the same subscriber, paid by what the answer names."""
    earlier = ", ".join(
        f"{column} - interval '1 month'"
        for column in (
            *("month", "due_on", "opens_on", "closes_on"),
            *("band_opens_at", "last_start_at", "closes_at"),
        )
    )
    execute(
        case.book,
        "INSERT INTO cycles (subscription_id, number, amount, month, due_on, opens_on, closes_on,"
        " band_opens_at, last_start_at, closes_at, status, opened_at, settled_at, paid_imp_uid,"
        f" paid_merchant_uid, paid_at) SELECT subscription_id, 77, amount, {earlier}, 'paid',"
        " opened_at, :now, :imp_uid, 'another', :now FROM cycles",
        now=case.clock.now,
        imp_uid=imp_uid,
    )


@pytest.mark.parametrize("name", ["approved", "paid by this, and once more"])
def test_an_id_that_pays_another_month_already_approves_nothing(
    case: Case, clock: MovedClock, name: str
) -> None:
    another_month_counts(case, "imp_1")
    assert case.answer(cases(clock)[name]) == "unknown"
    assert case.attempt_row()["status"] == "unknown"
    held = "SELECT status, held FROM cycles WHERE number = 1"
    assert query(case.book, held) == [("open", "contradiction")]
    assert case.events() == [("cycle.held", True), ("attempt.unknown", True)]
    assert case.notices() == []
    clock.move(minutes=10)
    execute(case.book, "UPDATE cycles SET held = NULL")
    assert case.answer(cases(clock)["paid by this, and once more"], asked=True) == "held"
    assert query(case.book, held) == [("open", "contradiction")]
    assert case.events()[-1] == ("attempt.contradicted", True)


@pytest.mark.parametrize("state", ["sending", "unknown"])
def test_a_payment_of_another_month_is_not_this_ones_too(
    case: Case, clock: MovedClock, state: str
) -> None:
    another_month_counts(case, "imp_1")
    if state == "unknown":
        case.was_unknown()
    assert case.answer(cases(clock)["paid elsewhere"], asked=state == "unknown") == "held"
    held = "SELECT status, held FROM cycles WHERE number = 1"
    assert query(case.book, held) == [("open", "contradiction")]
    assert case.attempt_row()["status"] == ("due" if state == "sending" else "unknown")


def test_two_looks_that_began_together_are_one(case: Case, clock: MovedClock) -> None:
    case.was_unknown()
    asked_at = clock.now
    clock.move(seconds=60)
    look = Answer(case.attempt, 1, Nothing(), asked_at)
    for _ in range(2):
        assert case.book.run(lambda tx: record(tx, case.policy, [look])) == ["unknown"]
    row = case.attempt_row()
    assert (row["nothing_found"], row["provable_at"], row["ask_at"]) == (1, -30, -30)


def given_up_on(case: Case, clock: MovedClock) -> None:
    """Its lease ran out while its worker was still at it."""
    clock.move(seconds=case.policy.lease.total_seconds() + 1)
    case.book.run(lambda tx: _give_up_on_expired(tx, case.policy))
    assert case.attempt_row()["provable_at"] == case.policy.settle.total_seconds() - 1


def test_already_paid_told_after_the_lease_is_no_proof(case: Case, clock: MovedClock) -> None:
    given_up_on(case, clock)
    assert case.answer(cases(clock)["declined as paid already"]) == "unknown"
    # Its own answer says that the request is over, but not whether another worker sent one.
    assert case.attempt_row()["provable_at"] == case.policy.settle.total_seconds() - 1


def test_no_answer_told_after_the_lease_puts_the_proof_off(case: Case, clock: MovedClock) -> None:
    given_up_on(case, clock)
    assert case.answer(Unknown("no answer")) == "unknown"
    assert case.attempt_row()["provable_at"] == case.policy.settle.total_seconds()


def missed(case: Case) -> None:
    """The window closed, and what became of the attempt stayed unproven."""
    case.was_unknown()
    unproven = "status = 'missed', reason = 'unproven', settled_at = :now"
    execute(case.book, f"UPDATE cycles SET {unproven}", now=case.clock.now)
    suspended = "status = 'suspended', status_reason = 'chain_broken'"
    execute(case.book, f"UPDATE subscriptions SET {suspended}")


def test_a_month_that_was_missed_and_is_found_paid(case: Case, clock: MovedClock) -> None:
    missed(case)
    assert case.answer(PaidByThis(payment(clock)), asked=True) == "approved"
    cycle = case.cycle_row()
    assert (cycle["status"], cycle["reason"]) == ("paid", "paid_late")
    assert case.notices() == ["payment.paid", "subscription.resumed"]
    assert case.events() == [
        ("attempt.approved", False),
        ("cycle.paid", False),
        ("subscription.mended", True),
    ]


def test_nothing_follows_a_decline_in_a_month_that_was_missed(
    case: Case, clock: MovedClock
) -> None:
    missed(case)
    execute(case.book, "UPDATE subscriptions SET status = 'active', status_reason = NULL")
    assert case.answer(cases(clock)["failed"], asked=True) == "declined"
    assert (case.events(), case.notices()) == ([("attempt.declined", False)], [])


def test_nothing_is_held_in_a_month_that_was_missed(case: Case, clock: MovedClock) -> None:
    missed(case)
    assert case.answer(cases(clock)["contradiction"], asked=True) == "held"
    assert "held" not in case.cycle_row()
    told = "SELECT data FROM events WHERE kind = 'attempt.contradicted'"
    assert query(case.book, told) == [({"why": "odd"},)]


def test_what_is_proved_not_charged_in_a_month_that_was_missed_is_withdrawn(case: Case) -> None:
    missed(case)
    execute(case.book, "UPDATE subscriptions SET status = 'active', status_reason = NULL")
    case.answer(Nothing(), asked=True)
    case.clock.move(seconds=30)
    assert case.answer(Nothing(), asked=True) == "not_sent"
    assert case.attempt_row()["status"] == "withdrawn"


@pytest.mark.parametrize(
    ("status", "notices"), [("paused", ["payment.declined"]), ("cancelled", [])]
)
def test_no_retry_for_a_subscriber_who_left(case: Case, status: str, notices: list[str]) -> None:
    execute(case.book, f"UPDATE subscriptions SET status = '{status}'")
    assert case.answer(Declined("[0098] 시스템", "imp_1")) == "declined"
    assert case.events() == [("attempt.declined", False)]
    assert case.notices() == notices


# -- a payment that nobody waited for ----------------------------------------------------------


def adopted(case: Case, found: Payment, reason: CycleReason = CycleReason.PAID_ELSEWHERE) -> Result:
    ((cycle_id,),) = query(case.book, "SELECT id FROM cycles")
    return case.book.run(lambda tx: adopt(tx, case.policy, cycle_id, found, reason))


def test_a_payment_from_elsewhere_ends_what_was_due(case: Case) -> None:
    case.answer(GivenBack("another time"))
    assert adopted(case, payment(case.clock)) == "paid_elsewhere"
    assert case.attempt_row()["status"] == "withdrawn"
    cycle = case.cycle_row()
    assert (cycle["status"], cycle["reason"]) == ("paid", "paid_elsewhere")
    assert (cycle["paid_imp_uid"], cycle["paid_merchant_uid"]) == ("imp_1", "by-hand")
    assert case.events()[1:] == [
        ("attempt.withdrawn", False),
        ("cycle.paid", False),
        ("payment.found_elsewhere", True),
    ]
    told = "SELECT data FROM events WHERE kind = 'payment.found_elsewhere'"
    expected = {"imp_uid": "imp_1", "reason": "paid_elsewhere"}
    assert query(case.book, told) == [(expected,)]
    why = "SELECT data->>'why' FROM events WHERE kind = 'attempt.withdrawn'"
    assert query(case.book, why) == [("the month is paid already",)]
    assert adopted(case, payment(case.clock)) == "too_late"


def test_a_foreign_order_number_is_cut_to_what_the_book_holds(case: Case) -> None:
    case.answer(GivenBack("another time"))
    assert adopted(case, payment(case.clock, merchant_uid="m" * 41)) == "paid_elsewhere"
    assert case.cycle_row()["paid_merchant_uid"] == "m" * 40


def test_a_payment_under_our_own_name_approves_what_was_due(case: Case) -> None:
    case.answer(GivenBack("another time"))
    assert adopted(case, payment(case.clock, merchant_uid=OURS)) == "paid_elsewhere"
    row = case.attempt_row()
    assert (row["status"], row["imp_uid"]) == ("approved", "imp_1")


def test_a_charge_under_way_is_settled_first(case: Case) -> None:
    assert adopted(case, payment(case.clock)) == "unknown"
    case.was_unknown()
    assert adopted(case, payment(case.clock)) == "unknown"
    assert case.cycle_row() == {"status": "open"}


@pytest.mark.parametrize(
    ("reason", "month", "name", "mended"),
    [
        ("chain_broken", "missed", "by-hand", True),
        # The gateway said so, in a month that is not over: a payment by hand does not disprove it.
        ("chain_broken", "open", "by-hand", False),
        ("key_invalid", "missed", "by-hand", False),
        # A key that one of our charges was paid with works.
        ("key_invalid", "missed", OURS, True),
        ("key_invalid", "open", OURS, True),
        ("chain_broken", "open", OURS, True),
    ],
)
def test_what_takes_a_suspension_back(
    case: Case, reason: str, month: str, name: str, mended: bool
) -> None:
    case.answer(Declined("[0018] 번호", None))
    if month == "missed":
        missed = "status = 'missed', reason = 'declined', settled_at = :now"
        execute(case.book, f"UPDATE cycles SET {missed}", now=case.clock.now)
    execute(case.book, "UPDATE cycles SET held = NULL")
    suspended = f"status = 'suspended', status_reason = '{reason}'"
    execute(case.book, f"UPDATE subscriptions SET {suspended}")
    found = CycleReason.PAID_LATE if name == OURS else CycleReason.PAID_ELSEWHERE
    assert adopted(case, payment(case.clock, merchant_uid=name), found) == "paid_elsewhere"
    expected = ("active", None) if mended else ("suspended", reason)
    assert query(case.book, "SELECT status, status_reason FROM subscriptions") == [expected]
    assert (("subscription.mended", True) in case.events()) is mended
    assert ("subscription.resumed" in case.notices()) is mended
    assert case.cycle_row()["reason"] == found


def test_a_cancelled_subscription_stays_cancelled_when_it_is_found_paid(case: Case) -> None:
    case.answer(Declined("[0018] 번호", None))
    execute(case.book, "UPDATE cycles SET held = NULL")
    execute(case.book, "UPDATE subscriptions SET status = 'cancelled'")
    execute(case.book, "DELETE FROM notices")
    adopted(case, payment(case.clock, merchant_uid=OURS), CycleReason.PAID_LATE)
    assert query(case.book, "SELECT status FROM subscriptions") == [("cancelled",)]
    # Nobody expects it: somebody has to decide whether it is given back.
    assert ("payment.after_cancel", True) in case.events()
    told = "SELECT data FROM events WHERE kind = 'payment.after_cancel'"
    assert query(case.book, told) == [({"imp_uid": "imp_1"},)]
    assert case.notices() == ["payment.paid", "payment.unknown"]


@pytest.mark.parametrize(
    ("done", "became", "month"),
    # One that was asked for may be refused yet.
    [(True, "too_late", "open"), (False, "paid_elsewhere", "paid")],
)
def test_what_was_given_back_since_it_was_looked_up_pays_nothing(
    case: Case, done: bool, became: str, month: str
) -> None:
    case.answer(GivenBack("another time"))
    a_refund(case.book, "imp_1", case.clock.now if done else None)
    assert adopted(case, payment(case.clock)) == became
    assert case.cycle_row()["status"] == month


@pytest.mark.parametrize(("seconds", "mended"), [(0, False), (1, True)])
def test_a_payment_that_is_found_when_the_next_month_is_over_mends_nothing(
    case: Case, seconds: int, mended: bool
) -> None:
    case.answer(Declined("[0018] 번호", None))
    execute(case.book, "UPDATE cycles SET held = NULL")
    execute(
        case.book,
        "UPDATE subscriptions SET status = 'suspended', status_reason = 'key_invalid',"
        " next_closes_at = :closes",
        closes=case.clock.now + timedelta(seconds=seconds),
    )
    adopted(case, payment(case.clock, merchant_uid=OURS), CycleReason.PAID_LATE)
    expected = "active" if mended else "suspended"
    assert query(case.book, "SELECT status FROM subscriptions") == [(expected,)]


def test_who_was_paused_before_the_suspension_is_paused_again(case: Case) -> None:
    change_status.pause(case.book, case.policy, "customer-1")
    case.answer(Declined("[0018] 번호", None))
    suspended = "status = 'suspended', status_reason = 'key_invalid'"
    for step in ("UPDATE cycles SET held = NULL", f"UPDATE subscriptions SET {suspended}"):
        execute(case.book, step)
    execute(case.book, "DELETE FROM notices")
    adopted(case, payment(case.clock, merchant_uid=OURS), CycleReason.PAID_LATE)
    assert query(case.book, "SELECT status FROM subscriptions") == [("paused",)]
    mended = [("subscription.mended", True), ("subscription.paused", False)]
    assert case.events()[-3:-1] == mended
    assert case.notices() == ["payment.paid", "subscription.paused"]


def test_a_payment_after_a_refund_makes_the_chain_whole(case: Case) -> None:
    execute(case.book, "UPDATE subscriptions SET status_reason = 'chain_at_risk'")
    case.answer(Approved("imp_1", Won(1001), case.clock.now))
    assert query(case.book, "SELECT status, status_reason FROM subscriptions") == [("active", None)]
    assert case.events()[-1] == ("subscription.chain_whole", False)


def test_a_month_that_was_skipped_does_not_become_paid_unseen(case: Case) -> None:
    skipped = "status = 'skipped', reason = 'paused', settled_at = :now"
    execute(case.book, f"UPDATE cycles SET {skipped}", now=case.clock.now)
    with pytest.raises(TransitionRefused):
        case.answer(Approved("imp_1", Won(1001), case.clock.now))


@pytest.mark.parametrize(
    "wrong", [{"amount": Won(1002)}, {"paid_at": datetime(2026, 12, 1, tzinfo=UTC)}]
)
def test_another_amount_or_month_is_never_adopted(case: Case, wrong: dict[str, Any]) -> None:
    case.answer(GivenBack("another time"))
    with pytest.raises(AssertionError, match="right amount and month"):
        adopted(case, replace(payment(case.clock), **wrong))


def test_a_month_without_an_attempt_has_nothing_to_adopt_for(case: Case) -> None:
    nobody, found = 4711, payment(case.clock)
    reason = CycleReason.PAID_ELSEWHERE
    assert case.book.run(lambda tx: adopt(tx, case.policy, nobody, found, reason)) == "too_late"


# -- what all workers learn from it ------------------------------------------------------------


def health_of(case: Case) -> tuple[int, str]:
    ((failures, verdicts),) = query(case.book, "SELECT failures, verdicts FROM gateway_health")
    return failures, verdicts


@pytest.mark.parametrize(
    ("name", "failures", "verdicts"),
    [
        ("approved", 0, "a"),
        ("paid by this, and once more", 0, "a"),
        ("declined", 0, "d"),
        ("declined in a new way", 0, "u"),
        ("declined for good", 0, "s"),
        ("declined by our fault", 0, "o"),
        ("declined as paid already", 0, ""),
        ("not sent", 1, ""),
        ("not sent by our fault", 0, ""),
        ("given back", 0, ""),
        ("no answer", 1, ""),
        ("refused", 0, ""),
        ("paid elsewhere", 0, ""),
    ],
)
def test_what_an_answer_says_about_the_gateway_and_us(
    case: Case, name: str, failures: int, verdicts: str
) -> None:
    case.answer(cases(case.clock)[name])
    assert health_of(case) == (failures, verdicts)


@pytest.mark.parametrize("name", ["approved", "declined", "refused"])
def test_an_answer_that_can_be_used_ends_a_run_of_useless_ones(case: Case, name: str) -> None:
    execute(case.book, "UPDATE gateway_health SET failures = 3")
    case.answer(cases(case.clock)[name])
    assert health_of(case)[0] == 0


@pytest.mark.parametrize("name", ["no answer", "not sent"])
def test_a_worker_that_stood_still_says_nothing_of_now(case: Case, name: str) -> None:
    execute(case.book, "UPDATE attempts SET fence = 2")
    assert case.answer(cases(case.clock)[name]) == "too_late"
    assert health_of(case) == (0, "")


@pytest.mark.parametrize("name", ["no answer", "not sent"])
def test_what_was_claimed_before_the_last_good_answer_says_nothing_of_now(
    case: Case, name: str
) -> None:
    execute(
        case.book,
        "UPDATE gateway_health SET failures = 4, last_answer_at = :at",
        at=case.clock.now + timedelta(seconds=1),
    )
    case.clock.move(seconds=60)
    case.answer(cases(case.clock)[name])
    assert health_of(case) == (4, "")


def test_the_decline_that_is_one_too_many_stops_all_charging(case: Case) -> None:
    execute(case.book, "UPDATE gateway_health SET verdicts = :v", v=str(Verdict.OPERATOR) * 2)
    case.answer(cases(case.clock)["declined by our fault"])
    ((held,),) = query(case.book, "SELECT hold_reason FROM installation")
    assert held == "3 answers without an approval point at our own configuration"
    assert ("charging.held", True) in case.events()


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (NotSent("401", credentials=True), "it refuses our credentials"),
        (NotSent("no way"), "no usable answer"),
        (Unknown("no answer"), "no usable answer"),
    ],
)
def test_the_fifth_useless_answer_says_why_the_gateway_is_down(
    case: Case, last: NotSent | Unknown, why: str
) -> None:
    execute(case.book, "UPDATE gateway_health SET failures = 4")
    case.answer(last)
    found = query(case.book, "SELECT data, alarm FROM events WHERE kind = 'gateway.down'")
    assert found == [({"why": why}, True)]


@pytest.mark.parametrize(("asked_for", "seconds"), [(None, 0), (90.0, 90)])
def test_too_many_requests_are_no_failure_and_slow_everybody_down(
    case: Case, asked_for: float | None, seconds: float
) -> None:
    case.answer(Unknown("429", slow_down=True, retry_after_seconds=asked_for))
    assert health_of(case) == (0, "")
    found = query(case.book, "SELECT data, alarm FROM events WHERE kind = 'gateway.slow_down'")
    assert found == [({"answers": 1, "seconds": seconds}, False)]
    ((pause,),) = query(case.book, "SELECT pause_until FROM gateway_health")
    assert (pause - case.clock.now).total_seconds() == max(seconds, 1)


def test_of_several_waits_that_are_asked_for_the_longest_is_kept(case: Case) -> None:
    """Answers that are written down together: each of them was told something else."""
    told = [Unknown("429", slow_down=True, retry_after_seconds=one) for one in (30.0, 90.0, None)]
    answers = [Answer(case.attempt, 1, one) for one in told]
    case.book.run(lambda tx: record(tx, case.policy, answers))
    ((data,),) = query(case.book, "SELECT data FROM events WHERE kind = 'gateway.slow_down'")
    assert data == {"answers": 3, "seconds": 90}


def test_a_charge_in_the_other_mode_counts_against_ourselves(case: Case) -> None:
    """Charged for real where we take test payments, or the other way round: everybody would be."""
    execute(case.book, "UPDATE gateway_health SET verdicts = :v", v=str(Verdict.OPERATOR) * 2)
    case.answer(Unknown("odd", contradiction=True, other_mode=True))
    ((held,),) = query(case.book, "SELECT hold_reason FROM installation")
    assert held == "3 answers without an approval point at our own configuration"


def test_an_answer_that_only_contradicts_says_nothing_of_ourselves(case: Case) -> None:
    case.answer(Unknown("odd", contradiction=True))
    assert health_of(case)[1] == ""


def test_what_nobody_can_read_is_counted_once_for_a_month(case: Case) -> None:
    """Its retries are the same customer again."""
    execute(case.book, "UPDATE attempts SET number = 2")
    case.answer(cases(case.clock)["declined in a new way"])
    assert health_of(case)[1] == "d"


@pytest.mark.parametrize("name", ["no answer", "not sent"])
def test_what_hung_since_before_the_last_usable_answer_says_nothing(case: Case, name: str) -> None:
    """A few in a hundred time out, and are heard of last of all."""
    case.clock.move(seconds=60)
    execute(
        case.book,
        "UPDATE gateway_health SET last_answer_at = :at",
        at=case.clock.now - timedelta(seconds=30),
    )
    case.answer(cases(case.clock)[name])
    assert health_of(case)[0] == 0


def test_outside_text_is_short_and_harmless() -> None:
    assert clean("a\x00b\x1fc\x7fd\u202ee\ud800f") == "a b c d e f"
    assert clean("가" * 501) == "가" * 500
