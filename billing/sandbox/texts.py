"""The carrier's refusals by code, from `texts.toml` beside this module (docs/gateway.md §8, §9)."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

CLASSES = "ABCDEFG"


@dataclass(frozen=True, slots=True)
class Decline:
    """One refusal. `klass` is A to G; `name` tells apart texts of one code."""

    code: str
    klass: str
    text: str
    name: str = ""


@cache
def _document() -> Mapping[str, Any]:
    return tomllib.loads(files(__package__).joinpath("texts.toml").read_text("utf-8"))


@cache
def declines() -> Sequence[Decline]:
    """All refusals there are, in the order of the file."""
    return [
        Decline(entry["code"], entry["class"], entry["text"], entry.get("name", ""))
        for entry in _document()["decline"]
    ]


@cache
def matching(what: str) -> Sequence[Decline]:
    """The refusals meant by a class (`C`), a code (`0031`) or a code and name (`0060/mismatch`).

    For a code alone it is its first text. Raises `ValueError` when there is none.
    """
    code, _, name = what.partition("/")
    if len(what) == 1:
        found = [one for one in declines() if one.klass == what]
    else:
        found = [one for one in declines() if one.code == code and name in ("", one.name)][:1]
    if not found:
        raise ValueError(f"no decline {what!r}: give a class A to G, or a code of texts.toml")
    return found


def decline(what: str, dice: random.Random | None = None) -> Decline:
    """One refusal; of a class, one by the dice. Raises `ValueError`."""
    found = matching(what)
    return found[0] if dice is None or len(found) == 1 else dice.choice(found)


@cache
def cancel_texts() -> Mapping[str, str]:
    """Why a cancellation is refused, by code."""
    return {entry["code"]: entry["text"] for entry in _document()["cancel"]}


def cancel_text(code: str) -> str:
    """The answer to a cancellation refused with this code. Raises `ValueError`."""
    if code not in cancel_texts():
        known = ", ".join(cancel_texts())
        raise ValueError(f"no cancellation is refused with {code!r}; known: {known}")
    return f"[{code}] {cancel_texts()[code]}"
