"""`import_subscriptions`: whole or not at all, and a report that names line, field and value."""

from __future__ import annotations

import io
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from datetime import UTC, datetime
from typing import BinaryIO, cast

import pytest
from sqlalchemy import create_engine, text

from billing.domain.enrolment import Misfit
from billing.domain.money import Won
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import NewSubscription
from billing.services.import_subscriptions import ImportReport, import_subscriptions
from billing.store.session import Book
from tests.builders import HEADER, KEY, a_file, a_row, enrolled, execute, query
from tests.conftest import MovedClock

GOOD = a_row(1)
FOUND = Payment("imp_1", "first-1", "paid", Won(1001), "customer-1")


def imported(book: Book, policy: BillingPolicy, raw: bytes) -> ImportReport:
    return import_subscriptions(book, policy, lambda: KEY, io.BytesIO(raw))


def count(book: Book) -> int:
    return int(query(book, "SELECT count(*) FROM subscriptions")[0][0])


def test_good_lines_are_enrolled_with_facts_buyer_and_event(
    book: Book, policy: BillingPolicy
) -> None:
    report = enrolled(book, policy, a_row(1), a_row(2))
    assert (report.read, report.added, report.unchanged, report.rejected) == (2, 2, 0, [])
    rows = query(
        book,
        "SELECT customer_uid, amount, order_name, anchor_on::text, next_cycle, next_due_at,"
        " b.tel FROM subscriptions s JOIN buyers b ON b.subscription_id = s.id ORDER BY 1",
    )
    first = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
    assert rows == [
        ("customer-1", 1001, "plan 1", "2026-10-20", 1, first, "010-1234-0001"),
        ("customer-2", 1002, "plan 2", "2026-10-20", 1, first, "010-1234-0002"),
    ]
    assert query(book, "SELECT count(*) FROM events WHERE kind = 'subscription.enrolled'") == [(2,)]


def test_the_same_again_is_unchanged(book: Book, policy: BillingPolicy) -> None:
    enrolled(book, policy, a_row(1))
    report = enrolled(book, policy, a_row(1), a_row(2), a_row(2))
    assert (report.read, report.added, report.unchanged, report.bad) == (3, 1, 2, 0)


def test_a_dry_run_writes_nothing(book: Book, policy: BillingPolicy) -> None:
    report = enrolled(book, policy, a_row(1), dry_run=True)
    assert report.added == 1
    assert count(book) == 0


def test_a_dry_run_reports_what_a_real_run_would_do(book: Book, policy: BillingPolicy) -> None:
    rows = (a_row(1), "broken", a_row(2))
    for skip_bad in (False, True):
        told = enrolled(book, policy, *rows, dry_run=True, skip_bad=skip_bad)
        done = enrolled(book, policy, *rows, skip_bad=skip_bad)
        assert told == done
        assert (told.added, count(book)) == ((2, 2) if skip_bad else (0, 0))


BAD = [
    ("amount", GOOD.replace("1001", "９９００"), "plain digits"),
    ("amount", GOOD.replace("1001", "9_900"), "plain digits"),
    ("amount", GOOD.replace("1001", "99.0"), "plain digits"),
    ("amount", GOOD.replace("1001", "-9900"), "plain digits"),
    ("amount", GOOD.replace("1001", "300"), "below 301"),
    ("amount", GOOD.replace("1001", ""), "empty"),
    ("customer_uid", GOOD.replace("customer-1", ""), "empty"),
    ("customer_uid", GOOD.replace("customer-1", "c" * 81), "81 characters"),
    ("customer_uid", GOOD.replace("customer-1", ".."), "is no name"),
    ("customer_uid", GOOD.replace("customer-1", "=1+1"), "formula"),
    ("customer_uid", GOOD.replace("customer-1", " customer-1"), "space"),
    ("order_name", GOOD.replace("plan 1", "p" * 41), "41 characters"),
    ("order_name", GOOD.replace("plan 1", "plan\x07"), "control"),
    ("initial_paid_at", GOOD.replace("2026-10-20T14:30:00+09:00", "2026-W43-2"), "not a moment"),
    ("initial_paid_at", GOOD.replace("+09:00", ""), "no offset"),
    ("initial_paid_at", GOOD.replace("2026-10-20", "2026-12-20"), "future"),
    ("initial_paid_at", GOOD.replace("2026-10-20", "2026-02-30"), "exists"),
    ("buyer_tel", GOOD.replace("010-1234-0001", "call me"), "telephone"),
    ("line", GOOD + ",one too many", "7 cells"),
]


