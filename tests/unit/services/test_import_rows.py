"""Reading a file: which line a record is, what an unreadable one swallows, what a row may hold."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.enrolment import COLUMNS, new_subscription, shown
from billing.domain.errors import InvalidInput
from billing.domain.money import Won
from billing.services.csv_lines import LONGEST_LINE, records

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
ROW = dict.fromkeys(COLUMNS, "") | {
    "customer_uid": "customer-1",
    "amount": "9900",
    "order_name": "월정액",
    "initial_paid_at": "2026-10-20T14:30:00+09:00",
}


def read(raw: bytes) -> list[tuple[int, list[str] | str]]:
    return [(one.line, one.problem or list(one.cells)) for one in records(io.BytesIO(raw))]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_byte_order_mark_leave_no_trace(end: bytes, mark: bytes) -> None:
    assert read(mark + b"a,b" + end + "가,2".encode() + end) == [(1, ["a", "b"]), (2, ["가", "2"])]


def test_the_last_line_needs_no_end() -> None:
    assert read(b"a\nb") == [(1, ["a"]), (2, ["b"])]


def test_a_record_has_the_number_of_its_first_line() -> None:
    assert read(b'a\n"b\nb"\n\nc\n') == [(1, ["a"]), (2, ["b\nb"]), (5, ["c"])]


def test_a_mark_inside_the_file_is_kept_as_it_is() -> None:
    assert read(b"a\n\xef\xbb\xbfb\n") == [(1, ["a"]), (2, ["\ufeffb"])]


def test_an_overlong_line_counts_once() -> None:
    raw = b"a\n" + b"x" * (3 * LONGEST_LINE) + b"\nb\n"
    assert read(raw) == [(1, ["a"]), (2, f"is longer than {LONGEST_LINE} bytes"), (3, ["b"])]


def test_an_overlong_line_is_never_cut_into_characters() -> None:
    """Korean letters have three bytes, so a cut would fall inside one of them."""
    raw = "가".encode() * LONGEST_LINE + b"\nb\n"
    assert read(raw) == [(1, f"is longer than {LONGEST_LINE} bytes"), (2, ["b"])]


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (b"x" * LONGEST_LINE, f"is longer than {LONGEST_LINE} bytes"),
        (b"\xff", "is not UTF-8. Save the file as UTF-8"),
    ],
)
def test_a_broken_line_inside_quotes_does_not_end_them(broken: bytes, problem: str) -> None:
    raw = b'"a\n' + broken + b'\nb"\nc\n'
    assert read(raw) == [(1, f"{problem}; lines 1 to 3 were read as one"), (4, ["c"])]


def test_a_line_of_exactly_the_longest_length_is_read() -> None:
    line = b"x" * (LONGEST_LINE - 1)
    assert read(line + b"\nb\n") == [(1, [line.decode()]), (2, ["b"])]


def test_a_line_in_another_encoding_leaves_its_neighbours_alone() -> None:
    raw = b"a\n" + "홍길동".encode("cp949") + b"\nb\n" + "김".encode("cp949")
    first, (line, problem), *rest = read(raw)
    assert (first, rest) == ((1, ["a"]), [(3, ["b"]), (4, "is not UTF-8")])
    # How to mend it stands once, at the first.
    assert line == 2
    assert "looks like CP949" in str(problem)
    assert "CSV UTF-8(쉼표로 분리)" in str(problem)
    assert "iconv -f CP949 -t UTF-8" in str(problem)


@pytest.mark.parametrize("raw", ["café".encode("latin-1"), b"\xff\xfea\x00", b"\xa1\xa2"])
def test_only_korean_is_taken_for_cp949(raw: bytes) -> None:
    assert read(raw + b"\n") == [(1, "is not UTF-8. Save the file as UTF-8")]


def test_a_bad_line_inside_quotes_spoils_its_record_only() -> None:
    assert read(b'"a\n\xff"\nb\n') == [
        (1, "is not UTF-8. Save the file as UTF-8; lines 1 to 2 were read as one"),
        (3, ["b"]),
    ]


def test_what_an_unclosed_quote_swallows_is_named() -> None:
    (first, problem), *rest = read(b'1,"a\n2,b\n3,"c"\n4,d\n')
    assert first == 1
    assert str(problem).endswith("lines 1 to 3 were read as one")
    assert rest == [(4, ["4", "d"])]


def test_a_quote_that_never_closes_ends_with_the_file() -> None:
    ((line, problem),) = read(b'"a\nb\n')
    assert line == 1
    assert "unexpected end of data" in str(problem)


def test_a_quoted_cell_without_end_cannot_fill_the_memory() -> None:
    raw = b'"' + b"x\n" * 200_000
    line, problem = read(raw)[0]
    assert line == 1
    assert "field limit" in str(problem)


def test_nul_is_kept_so_that_the_row_is_refused() -> None:
    assert read(b"a\x00b\n") == [(1, ["a\x00b"])]


def test_a_row_becomes_a_subscription() -> None:
    row = ROW | {
        "last_paid_on": "2026-11-19",
        "buyer_name": "홍길동",
        "buyer_email": "a@example.com",
        "buyer_tel": "+82-10-1234-5678",
        "initial_imp_uid": "imp_1",
        "reference": "r",
    }
    new = new_subscription(row, NOW, SEOUL)
    assert (new.facts.amount, new.last_paid_on, new.reference) == (
        Won(9900),
        date(2026, 11, 19),
        "r",
    )
    assert new.facts.initial_paid_at == datetime(2026, 10, 20, 5, 30, tzinfo=UTC)
    assert new.facts.buyer_tel == "+82-10-1234-5678"
    assert new.initial_merchant_uid is None


WRONG = [
    ("customer_uid", "\uff1d1+1", "formula"),
    ("customer_uid", "@cmd", "formula"),
    ("customer_uid", "a\x00b", "control"),
    ("order_name", "plan\u2028", "space"),
    ("order_name", "pl\u2028an", "control"),
    ("order_name", "pl\x85an", "control"),
    ("order_name", "", "empty"),
    ("amount", "300", "below 301"),
    ("amount", "9,900", "plain digits"),
    ("amount", "1e4", "plain digits"),
    ("amount", "+9900", "plain digits"),
    ("amount", "９９００", "plain digits"),
    ("amount", "٩٩٠٠", "plain digits"),
    ("amount", " 9900", "plain digits"),
    ("amount", "9900\n", "plain digits"),
    ("amount", "9" * 13, "plain digits"),
    ("initial_paid_at", "2026-W43-2T10:00:00+09:00", "not a moment"),
    ("initial_paid_at", "20261020T143000+0900", "not a moment"),
    ("initial_paid_at", "2026-10-20", "not a moment"),
    ("initial_paid_at", "2026-10-20T14:30:00", "no offset"),
    ("initial_paid_at", "2026-10-20T14:30:00+09:00\n", "not a moment"),
    ("initial_paid_at", "２０２６-10-20T14:30:00+09:00", "not a moment"),
    ("initial_paid_at", "2026-02-29T14:30:00+09:00", "exists"),
    ("initial_paid_at", "2026-10-20T14:30:00+99:00", "exists"),
    ("initial_paid_at", "0001-01-01T00:00:00+09:00", "exists"),
    ("initial_paid_at", "2009-12-31T00:00:00+09:00", "before 2010"),
    ("initial_paid_at", "2026-11-20T10:00:01+09:00", "future"),
    ("last_paid_on", "2026-W47-1", "not a date"),
    ("last_paid_on", "2026-11-31", "not a date"),
    ("last_paid_on", "2026-10-19", "before the initial payment"),
    ("last_paid_on", "2026-11-21", "future"),
    ("buyer_name", "가" * 17, "17 characters"),
    ("buyer_email", "e" * 65, "65 characters"),
    ("buyer_tel", "0" * 17, "17 characters"),
    ("buyer_tel", "=010", "not a telephone"),
    ("buyer_tel", "010 1234", "not a telephone"),
    ("initial_merchant_uid", "m" * 41, "41 characters"),
    ("initial_merchant_uid", "주문", "not an identifier"),
    ("initial_imp_uid", "i" * 65, "65 characters"),
    ("reference", "r" * 201, "201 characters"),
]


@pytest.mark.parametrize(("field", "value", "problem"), WRONG)
def test_a_wrong_cell_is_named_with_its_problem(field: str, value: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        new_subscription(ROW | {field: value}, NOW, SEOUL)
    assert caught.value.field == field
    assert problem in caught.value.problem
    assert caught.value.remedy


RIGHT = [
    ("customer_uid", "c" * 80),
    ("order_name", "월" * 40),
    ("amount", "301"),
    ("initial_paid_at", "2026-11-20T10:00:00+09:00"),
    ("initial_paid_at", "2026-10-20T05:30Z"),
    ("last_paid_on", "2026-10-20"),
    ("last_paid_on", "2026-11-20"),
    ("buyer_name", "가" * 16),
    ("buyer_tel", "+821012345678"),
]


@pytest.mark.parametrize(("field", "value"), RIGHT)
def test_what_lies_on_the_limit_is_taken(field: str, value: str) -> None:
    assert new_subscription(ROW | {field: value}, NOW, SEOUL).facts.customer_uid


@pytest.mark.parametrize("field", ["buyer_name", "buyer_email", "buyer_tel"])
def test_peoples_data_are_never_shown(field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        new_subscription(ROW | {field: "secret person\x07"}, NOW, SEOUL)
    assert "secret" not in str(caught.value)
    assert shown(field, "secret") == "[hidden]"


def test_the_day_of_payment_is_the_one_in_seoul() -> None:
    """16:00 UTC is already the 21st in Seoul, so the 20th lies before the initial payment."""
    late = ROW | {"initial_paid_at": "2026-10-20T16:00:00Z"}
    assert new_subscription(late | {"last_paid_on": "2026-10-21"}, NOW, SEOUL).last_paid_on
    with pytest.raises(InvalidInput, match="before the initial payment"):
        new_subscription(late | {"last_paid_on": "2026-10-20"}, NOW, SEOUL)
