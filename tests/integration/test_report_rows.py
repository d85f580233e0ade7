"""What a month for people who keep books counts, to the row and to the moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest

from billing.domain.attempt import AttemptStatus
from billing.domain.calendar import SEOUL
from billing.domain.cycle import CycleStatus
from billing.domain.money import Sum
from billing.domain.month_figures import Alike
from billing.domain.policy import BillingPolicy
from billing.store import report
from billing.store.report import Gained, GivenBack, Ids, Lost, Place, Refusal
from billing.store.session import Book
from tests.builders import execute, query, rows_read
from tests.plant import numbered_apart, one_more, paid, plant, settled

NOVEMBER = date(2026, 11, 1)
BEGINS, ENDS = datetime(2026, 11, 1, tzinfo=SEOUL), datetime(2026, 12, 1, tzinfo=SEOUL)
MOMENT = timedelta(microseconds=1)
# The first and the last moment that count, and the two beside them that do not.
INSIDE, OUTSIDE = (BEGINS, ENDS - MOMENT), (BEGINS - MOMENT, ENDS)


@pytest.fixture
def kept(book: Book, make_policy: Callable[..., BillingPolicy]) -> Book:
    """Subscribers 1 to 3 with November's cycles 11 to 13 and due attempts 21 to 23; 4 is due later.
    They pay 1,001 to 1,004 won. Nothing guards the book any more."""
    numbered_apart(book, make_policy(), "2026-10-18", "2026-10-19", "2026-10-20", "2026-10-28")
    return book


def planted(book: Book, *statements: str) -> None:
    with book.transaction() as tx:
        plant(tx, tx.now, statements)


def test_a_months_cycles_lie_side_by_side(kept: Book) -> None:
    with kept.transaction() as tx:
        assert report.ids(tx.session, NOVEMBER) == Ids(11, 13)
        assert report.ids(tx.session, date(2026, 12, 1)) == Ids(1, 0)


def outcomes(book: Book) -> set[Alike]:
    with book.transaction() as tx:
        found = report.outcomes(tx.session, NOVEMBER, report.ids(tx.session, NOVEMBER))
    assert len(set(found)) == len(found)
    return set(found)


def test_cycles_that_stand_alike_are_counted_together(kept: Book) -> None:
    def standing(*of: int, held: bool = False, status: str = "open", **more: str | None) -> Alike:
        total = Sum(len(of), sum(1000 + number for number in of))
        last, reason = more.get("last"), more.get("reason")
        return Alike(CycleStatus(status), reason, held, last, total)

    assert outcomes(kept) == {standing(1, 2, 3)}
    planted(kept, "UPDATE cycles SET held = 'facts_mismatch' WHERE id = 11")
    assert outcomes(kept) == {standing(1, held=True), standing(2, 3)}
    planted(
        kept,
        "UPDATE cycles SET held = NULL",
        # Declined twice, then approved: the second refusal is the one that it was paid after.
        settled(21, "declined"),
        one_more(31, 11, "declined"),
        "UPDATE attempts SET decline_class = 'again_soon' WHERE id = 31",
        one_more(32, 11, "approved"),
        paid(11, 21),
        settled(22, "declined"),
        "UPDATE cycles SET status = 'missed', reason = 'declined' WHERE id = 12",
    )
    assert outcomes(kept) == {
        standing(1, status="paid", last="again_soon"),
        standing(2, status="missed", reason="declined", last="not_today"),
        standing(3),
    }
    planted(kept, "UPDATE cycles SET month = '2026-10-01' WHERE id = 12")
    assert outcomes(kept) == {standing(1, status="paid", last="again_soon"), standing(3)}


def test_lost_answers_are_counted_by_what_became_of_them(kept: Book) -> None:
    def unknowns() -> dict[AttemptStatus, int]:
        with kept.transaction() as tx:
            within = report.ids(tx.session, NOVEMBER)
            return dict(report.unknowns(tx.session, NOVEMBER, within).by_status)

    assert unknowns() == {}
    planted(
        kept,
        *(settled(attempt, "approved") for attempt in (21, 22, 23)),
        # One was asked about and one was to be; the third was answered at once.
        "UPDATE attempts SET asked = 1 WHERE id = 21",
        "UPDATE attempts SET provable_at = :now WHERE id = 22",
        one_more(31, 13, "declined"),
        "UPDATE attempts SET asked = 2 WHERE id = 31",
    )
    assert unknowns() == {AttemptStatus.APPROVED: 2, AttemptStatus.DECLINED: 1}
    planted(kept, "UPDATE cycles SET month = '2026-10-01' WHERE id = 12")
    assert unknowns() == {AttemptStatus.APPROVED: 1, AttemptStatus.DECLINED: 1}


def test_the_carriers_texts_come_the_most_frequent_first(kept: Book) -> None:
    def refusals(most: int = 9) -> list[Refusal]:
        with kept.transaction() as tx:
            return report.refusals(tx.session, BEGINS, ENDS, most)

    def declined(attempt: int, decline_class: str, message: str, at: datetime = BEGINS) -> str:
        return (
            f"UPDATE attempts SET decline_class = '{decline_class}', message = {message},"
            f" settled_at = '{at.isoformat()}' WHERE id = {attempt}"
        )

    planted(
        kept,
        *(one_more(attempt, 11, "declined") for attempt in range(31, 38)),
        one_more(41, 12, "approved"),
        declined(31, "y", "'often'", INSIDE[0]),
        declined(32, "y", "'often'", INSIDE[1]),
        declined(33, "y", "'a'"),
        declined(34, "x", "'c'"),
        declined(35, "x", "NULL"),
        declined(36, "y", "'often'", OUTSIDE[0]),
        declined(37, "y", "'often'", OUTSIDE[1]),
        declined(41, "y", "'often'"),
    )
    expected = [
        Refusal("y", "often", 2),
        Refusal("x", "", 1),
        Refusal("x", "c", 1),
        Refusal("y", "a", 1),
    ]
    assert refusals() == expected
    assert refusals(most=2) == expected[:2]
    planted(kept, *(one_more(attempt, 12, "declined") for attempt in range(50, 90)))
    planted(kept, *(declined(attempt, "z", f"'{attempt * 37 % 41}'") for attempt in range(50, 90)))
    texts = [one.message for one in refusals(most=99) if one.decline_class == "z"]
    assert texts == sorted(str(attempt * 37 % 41) for attempt in range(50, 90))


def test_what_was_given_back_is_counted_on_the_gateways_day(kept: Book) -> None:
    def given_back() -> list[GivenBack]:
        with kept.transaction() as tx:
            found = report.given_back(tx.session, BEGINS, ENDS, SEOUL)
        return sorted(found, key=lambda one: one.on)

    def refund(cycle: int | None, amount: int, at: datetime, status: str = "done") -> str:
        of = "NULL" if cycle is None else str(cycle)
        return (
            "INSERT INTO refunds (subscription_id, cycle_id, imp_uid, merchant_uid, amount,"
            " breaks_chain, refund_by, reason, status, requested_at, cancelled_at) VALUES (1,"
            f" {of}, 'imp', 'mw', {amount}, false, :now, 'x', '{status}', :now,"
            f" '{at.isoformat()}')"
        )

    assert given_back() == []
    # 23:59:59.999999 in Seoul, and the next moment.
    evening = datetime(2026, 11, 20, 15, tzinfo=UTC) - MOMENT
    planted(
        kept,
        refund(11, 1, INSIDE[0]),
        refund(None, 2, INSIDE[1]),
        refund(11, 4, evening),
        refund(12, 8, evening),
        refund(None, 16, evening),
        refund(None, 32, evening + MOMENT),
        refund(11, 64, evening, "refused"),
        *(refund(11, 128, at) for at in OUTSIDE),
    )
    assert given_back() == [
        GivenBack(date(2026, 11, 1), Sum(1, 1), Sum(0, 0)),
        GivenBack(date(2026, 11, 20), Sum(2, 12), Sum(1, 16)),
        GivenBack(date(2026, 11, 21), Sum(0, 0), Sum(1, 32)),
        GivenBack(date(2026, 11, 30), Sum(0, 0), Sum(1, 2)),
    ]


def test_who_was_enrolled_anew_or_taken_over(kept: Book) -> None:
    def gained() -> Gained:
        with kept.transaction() as tx:
            return report.gained(tx.session, BEGINS, ENDS)

    moments = zip((1, 2, 3, 4), (*INSIDE, *OUTSIDE), strict=True)
    for number, at in moments:
        execute(kept, "UPDATE subscriptions SET enrolled_at = :at WHERE id = :id", at=at, id=number)
    assert gained() == Gained(Sum(2, 2003), Sum(), taken_over=Sum(2, 2003)), "all paid in October"
    planted(kept, "UPDATE subscriptions SET previous_id = 1 WHERE id IN (2, 3)")
    first_paid = "UPDATE subscriptions SET initial_paid_at = '{}' WHERE id = {}"
    day = timedelta(days=1)
    planted(kept, first_paid.format(BEGINS, 2), first_paid.format(BEGINS - day - MOMENT, 1))
    assert gained() == Gained(Sum(2, 2003), anew=Sum(1, 1002), taken_over=Sum(1, 1001))
    planted(kept, first_paid.format(BEGINS - day, 1))
    assert gained() == Gained(Sum(2, 2003), anew=Sum(1, 1002), taken_over=Sum()), (
        "paid at the checkout in the last minutes of October, and enrolled after midnight"
    )
    planted(kept, "UPDATE subscriptions SET enrolled_at = '2026-12-24'")
    assert gained() == Gained(Sum(), Sum(), Sum())


def test_who_ended_is_counted_once_by_how_it_first_ended(kept: Book) -> None:
    def lost() -> list[Lost]:
        with kept.transaction() as tx:
            return report.lost(tx.session, BEGINS, ENDS)

    def told(who: int, kind: str, at: datetime = BEGINS, reason: str = "key_invalid") -> str:
        data = f'{{"reason": "{reason}"}}' if kind == "suspended" else "{}"
        return (
            f"INSERT INTO events (subscription_id, kind, at, data) VALUES ({who},"
            f" 'subscription.{kind}', '{at.isoformat()}', '{data}')"
        )

    def becomes(who: int, status: str) -> str:
        return f"UPDATE subscriptions SET status = '{status}' WHERE id = {who}"

    suspended, cancelled = "subscription.suspended", "subscription.cancelled"
    assert lost() == []
    planted(
        kept,
        # First suspended, cancelled later: it had ended before.
        *(becomes(1, "cancelled"), told(1, "suspended"), told(1, "cancelled")),
        *(becomes(2, "cancelled"), told(2, "paused"), told(2, "cancelled", INSIDE[1])),
        # Mended twice, and ended anew: that one counts.
        *(becomes(3, "suspended"), told(3, "suspended", OUTSIDE[0]), told(3, "mended")),
        *(told(3, "suspended"), told(3, "mended")),
        told(3, "suspended", reason="chain_broken"),
        # Mended, and still there.
        *(told(4, "suspended"), told(4, "mended")),
    )
    assert lost() == [
        Lost(suspended, "chain_broken", Sum(1, 1003)),
        Lost(cancelled, None, Sum(1, 1002)),
        Lost(suspended, "key_invalid", Sum(1, 1001)),
    ]
    planted(kept, *(becomes(4, "suspended"), told(4, "suspended", reason="chain_broken")))
    assert lost()[0] == Lost(suspended, "chain_broken", Sum(2, 2007))
    planted(kept, "UPDATE subscriptions SET amount = 1000 + 4 * (id % 2)")
    of_one_sum = lost()[1:]
    assert [(one.kind, one.sum.won) for one in of_one_sum] == [(suspended, 1004), (cancelled, 1000)]
    planted(
        kept,
        "UPDATE subscriptions SET amount = 1000",
        "UPDATE events SET data = '{}' WHERE subscription_id = 3",
        becomes(4, "active"),
    )
    # Of the same won by kind, then by reason.
    assert [(one.kind, one.reason) for one in lost()] == [
        (cancelled, None),
        (suspended, None),
        (suspended, "key_invalid"),
    ]
    for at in OUTSIDE:
        execute(kept, "UPDATE events SET at = :at", at=at)
        assert lost() == []


def test_of_who_ended_long_ago_the_last_line_alone_is_read(kept: Book) -> None:
    """Years of a book have more ended subscriptions than living ones."""
    line = "INSERT INTO events (at, kind, subscription_id, data, alarm)"
    planted(
        kept,
        "UPDATE subscriptions SET status = 'cancelled' WHERE id <= 3",
        f"{line} SELECT '2026-08-01', 'attempt.sending', 1 + n % 3, '{{}}', false"
        " FROM generate_series(1, 3000) n",
        f"{line} SELECT '2026-09-01', 'subscription.cancelled', id, '{{}}', false"
        " FROM subscriptions WHERE id <= 2",
        f"{line} VALUES ('2026-11-02', 'subscription.cancelled', 3, '{{}}', false)",
        "ANALYZE events",
    )
    with kept.transaction() as tx:
        before = rows_read(tx)
        assert [one.sum for one in report.lost(tx.session, BEGINS, ENDS)] == [Sum(1, 1003)]
        read = (rows_read(tx) - before)["events"]
    # Of the one that ended in the month all is read, from both ends.
    assert read < 2200


def test_differences_that_wait_for_a_person_are_counted_by_kind(kept: Book) -> None:
    def differs(key: str, kind: str, at: datetime, resolved: str = "NULL") -> str:
        return (
            "INSERT INTO ledger_differences (key, kind, at, first_seen_at, last_seen_at,"
            f" resolved_at) VALUES ('{key}', '{kind}', '{at.isoformat()}', :now, :now, {resolved})"
        )

    planted(
        kept,
        differs("1", "stranger", INSIDE[0]),
        differs("2", "double", INSIDE[1]),
        differs("3", "double", INSIDE[1]),
        differs("4", "double", INSIDE[0], ":now"),
        *(differs(f"at {at}", "double", at) for at in OUTSIDE),
    )
    with kept.transaction() as tx:
        found = report.open_differences(tx.session, BEGINS, ENDS)
    assert list(found.items()) == [("double", 2), ("stranger", 1)]


def test_charges_come_as_they_were_made_a_page_at_a_time(kept: Book) -> None:
    def page(after: Place, size: int = 9, ends: datetime = ENDS) -> list[int]:
        with kept.transaction() as tx:
            return [row.id for row in report.charges(tx.session, after, ends, size)]

    first = Place(BEGINS, 0)
    assert page(first) == []
    moments = {11: INSIDE[1], 12: INSIDE[0], 13: INSIDE[0]}
    for cycle, at in moments.items():
        planted(kept, settled(cycle + 10, "approved"), paid(cycle, cycle + 10))
        execute(kept, "UPDATE cycles SET paid_at = :at WHERE id = :id", at=at, id=cycle)
    assert page(first) == [12, 13, 11]
    assert page(first, size=2) == [12, 13]
    assert page(Place(BEGINS, 12)) == [13, 11]
    assert page(Place(BEGINS, 13)) == [11]
    assert page(first, ends=INSIDE[1]) == [12, 13], "what ends a span is not in it"
    assert page(Place(BEGINS + MOMENT, 0)) == [11]


def test_a_charge_tells_how_often_it_was_tried(kept: Book) -> None:
    planted(
        kept,
        settled(21, "declined"),
        one_more(31, 11, "approved"),
        one_more(32, 11, "withdrawn"),
        settled(22, "declined"),
        paid(11, 21),
    )
    with kept.transaction() as tx:
        (row,) = report.charges(tx.session, Place(BEGINS, 0), ENDS, 9)
    assert (row.customer_uid, row.amount, row.status, row.attempts) == (
        "customer-1",
        1001,
        "paid",
        2,
    )
    assert query(kept, "SELECT paid_at FROM cycles WHERE id = 11") == [(row.paid_at,)]
