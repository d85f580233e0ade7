"""What people read, in Korean and English, side by side in `texts.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Language = Literal["en", "ko"]


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


@cache
def _table() -> dict[str, dict[str, str]]:
    text = files("billing.presenting").joinpath("texts.toml").read_text(encoding="utf-8")
    return {
        f"{section}.{key}": both
        for section, entries in tomllib.loads(text).items()
        for key, both in entries.items()
    }
