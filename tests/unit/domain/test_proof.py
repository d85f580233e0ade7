"""Proofs: both sides in one text, chained day by day; whatever is changed later shows."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as some

from billing.domain import proof
from tests.builders import KEY

ROWS = [("imp_1", "mw-a", 9900), ("imp_2", "mw-b", 8800)]
AGREED = [
    ("ledger paid", ROWS),
    ("book paid", ROWS),
    ("ledger cancelled", []),
    ("book cancelled", []),
]


def chain(days: int = 4) -> list[tuple[str, str]]:
    """So many days from 2026-11-28 on, as (file name, text)."""
    made: list[tuple[str, str]] = []
    previous = proof.FIRST
    for number in range(days):
        day = date.fromordinal(date(2026, 11, 28).toordinal() + number)
        text, agree = proof.write(day, previous, AGREED, KEY)
        assert agree
        read = proof.read(text)
        assert read is not None
        previous = read.digest
        made.append((proof.file_name(day), text))
    return made


def test_the_text() -> None:
    text, agree = proof.write(date(2026, 11, 20), proof.FIRST, AGREED, KEY)
    assert agree
    assert text.splitlines()[:9] == [
        "Maewol proof 1",
        "day: 2026-11-20",
        f"previous: {'0' * 64}",
        "ledger paid: 2 payments, 18700 won",
        "  imp_1 mw-a 9900",
        "  imp_2 mw-b 8800",
        "book paid: 2 payments, 18700 won",
        "  imp_1 mw-a 9900",
        "  imp_2 mw-b 8800",
    ]
    assert "agree: yes\nsha256: " in text


def test_a_long_order_number_is_cut_as_the_book_cuts_it() -> None:
    """The book keeps 40 characters of a stranger's; both sides must still agree."""
    cut, digest = proof.section("ledger paid", [("imp_1", "m" * 41, 1)])
    assert (cut, digest) == proof.section("ledger paid", [("imp_1", "m" * 40, 1)])
    assert f"  imp_1 {'m' * 40} 1\n" in cut


def test_what_a_proof_says_of_its_day_does_not_depend_on_the_day_before() -> None:
    day = date(2026, 11, 20)
    one, other = (
        proof.read(proof.write(day, previous, AGREED, KEY)[0])
        for previous in (proof.FIRST, "a" * 64)
    )
    assert one is not None
    assert other is not None
    assert one.body != other.body
    assert one.facts == other.facts
    assert one.facts == one.body.replace(f"previous: {proof.FIRST}", "")
    assert one.previous not in one.facts


@pytest.mark.parametrize(
    "book",
    [ROWS[:1], [*ROWS, ("imp_3", "mw-c", 1)], [ROWS[0], ("imp_2", "mw-b", 8801)],
     [ROWS[0], ("imp_2", "mw-x", 8800)]],
)  # fmt: skip
def test_sides_that_differ_say_so(book: list[proof.Row]) -> None:
    sides = [("ledger paid", ROWS), ("book paid", book)]
    text, agree = proof.write(date(2026, 11, 20), proof.FIRST, sides, KEY)
    assert not agree
    assert "agree: no\n" in text


def test_payments_taken_back_must_agree_too() -> None:
    sides = [*AGREED[:3], ("book cancelled", ROWS[:1])]
    assert not proof.write(date(2026, 11, 20), proof.FIRST, sides, KEY)[1]


def test_what_is_no_proof_is_not_read_as_one() -> None:
    ((_, text),) = chain(1)
    assert proof.read(text) is not None
    for wrong in (
        text.replace("proof 1", "proof 2"),
        text.replace("day: 2026-11-28\n", ""),
        text.replace(f"previous: {proof.FIRST}\n", ""),
        text[:-2],
    ):
        assert proof.read(wrong) is None


def test_a_changed_text_is_told_from_another_key() -> None:
    ((name, text),) = chain(1)
    found = list(proof.problems([(name, text.replace("9900", "9901"))], KEY))
    assert [problem for _, problem in found] == [
        "was changed: its text does not fit its sha256",
        "was not signed with this installation's key",
    ]


def test_what_is_no_proof_breaks_the_chain_and_is_told() -> None:
    (first, _), (second, text), *_ = chain()
    assert list(proof.problems([(first, "torn"), (second, text)], KEY)) == [
        (first, "is not a whole proof"),
        (second, "follows a proof that is not there"),
    ]


def test_an_id_is_one_word_whatever_it_holds() -> None:
    text, _ = proof.section("ledger paid", [("imp 1\n\0", "m\u3000w", 1)])
    assert text.splitlines()[1] == "  imp?1?? m?w 1"


def test_a_whole_chain_has_no_problem() -> None:
    assert list(proof.problems(chain(), KEY)) == []


def test_another_key_signs_nothing() -> None:
    found = list(proof.problems(chain(2), b"another key"))
    assert [problem for _, problem in found] == ["was not signed with this installation's key"] * 2


def test_a_missing_day_is_found() -> None:
    whole = chain()
    found = list(proof.problems([whole[0], *whole[2:]], KEY))
    assert {name for name, _ in found} == {whole[2][0]}
    assert any("days are missing" in problem for _, problem in found)
    beginning_gone = list(proof.problems(whole[1:], KEY))
    assert beginning_gone == [(whole[1][0], "follows a proof that is not there")]


def test_a_day_made_anew_with_the_key_breaks_the_chain_after_it() -> None:
    """Whoever has the key and changes one day must change all that follow."""
    whole = chain()
    first = proof.read(whole[0][1])
    assert first is not None
    forged, _ = proof.write(date(2026, 11, 29), first.digest, [("ledger paid", [])] * 2, KEY)
    found = list(proof.problems([whole[0], (whole[1][0], forged), *whole[2:]], KEY))
    assert [name for name, _ in found] == [whole[2][0]]


def test_a_proof_under_another_name() -> None:
    ((name, text),) = chain(1)
    assert list(proof.problems([(name.replace("28", "27"), text)], KEY)) == [
        ("maewol-proof-2026-11-27.txt", "holds the day 2026-11-28")
    ]


@given(some.data())
def test_any_changed_character_is_found(data: some.DataObject) -> None:
    whole = chain(3)
    day = data.draw(some.integers(0, 2))
    name, text = whole[day]
    at = data.draw(some.integers(0, len(text) - 1))
    char = data.draw(some.characters(exclude_characters=text[at], codec="utf-8"))
    whole[day] = (name, text[:at] + char + text[at + 1 :])
    assert list(proof.problems(whole, KEY))


@given(some.text(), some.text())
def test_a_strangers_ids_cannot_write_lines(imp_uid: str, merchant_uid: str) -> None:
    text, _ = proof.section("ledger paid", [(imp_uid, merchant_uid, 1)])
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize("text", ["", "Maewol proof 1\n", "x", "Maewol proof 2\nday: 2026-11-20\n"])
def test_what_is_no_proof(text: str) -> None:
    assert proof.read(text) is None


@pytest.mark.parametrize(
    ("name", "day"),
    [("maewol-proof-2026-11-20.txt", date(2026, 11, 20)), ("maewol-proof-2026-11-20.4711", None),
     ("proof.txt", None)],
)  # fmt: skip
def test_names_of_files(name: str, day: date | None) -> None:
    assert proof.day_of_name(name) == day
