"""What checks found and what event lines hold, in the reader's language.

The book and the use cases keep words and numbers; here they become texts. The gateway's own words
stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from billing.presenting.formats import Formats
from billing.presenting.texts import Texts
from billing.services.doctor import Check, Said

# Names that a support team of the gateway asks for: the same in every language.
AS_THEY_ARE: Final = frozenset({"imp_uid", "merchant_uid"})
_WON: Final = frozenset({"amount", "won", "ledger_amount", "book_amount"})
# Where the words of a value stand, the first section that knows it.
_WORDS: Final = {
    "reason": ("reason", "held"),
    "before": ("status",),
    "class": ("class",),
    "kind": ("difference",),
    "learnt": ("learnt",),
    "why": ("not_tried",),
}


def check(found: Check, t: Texts) -> dict[str, Any]:
    """A check as people read it; no remedy where nothing is wrong."""
    return {
        "name": found.name,
        "ok": found.ok,
        "detail": "; ".join(_said(one, t) for one in found.detail),
        "remedy": "" if found.ok else _said(found.remedy, t),
    }


def _said(one: Said, t: Texts) -> str:
    words = {
        name: t.sentence(value) if isinstance(value, str) else value
        for name, value in one.values.items()
    }
    return t(one.text, **words)


def event(data: Mapping[str, Any], f: Formats) -> Iterator[tuple[str, str]]:
    """What an event line tells beside its kind: pairs of a name and a value, without empty ones."""
    for name, value in data.items():
        if value is not None and value != "":
            label = name if name in AS_THEY_ARE else f.word("told", name)
            yield label, _value(name, value, f)


def _value(name: str, value: Any, f: Formats) -> str:
    match value:
        case bool():
            return f.t("common.yes" if value else "common.no")
        case int() if name in _WON:
            return f.won(value)
        case list():
            return ", ".join(map(str, value))
        case str():
            return _word(name, value, f)
        case _:
            return str(value)


def _word(name: str, value: str, f: Formats) -> str:
    for section in _WORDS.get(name, ()):
        if f.t.has(f"{section}.{value}"):
            return f.word(section, value)
    return f.readable(f.t.sentence(value))
