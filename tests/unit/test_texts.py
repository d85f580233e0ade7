"""Every text is there in both languages, says the same, and is asked for by its right name."""

from __future__ import annotations

import ast
import re
import string
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from billing.domain.attempt import AttemptStatus
from billing.domain.brake import KEPT, OPERATOR_RUN, SUSPICIOUS_RUN, why_brake
from billing.domain.calendar import SEOUL
from billing.domain.cycle import CycleReason, CycleStatus, HoldReason
from billing.domain.declines import DeclineClass
from billing.domain.notice import NoticeKind
from billing.domain.plan import NoRetryReason
from billing.domain.reconciliation import DifferenceKind
from billing.domain.refund import RefundStatus
from billing.domain.subscription import CHAIN_AT_RISK, SubscriptionStatus, SuspensionReason
from billing.presenting import told
from billing.presenting.formats import Formats
from billing.presenting.texts import Texts
from billing.services.answer import Answer
from billing.services.try_again import NotTried

WEB = Path(__file__).parents[2] / "billing" / "web"
TABLE = tomllib.loads((WEB.parent / "presenting" / "texts.toml").read_text(encoding="utf-8"))
KEYS = {f"{section}.{key}" for section, entries in TABLE.items() for key in entries}
_LEARNT = get_args(get_type_hints(Answer)["learnt"])
# `t("today.title"`, also where a condition chooses between two.
# What is put together from parts, as `t("weekday.d" ~ day)`, is not among them.
_ASKED = re.compile(r"""\bt\(\s*["']([a-z_]+\.[a-z_.0-9]+)["']\s*[,)]""")


@pytest.mark.parametrize("key", sorted(KEYS))
def test_both_languages_say_it_with_the_same_values(key: str) -> None:
    section, _, name = key.partition(".")
    both = TABLE[section][name]
    assert set(both) == {"en", "ko"}
    assert all(text.strip() for text in both.values())
    assert _values(both["en"]) == _values(both["ko"])


