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
