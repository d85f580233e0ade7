"""`import_subscriptions`: whole or not at all, and a report that names line, field and value."""

from __future__ import annotations

import io
import threading
from datetime import UTC, datetime

import pytest

from billing.domain.policy import BillingPolicy
from billing.services.import_subscriptions import ImportReport, import_subscriptions
from billing.store.session import Book
from tests.builders import HEADER, KEY, a_file, a_row, enrolled, query

GOOD = a_row(1)


def imported(book: Book, policy: BillingPolicy, raw: bytes, **options: bool) -> ImportReport:
    return import_subscriptions(book, policy, lambda: KEY, io.BytesIO(raw), **options)


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


BAD = [
    ("amount", GOOD.replace("1001", "９９００"), "plain digits"),
    ("amount", GOOD.replace("1001", "9_900"), "plain digits"),
    ("amount", GOOD.replace("1001", "99.0"), "plain digits"),
    ("amount", GOOD.replace("1001", "-9900"), "plain digits"),
    ("amount", GOOD.replace("1001", "300"), "below 301"),
    ("amount", GOOD.replace("1001", ""), "empty"),
    ("customer_uid", GOOD.replace("customer-1", ""), "empty"),
    ("customer_uid", GOOD.replace("customer-1", "c" * 81), "81 characters"),
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
    assert [(one.line, one.problem) for one in report.rejected] == [(3, "is not UTF-8")]
    assert count(book) == 0


def test_lines_count_the_files_lines(book: Book, policy: BillingPolicy) -> None:
    spread = '"customer-\n9",1009,plan,2026-10-20T14:30:00+09:00,,'
    report = enrolled(book, policy, a_row(1), spread, "broken")
    assert [(one.line, one.field) for one in report.rejected] == [(3, "customer_uid"), (5, "line")]


def test_two_imports_of_one_file_at_once_enrol_each_once(book: Book, policy: BillingPolicy) -> None:
    rows = [a_row(number) for number in range(200)]
    added: list[int] = []
    threads = [
        threading.Thread(target=lambda: added.append(enrolled(book, policy, *rows).added))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(added) == 200
    assert count(book) == 200