@pytest.mark.parametrize(("field", "row", "problem"), BAD, ids=[f"{f}: {p}" for f, _, p in BAD])
def test_one_bad_line_and_nothing_is_written(
    book: Book, policy: BillingPolicy, field: str, row: str, problem: str
) -> None:
    report = enrolled(book, policy, a_row(7), row)
    (rejection,) = report.rejected
    assert (rejection.line, rejection.field) == (3, field)
    assert problem in rejection.problem
    assert (report.read, report.added) == (2, 0)
    assert count(book) == 0
    assert "call me" not in repr(report), "buyer data stays out of the report"


def test_skip_bad_takes_the_good_lines(book: Book, policy: BillingPolicy) -> None:
    report = enrolled(book, policy, a_row(1), "broken", a_row(2), skip_bad=True)
    assert (report.added, [one.line for one in report.rejected]) == (2, [3])
    assert count(book) == 2


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (GOOD.replace("1001", "1002"), "amount"),
        (GOOD.replace("2026-10-20", "2026-10-21"), "initial_paid_at"),
        (GOOD.replace("plan 1", "plan one"), "customer_uid"),
    ],
)
def test_other_facts_for_a_known_customer_are_rejected(
    book: Book, policy: BillingPolicy, changed: str, field: str
) -> None:
    enrolled(book, policy, GOOD)
    report = enrolled(book, policy, a_row(2), changed)
    assert [(one.line, one.field) for one in report.rejected] == [(3, field)]
    assert count(book) == 1
    in_one_file = enrolled(book, policy, a_row(5), a_row(5).replace("1005", "1006"))
    assert [one.line for one in in_one_file.rejected] == [3]


