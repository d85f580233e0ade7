"""What people read, in Korean and English, side by side in `texts.toml`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Language = Literal["en", "ko"]
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one language: `t("today.title")`, `t("today.left", hours=3)`."""

    language: Language

    def __call__(self, key: str, **values: Any) -> str:
        """Raises `KeyError` for a text that is not there: a template's mistake, found by tests."""
        return _table()[key][self.language].format(**values)

    def has(self, key: str) -> bool:
        """Whether there is such a text, for words that come from data."""
        return key in _table()

    def sentence(self, english: str) -> str:
        """A sentence that Maewol itself wrote into the book, in this language; anybody else's as
        it is. Texts know it by its English, numbers apart: `{n0} of the last {n1} charges …`."""
        numbers = _NUMBER.findall(english)
        places = iter(range(len(numbers)))
        key = "sentence." + _NUMBER.sub(lambda _: f"{{n{next(places)}}}", english)
        values = {f"n{place}": number for place, number in enumerate(numbers)}
        return self(key, **values) if self.has(key) else english


@cache
def _table() -> dict[str, dict[str, str]]:
    text = files("billing.presenting").joinpath("texts.toml").read_text(encoding="utf-8")
    return {
        f"{section}.{key}": both
        for section, entries in tomllib.loads(text).items()
        for key, both in entries.items()
    }