def _values(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_korean_is_korean() -> None:
    """A text that was forgotten is still English; names stay as they are."""
    same = {
        key
        for section, entries in TABLE.items()
        for key, both in entries.items()
        if both["en"] == both["ko"] and section != "common"
    }
    assert same == set()


def test_what_is_asked_for_is_there() -> None:
    files = [
        *WEB.glob("console/templates/*.html"),
        *WEB.glob("console/*.py"),
        *WEB.parent.glob("presenting/*.py"),
        *WEB.parent.glob("presenting/templates/*.html"),
    ]
    asked = {key for file in files for key in _ASKED.findall(file.read_text(encoding="utf-8"))}
    assert len(asked) > 250
    assert asked <= KEYS


def _all(section: str, words: Iterable[str]) -> list[str]:
    return [f"{section}.{word}" for word in words]


@pytest.mark.parametrize(
    "key",
    [
        *_all("status", [*SubscriptionStatus, *CycleStatus, *AttemptStatus]),
        *_all("reason", [*CycleReason, *SuspensionReason, CHAIN_AT_RISK]),
        *_all("held", HoldReason),
        *_all("class", DeclineClass),
        *_all("difference", DifferenceKind),
        *_all("difference_do", DifferenceKind),
        *_all("refund", RefundStatus),
        *_all("refunded", RefundStatus),
        *_all("notice", NoticeKind),
        *_all("not_tried", [*NotTried, *NoRetryReason]),
        *_all("learnt", (one.__name__ for one in _LEARNT)),
    ],
)
def test_every_word_of_the_book_has_a_text(key: str) -> None:
    assert Texts("ko").has(key)


def test_every_event_has_a_name() -> None:
    """Whatever the code writes down has a text; the console shows an unknown one as it is."""
    written: set[str] = set()
    pattern = re.compile(r'(?:kind=|_event\(|told\([^)]*?)"((?:[a-z_]+)\.(?:[a-z_]+))"')
    for file in (WEB.parent / "services").glob("*.py"):
        written |= set(pattern.findall(file.read_text(encoding="utf-8")))
    assert len(written) > 20
    assert {f"event.{kind}" for kind in written} <= KEYS


def test_every_check_has_its_texts() -> None:
    """The name of each check of the book, what it may find and what to do then."""
    code = (WEB.parent / "services" / "doctor.py").read_text(encoding="utf-8")
    said = set(re.findall(r'Said\(\s*"([^"]+)"|"(check_[^"]+)"', code))
    asked = {one for pair in said for one in pair if one}
    names = set(re.findall(r'_(?:check|seen)\(\s*"([a-z ]+)"', code))
    assert len(names) == 10
    assert {f"check.{name}" for name in names} | asked <= KEYS
    # And none is left over: a text that nothing says is not kept up to date.
    assert {key for key in KEYS if key.startswith(("check_detail.", "check_remedy."))} == asked


_TOLD_BY = {"GivenBack", "Contradiction", "Unknown", "NotSent", "stop", "not_compared"}
_TOLD_BY |= {"_back_to_due", "_tell_of_dead", "_held_before_sending", "_make_unknown"}
_TOLD_BY |= {"_back_to_requested"}


def test_every_sentence_that_the_use_cases_write_is_in_korean() -> None:
    """Reasons of our own, among the data of events. Of those that quote somebody, the quotation
    stays; what the gateway's client says of the wire is as in its log."""
    written: set[str] = set()
    for folder in ("services", "domain"):
        for file in (WEB.parent / folder).glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                written |= {text for told in _reasons(node) for text in _plain(told)}
    assert len(written) > 12
    assert {f"sentence.{text}" for text in written} <= KEYS
    assert Texts("ko").sentence("the window closed") == "결제 가능 기간 마감"


def _reasons(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return [said for key, said in pairs if getattr(key, "value", None) == "why"]
    if isinstance(node, ast.Call):
        named = [one.value for one in node.keywords if one.arg == "why"]
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        return [*named, *(node.args if name in _TOLD_BY else [])]
    return []


def _plain(told: ast.expr) -> Iterator[str]:
    """Sentences without anything filled in."""
    if isinstance(told, ast.IfExp):
        yield from (*_plain(told.body), *_plain(told.orelse))
    elif isinstance(told, ast.Constant) and isinstance(told.value, str) and " " in told.value:
        yield told.value


@pytest.mark.parametrize(
    "verdicts", ["o" * OPERATOR_RUN, "s" * SUSPICIOUS_RUN, "a" + "su" * (KEPT // 2)]
)
def test_why_the_brake_stopped_everything_is_in_korean(verdicts: str) -> None:
    why = why_brake(verdicts[:KEPT])
    assert why is not None
    korean = Texts("ko").sentence(why)
    assert korean != why
    assert set(re.findall(r"\d+", korean)) == set(re.findall(r"\d+", why))
    assert Texts("en").sentence(why) == why


def test_what_somebody_else_says_stays_as_it_is() -> None:
    assert Texts("ko").sentence("한도초과 3회") == "한도초과 3회"


def test_what_an_event_holds_is_read_in_korean() -> None:
    ko = Formats(Texts("ko"), SEOUL)
    data = {
        "imp_uid": "imp_1",
        "reason": "declined",
        "amount": 9900,
        "why": "the window closed",
        "whole": False,
        "rows": [1, 2],
        "at": "2026-11-20T01:00:00+00:00",
        "message": None,
        "new": "as it is",
    }
    assert list(told.event(data, ko)) == [
        ("imp_uid", "imp_1"),
        ("사유", "끝까지 거절됨"),
        ("금액", "9,900원"),
        ("사유", "결제 가능 기간 마감"),
        ("온전함", "아니요"),
        ("행", "1, 2"),
        ("예정 시각", "2026-11-20 10:00"),
        ("new", "as it is"),
    ]
