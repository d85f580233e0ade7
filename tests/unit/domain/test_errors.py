"""What an error says: where, what is wrong, and what to do where that is known."""

from __future__ import annotations

from billing.domain.errors import ArchiveDamaged, InvalidInput, Unconfirmed


def test_bad_data_is_told_with_its_place_and_the_remedy_if_there_is_one() -> None:
    assert str(InvalidInput("amount", "x", "is no number")) == "amount='x': is no number"
    told = str(InvalidInput("amount", "x", "is no number", "Correct the cell"))
    assert told == "amount='x': is no number. Correct the cell"


def test_what_the_gateway_does_not_vouch_for_is_told_with_its_place_and_the_remedy() -> None:
    told = str(Unconfirmed("amount", 9900, "is not what was paid", "Compare the payment"))
    assert told == "amount=9900: is not what was paid. Compare the payment"


def test_a_damaged_archive_is_named() -> None:
    damaged = ArchiveDamaged("maewol-events-000001.txt.gz", "is missing")
    assert str(damaged) == "maewol-events-000001.txt.gz is missing"
    assert (damaged.name, damaged.problem) == ("maewol-events-000001.txt.gz", "is missing")