@pytest.mark.parametrize(
    ("header", "value", "problem"),
    [
        (HEADER + ",colour", "colour", "no column"),
        (HEADER.replace("amount", "buyer_name"), "buyer_name", "more than once"),
        (HEADER.replace("amount,", ""), "amount", "missing"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    book: Book, policy: BillingPolicy, header: str, value: str, problem: str
) -> None:
    report = import_subscriptions(book, policy, lambda: KEY, a_file(GOOD, header=header))
    assert any(one.value == value and problem in one.problem for one in report.rejected)
    assert {one.line for one in report.rejected} == {1}
    assert count(book) == 0


def test_an_empty_file_is_refused(book: Book, policy: BillingPolicy) -> None:
    assert imported(book, policy, b"").rejected[0].problem == "the file is empty"


def test_a_byte_order_mark_and_windows_line_ends_are_fine(
    book: Book, policy: BillingPolicy
) -> None:
    raw = b"\xef\xbb\xbf" + f"{HEADER}\r\n{GOOD}\r\n".encode()
    assert imported(book, policy, raw).added == 1


def test_another_encoding_is_named_by_line(book: Book, policy: BillingPolicy) -> None:
    raw = f"{HEADER}\n{a_row(1)}\n".encode() + a_row(2).encode("cp949") + b"\n"
    report = imported(book, policy, raw)
    (rejected,) = report.rejected
    assert rejected.line == 3
    assert "is not UTF-8: it looks like CP949" in rejected.problem
    assert count(book) == 0


def test_lines_count_the_files_lines(book: Book, policy: BillingPolicy) -> None:
    spread = '"customer-\n9",1009,plan,2026-10-20T14:30:00+09:00,,'
    report = enrolled(book, policy, a_row(1), spread, "broken")
    assert [(one.line, one.field) for one in report.rejected] == [(3, "customer_uid"), (5, "line")]


@pytest.mark.parametrize("known", [0, 1], ids=["an empty book", "a book with a key"])
def test_two_imports_of_one_file_at_once_enrol_each_once(
    book: Book, policy: BillingPolicy, known: int
) -> None:
    """In an empty book the key serializes them, afterwards the unique `customer_uid`."""
    if known:
        enrolled(book, policy, a_row(1000))
    rows = [a_row(number) for number in range(200)]
    added: list[int] = []
    threads = [
        threading.Thread(target=lambda: added.append(enrolled(book, policy, *rows).added))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(added), sum(added)) == (4, 200)
    assert count(book) == 200 + known


def test_a_nul_never_becomes_another_name(book: Book, policy: BillingPolicy) -> None:
    report = enrolled(book, policy, GOOD.replace("plan 1", "plan\x001"))
    assert [(one.field, one.problem) for one in report.rejected] == [
        ("order_name", "holds a control character")
    ]
    assert count(book) == 0


def test_a_huge_cell_costs_one_line(book: Book, policy: BillingPolicy) -> None:
    huge = GOOD.replace("plan 1", "가" * 70_000)
    report = enrolled(book, policy, huge, a_row(2), "broken", skip_bad=True)
    assert (report.read, report.added, report.header_refused) == (3, 1, False)
    assert [one.line for one in report.rejected] == [2, 4]


@pytest.mark.parametrize(
    "raw", [b"", b"customer_uid\n", HEADER.encode("utf-16"), f"{HEADER},x,x\n{GOOD}".encode()]
)
def test_a_refused_header_counts_no_lines(book: Book, policy: BillingPolicy, raw: bytes) -> None:
    """And with `--skip-bad`, too, the command says that it failed."""
    report = imported(book, policy, raw)
    assert report.header_refused
    assert (report.read, report.added, report.unchanged) == (0, 0, 0)
    assert {(one.line, one.field) for one in report.rejected} == {(1, "header")}


def test_the_same_moment_written_otherwise_is_unchanged(book: Book, policy: BillingPolicy) -> None:
    enrolled(book, policy, GOOD)
    again = GOOD.replace("2026-10-20T14:30:00+09:00", "2026-10-20T05:30:00Z")
    assert enrolled(book, policy, again).unchanged == 1


def test_a_change_is_told_with_the_value_given_and_the_one_known(
    book: Book, policy: BillingPolicy
) -> None:
    enrolled(book, policy, GOOD)
    (one,) = enrolled(book, policy, GOOD.replace("1001", "1002")).rejected
    assert (one.field, one.value) == ("amount", "1002")
    assert "1001" in one.problem


def test_lines_of_one_file_must_agree_in_everything(book: Book, policy: BillingPolicy) -> None:
    """Which month is charged first hangs on `last_paid_on`: the first line must not just win."""
    header = "customer_uid,amount,order_name,initial_paid_at,last_paid_on"
    rows = [f"customer-1,9900,plan,2026-09-20T14:30:00+09:00,{day}" for day in ("", "2026-11-20")]
    report = import_subscriptions(book, policy, lambda: KEY, a_file(*rows, header=header))
    assert [(one.line, one.field) for one in report.rejected] == [(3, "customer_uid")]


def test_last_paid_on_decides_the_first_cycle(book: Book, policy: BillingPolicy) -> None:
    header = "customer_uid,amount,order_name,initial_paid_at,last_paid_on"
    rows = [
        "open,9900,plan,2026-09-20T14:30:00+09:00,",
        "covered,9900,plan,2026-09-20T14:30:00+09:00,2026-11-20",
        "closed,9900,plan,2026-09-05T14:30:00+09:00,2026-10-05",
    ]
    import_subscriptions(book, policy, lambda: KEY, a_file(*rows, header=header))
    found = query(book, "SELECT customer_uid, next_cycle FROM subscriptions ORDER BY 1")
    assert found == [("closed", 3), ("covered", 3), ("open", 2)]


def test_the_report_is_bounded_and_counts_the_rest(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.services.import_subscriptions.MOST_REJECTIONS", 3)
    rows = [a_row(number) for number in range(5)]
    report = enrolled(book, policy, *["broken"] * 5)
    assert (len(report.rejected), report.rejected_beyond, report.bad) == (3, 2, 5)
    enrolled(book, policy, *rows)
    changed = enrolled(book, policy, *(row.replace("plan", "other") for row in rows))
    assert (len(changed.rejected), changed.bad, changed.unchanged) == (3, 5, 0)


def test_bad_lines_are_told_in_the_files_order(book: Book, policy: BillingPolicy) -> None:
    """Whether a line contradicts the book is known last of all."""
    enrolled(book, policy, a_row(1), a_row(2))
    changed = [a_row(number).replace("plan", "other") for number in (1, 2)]
    report = enrolled(book, policy, changed[0], "broken", changed[1], "broken")
    assert [one.line for one in report.rejected] == [2, 3, 4, 5]


def test_lines_that_contradict_each_other_are_counted_beyond_the_report(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.services.import_subscriptions.MOST_REJECTIONS", 1)
    others = [a_row(1).replace("plan", f"other {number}") for number in range(3)]
    report = enrolled(book, policy, a_row(1), *others)
    assert (len(report.rejected), report.rejected_beyond, report.bad) == (1, 2, 3)


def test_what_is_wrong_with_no_value_of_the_line_shows_none(
    book: Book, policy: BillingPolicy
) -> None:
    report = enrolled(book, policy, "broken")
    assert [astuple(one)[:3] for one in report.rejected] == [(2, "line", "")]
    assert [astuple(one) for one in imported(book, policy, b"").rejected] == [
        (1, "header", "", "the file is empty")
    ]
    unknown = [Misfit("initial_imp_uid", "is not there")]
    report = enrolled(book, policy, GOOD, verify=lambda _: unknown)
    assert [astuple(one) for one in report.rejected] == [(2, "initial_imp_uid", "", "is not there")]


def test_a_right_line_below_one_that_contradicts_the_book_is_unchanged(
    book: Book, policy: BillingPolicy
) -> None:
    enrolled(book, policy, a_row(1))
    report = enrolled(book, policy, a_row(1).replace("plan", "other"), a_row(1), skip_bad=True)
    assert [one.line for one in report.rejected] == [2]
    assert (report.added, report.unchanged) == (0, 1)


def test_progress_is_told_now_and_then_and_at_the_end(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.services.import_subscriptions._PROGRESS_EVERY", 2)
    told: list[int] = []
    enrolled(book, policy, *(a_row(number) for number in range(5)), progress=told.append)
    assert told == [2, 4, 5]


def test_what_the_gateway_refuses_is_rejected_by_line(book: Book, policy: BillingPolicy) -> None:
    asked: list[int] = []

    def verify(incoming: Sequence[NewSubscription]) -> Sequence[Misfit | Payment]:
        asked.append(len(incoming))
        return [
            Misfit("amount", "was 500") if new.facts.customer_uid == "customer-3" else FOUND
            for new in incoming
        ]

    rows = [a_row(number) for number in range(201)]
    report = enrolled(book, policy, *rows, verify=verify, skip_bad=True)
    assert [astuple(one) for one in report.rejected] == [(5, "amount", "1003", "was 500")]
    assert (report.added, asked) == (200, [200, 1])


IDS = "SELECT initial_imp_uid, initial_merchant_uid FROM subscriptions ORDER BY customer_uid"


def found_for(merchant_uid: str = "first-{uid}") -> Callable[..., Sequence[Payment]]:
    """A verification that finds everybody's initial payment."""
    return lambda incoming: [
        replace(
            FOUND,
            imp_uid=f"imp_{new.facts.customer_uid}",
            merchant_uid=merchant_uid.format(uid=new.facts.customer_uid),
        )
        for new in incoming
    ]


def test_what_a_verification_finds_is_kept(book: Book, policy: BillingPolicy) -> None:
    """By these ids the initial payment is given back, and the book is put right."""
    file = a_file(a_row(1), a_row(2))
    found = import_subscriptions(book, policy, lambda: KEY, file, verify=found_for())
    assert (found.added, found.rejected) == (2, [])
    assert query(book, IDS) == [
        ("imp_customer-1", "first-customer-1"),
        ("imp_customer-2", "first-customer-2"),
    ]


def test_what_the_line_itself_says_stays(book: Book, policy: BillingPolicy) -> None:
    lines = [f"{a_row(1)},imp_own,", f"{a_row(2)},,own"]
    file = a_file(*lines, header=f"{HEADER},initial_imp_uid,initial_merchant_uid")
    assert import_subscriptions(book, policy, lambda: KEY, file, verify=found_for()).added == 2
    assert query(book, IDS) == [("imp_own", "first-customer-1"), ("imp_customer-2", "own")]


@pytest.mark.parametrize("name", ["주문 1", "-first", "f" * 41, " first"])
def test_a_name_of_an_order_that_no_line_may_hold_is_left_out(
    book: Book, policy: BillingPolicy, name: str
) -> None:
    """It is the gateway's own, and no reason to refuse the line; the other id is enough."""
    found = enrolled(book, policy, GOOD, verify=found_for(name))
    assert (found.added, found.rejected) == (1, [])
    assert query(book, IDS) == [("imp_customer-1", None)]


def test_the_same_line_is_unchanged_whether_it_was_verified_or_not(
    book: Book, policy: BillingPolicy
) -> None:
    enrolled(book, policy, a_row(1))
    enrolled(book, policy, a_row(2), verify=found_for())
    before = query(book, "SELECT * FROM subscriptions ORDER BY id")
    rows = [a_row(1), a_row(2), a_row(1)]
    for options in ({}, {"verify": found_for()}, {"verify": found_for("another-{uid}")}):
        report = enrolled(book, policy, *rows, **options)
        assert (report.added, report.unchanged, report.bad) == (0, 3, 0)
    assert query(book, "SELECT * FROM subscriptions ORDER BY id") == before


def test_an_exception_on_the_way_writes_nothing(book: Book, policy: BillingPolicy) -> None:
    def verify(_: Sequence[NewSubscription]) -> Sequence[Misfit | Payment]:
        raise ConnectionError("the gateway is away")

    with pytest.raises(ConnectionError):
        enrolled(book, policy, GOOD, verify=verify)
    assert count(book) == 0
    assert query(book, "SELECT key FROM installation") == [(None,)]


def test_charging_can_be_held_while_an_import_runs(book: Book, policy: BillingPolicy) -> None:
    """The row that says "hold" also keeps the key; an import of minutes must not lock it."""
    enrolled(book, policy, a_row(1))

    def hold(_: int) -> None:
        execute(book, "SET LOCAL lock_timeout = '1s'; UPDATE installation SET hold_reason = 'why'")

    assert enrolled(book, policy, a_row(2), progress=hold).added == 1
    assert query(book, "SELECT hold_reason FROM installation") == [("why",)]


def test_an_import_may_take_longer_than_a_statement(
    database_url: str, clock: MovedClock, policy: BillingPolicy
) -> None:
    options = "-c statement_timeout=200 -c idle_in_transaction_session_timeout=200"
    engine = create_engine(database_url, connect_args={"options": options})
    hasty = Book(engine, clock.read)

    def slowly(_: int) -> None:
        time.sleep(0.5)

    try:
        assert enrolled(hasty, policy, GOOD, progress=slowly).added == 1
        assert query(hasty, "SHOW statement_timeout") == [("200ms",)], "lifted for the import only"
    finally:
        hasty.close()


def test_no_transaction_is_open_while_the_gateway_is_asked(
    book: Book, policy: BillingPolicy
) -> None:
    """Look-ups of a million keys take hours; a transaction of hours would keep rows from vacuum."""
    seen: list[int] = []
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
        # PostgreSQL's own cleaning is nobody's import.
        " AND backend_type = 'client backend'"
    )

    def verify(incoming: Sequence[NewSubscription]) -> Sequence[Misfit | Payment]:
        seen.append(query(book, others)[0][0])
        return [FOUND] * len(incoming)

    assert enrolled(book, policy, a_row(1), a_row(2), verify=verify).added == 2
    assert seen == [0]
    seen.clear()
    assert enrolled(
        book, policy, a_row(1), progress=lambda _: seen.append(query(book, others)[0][0])
    )
    assert 1 in seen, "the count can find an open transaction"


def test_what_is_imported_is_what_the_gateway_was_asked_about(
    book: Book, policy: BillingPolicy
) -> None:
    """A file with quotes, line ends in cells and bad lines comes through the verification whole."""
    rows = [
        a_row(1),
        '"customer-2",1002,"a, ""b"" plan",2026-10-20T14:30:00+09:00,홍길동,',
        "broken",
        a_row(3).replace("customer-3", '"customer\n3"'),
        a_row(4),
    ]
    asked: list[str] = []

    def verify(incoming: Sequence[NewSubscription]) -> Sequence[Misfit | Payment]:
        asked.extend(new.facts.customer_uid for new in incoming)
        missing = Misfit("customer_uid", "is not there")
        return [missing if one.facts.customer_uid == "customer-4" else FOUND for one in incoming]

    report = enrolled(book, policy, *rows, verify=verify, skip_bad=True)
    assert asked == ["customer-1", "customer-2", "customer-4"]
    assert [(one.line, one.field) for one in report.rejected] == [
        (4, "line"),
        (5, "customer_uid"),
        (7, "customer_uid"),
    ]
    assert (report.read, report.added, report.unchanged) == (5, 2, 0)
    assert query(book, "SELECT order_name FROM subscriptions ORDER BY customer_uid") == [
        ("plan 1",),
        ('a, "b" plan',),
    ]


def test_other_facts_that_come_in_meanwhile_are_rejected(book: Book, policy: BillingPolicy) -> None:
    """The other transaction commits between the import's comparison and its insert."""
    enrolled(book, policy, a_row(9))
    reports: list[ImportReport] = []
    importing = threading.Thread(target=lambda: reports.append(enrolled(book, policy, GOOD)))
    with book.transaction() as tx:
        copied = (
            "INSERT INTO subscriptions (customer_uid, status, amount, order_name, anchor_on,"
            " initial_paid_at, seal, tag, enrolled_at, next_cycle, next_due_at, next_closes_at)"
            " SELECT 'customer-1', status, amount, order_name, anchor_on, initial_paid_at, seal,"
            " tag, enrolled_at, next_cycle, next_due_at, next_closes_at FROM subscriptions"
        )
        tx.session.execute(text(copied))
        importing.start()
        _until_somebody_waits(book)
    importing.join(timeout=20)
    assert [(one.line, one.field) for one in reports[0].rejected] == [(2, "amount")]
    assert (reports[0].added, reports[0].unchanged) == (0, 0)
    assert count(book) == 2


def _until_somebody_waits(book: Book) -> None:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    for _ in range(500):
        if query(book, waiting)[0][0]:
            return
        time.sleep(0.01)
    raise AssertionError("the import never came to its insert")


class Endless(io.RawIOBase):
    """A file that is made while it is read, so that only the import itself can hold it."""

    def __init__(self, rows: int) -> None:
        self._lines = self._made(rows)

    @staticmethod
    def _made(rows: int) -> Iterator[bytes]:
        yield f"{HEADER}\n".encode()
        for number in range(rows):
            yield f"{a_row(number)}\n".encode()

    def readline(self, _: int | None = -1, /) -> bytes:
        return next(self._lines, b"")


def test_memory_does_not_grow_with_the_file(book: Book, policy: BillingPolicy) -> None:
    rows = 10_000
    tracemalloc.start()
    try:
        report = import_subscriptions(book, policy, lambda: KEY, cast(BinaryIO, Endless(rows)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (report.added, count(book)) == (rows, rows)
    # Held as objects, so many rows take several times as much.
    assert peak < 2_000_000


NIGHTMARES = [
    # A file, and the (line, field, problem) of each rejection.
    (f"{HEADER}\n", []),
    (f"{HEADER}\n{GOOD}\n\n\r\n\n", []),
    ("\n\n\n", [(1, "header", "the file is empty")]),
    (f"\n{HEADER},colour\n", [(2, "header", "is no column of this file")]),
    (f"{HEADER}\n{GOOD}\n{HEADER}\n", [(3, "initial_paid_at", "is not a moment")]),
    (f'{HEADER}\n"customer-1,1001\n{GOOD}\n', [(2, "line", "lines 2 to 3 were read as one")]),
    (f'{HEADER}\n{GOOD}\ncustomer-2,"10"02",plan,x\n', [(3, "line", "is not CSV")]),
    (f"{HEADER.replace(',', ';')}\n", [(1, "header", "is no column of this file")]),
    (f"{HEADER}\r{GOOD}\r".replace("\n", "\r"), [(1, "header", "is not CSV")]),
    (f"{HEADER.upper()}\n{GOOD}\n", [(1, "header", "is no column of this file")]),
    (f"{HEADER}\n{GOOD},\n", [(2, "line", "7 cells")]),
    (f"{HEADER}\n{GOOD.replace('customer-1', '@SUM(A1)')}\n", [(2, "customer_uid", "formula")]),
    (f"{HEADER}\n{GOOD.replace('plan 1', '+plan')}\n", [(2, "order_name", "formula")]),
    (
        f"{HEADER}\n{GOOD.replace('T14:30:00+09:00', '')}\n",
        [(2, "initial_paid_at", "not a moment")],
    ),
    ("고객,금액,상품명,최초결제\n".encode("cp949"), [(1, "header", "is not UTF-8")]),
]


@pytest.mark.parametrize(("raw", "wanted"), NIGHTMARES, ids=range(len(NIGHTMARES)))
def test_a_file_of_nightmares_gets_a_clear_report(
    book: Book, policy: BillingPolicy, raw: str | bytes, wanted: list[tuple[int, str, str]]
) -> None:
    report = imported(book, policy, raw.encode() if isinstance(raw, str) else raw)
    if not wanted:
        assert report.rejected == []
        assert report.added == report.read == count(book)
        return
    found = report.rejected[0]
    ((line, field, problem),) = wanted
    assert (found.line, found.field) == (line, field)
    assert problem in found.problem
    assert (report.added, count(book)) == (0, 0)
