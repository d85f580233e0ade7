"""What people read on the sandbox's pages, in Korean and English, side by side in `words.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Language = Literal["en", "ko"]


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one language: `w("window.pay")`, `w("window.due", day=31)`."""

    language: Language

    def __call__(self, name: str, **values: Any) -> str:
        """Raises `KeyError` for words that are not there."""
        return table()[name][self.language].format(**values)


def language_of(asked: str | None, accepted: str | None, default: Language = "en") -> Language:
    """The language asked for, else the first that a browser accepts, else `default`."""
    for wish in (asked, accepted):
        tag = (wish or "").strip().lower()[:2]
        if tag in ("en", "ko"):
            return "ko" if tag == "ko" else "en"
    return default


@cache
def table() -> Mapping[str, Mapping[str, str]]:
    """All words, as `section.name` → language → words."""
    text = files("billing.sandbox").joinpath("words.toml").read_text(encoding="utf-8")
    return {
        f"{section}.{name}": both
        for section, entries in tomllib.loads(text).items()
        for name, both in entries.items()
    }
