"""Every text is there in both languages, says the same, and is asked for by its right name."""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleReason, CycleStatus, HoldReason
from billing.domain.declines import DeclineClass
from billing.domain.notice import NoticeKind
from billing.domain.plan import NoRetryReason
from billing.domain.reconciliation import DifferenceKind
from billing.domain.refund import RefundStatus
from billing.domain.subscription import CHAIN_AT_RISK, SubscriptionStatus, SuspensionReason
from billing.presenting.texts import Texts
from billing.services.try_again import NotTried

WEB = Path(__file__).parents[2] / "billing" / "web"
TABLE = tomllib.loads((WEB.parent / "presenting" / "texts.toml").read_text(encoding="utf-8"))
KEYS = {f"{section}.{key}" for section, entries in TABLE.items() for key in entries}
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
