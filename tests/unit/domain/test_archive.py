"""An archive proves itself: whole it is read as it was written, and every change of it is seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from billing.domain.archive import SealedRun, file_name, fits, head, read, section

BEFORE = hashlib.sha256(b"the archive before").digest()
FIRST = ["1201|2024-01-20 01:00:00.000000|attempt.sending", "1202|2024-01-20 01:00:01.000000|x"]
SECOND = ["1203|2024-01-20 01:00:02.000000|결제"]


def sealed(number: int, after: int, up_to: int, previous: bytes, lines: list[str]) -> SealedRun:
    digest = hashlib.sha256(previous + "\n".join(lines).encode()).digest()
    return SealedRun(number, after, up_to, len(lines), digest)


ONE = sealed(12, 1200, 1202, BEFORE, FIRST)
TWO = sealed(13, 1202, 1203, ONE.digest, SECOND)
WHOLE = head(BEFORE) + section(ONE, FIRST) + section(TWO, SECOND)


def runs(text: str) -> list[SealedRun]:
    return list(read(text.splitlines(keepends=True)))


def test_its_text_is_the_promised_one() -> None:
    assert (
        f"Maewol events 1\nprevious: {BEFORE.hex()}\n"
        f"seal 12: after 1200, up to 1202, 2 events, {ONE.digest.hex()}\n"
        f"{FIRST[0]}\n{FIRST[1]}\n"
        f"seal 13: after 1202, up to 1203, 1 events, {TWO.digest.hex()}\n"
        f"{SECOND[0]}\n"
    ) == WHOLE


def test_its_name() -> None:
    assert file_name(7) == "maewol-events-000007.txt.gz"


def test_it_is_read_as_it_was_written() -> None:
    assert runs(WHOLE) == [ONE, TWO]


def test_lines_without_an_end_are_lines_too() -> None:
    assert list(read(WHOLE.splitlines())) == [ONE, TWO]


def test_the_very_first_has_none_before_it() -> None:
    first = sealed(1, 0, 1202, b"", FIRST)
    text = head(b"") + section(first, FIRST)
    assert text.startswith("Maewol events 1\nprevious: \nseal 1: ")
    assert runs(text) == [first]


def test_a_run_may_be_empty() -> None:
    empty = sealed(12, 1200, 1202, BEFORE, [])
    assert runs(head(BEFORE) + section(empty, [])) == [empty]


def test_what_fits() -> None:
    assert fits(ONE, BEFORE, FIRST)
    assert not fits(ONE, TWO.digest, FIRST)
    assert not fits(ONE, BEFORE, FIRST[:1])
    assert not fits(ONE, BEFORE, FIRST[::-1])
    # The digest alone would take two lines for one that holds a line's end.
    assert not fits(ONE, BEFORE, ["\n".join(FIRST)])


CHANGES: list[tuple[Callable[[str], str], str]] = [
    (lambda _: "", "is not an archive of events"),
    (lambda text: text.replace("events 1\n", "events 2\n"), "is not an archive of events"),
    (lambda _: "Maewol events 1\n", "is not an archive of events"),
    (lambda text: text.replace("previous: ", "previous "), "is not an archive of events"),
    (lambda text: text.replace(BEFORE.hex(), BEFORE.hex()[1:]), "is not an archive of events"),
    (lambda text: text.replace(BEFORE.hex(), ""), "seal 12 are not those"),
    (lambda text: text.replace("x\n", "y\n"), "seal 12 are not those"),
    (lambda text: text.replace(f"{FIRST[1]}\n", ""), "seal 12 are not those"),
    (lambda text: text.replace("결제", "결재"), "seal 13 are not those"),
    (lambda text: text.removesuffix(f"{SECOND[0]}\n"), "seal 13 are not those"),
    (lambda text: text.replace("seal 13:", "seal 14:"), "seal 14 does not follow seal 12"),
    (lambda text: text.replace("seal 13:", "seal 12:"), "seal 12 does not follow seal 12"),
    (lambda text: text.replace("after 1202", "after 1201"), "seal 13 does not follow seal 12"),
    (lambda text: text.replace("up to 1202", "up to 1201"), "seal 13 does not follow seal 12"),
    (lambda _: head(BEFORE), "holds no seal"),
    (lambda _: head(BEFORE) + FIRST[0] + "\n", "holds no seal"),
    (lambda text: text.replace("seal 12: ", "1200|x\nseal 12: "), "events before its first seal"),
]


@pytest.mark.parametrize(("change", "problem"), CHANGES)
def test_every_change_is_seen(change: Callable[[str], str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        runs(change(WHOLE))


def test_what_proves_itself_is_given_before_what_does_not() -> None:
    reading = read(WHOLE.replace("결제", "결재").splitlines(keepends=True))
    assert next(reading) == ONE
    with pytest.raises(ValueError, match="seal 13"):
        next(reading)


def test_no_text_within_an_event_is_taken_for_a_seal() -> None:
    """Since an event's line begins with its number."""
    lines = ["1201|seal 13: after 1202, up to 1203, 1 events, " + "0" * 64]
    run = sealed(12, 1200, 1201, BEFORE, lines)
    assert runs(head(BEFORE) + section(run, lines)) == [run]
