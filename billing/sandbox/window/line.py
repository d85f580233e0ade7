"""What a customer types into the window: checked by form only, then thrown away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

CARRIERS = ("skt", "kt", "lgu", "skt_mvno", "kt_mvno", "lgu_mvno")
CONSENTS = ("monthly", "terms", "privacy", "third_party")

_NUMBER = re.compile(r"01[016789][0-9]{7,8}")
# The first digit behind the birth date: century and sex; foreigners have 5 to 8, 9 and 0 were
# given to those born before 1900.
_CENTURIES = {
    "1": 1900,
    "2": 1900,
    "3": 2000,
    "4": 2000,
    "5": 1900,
    "6": 1900,
    "7": 2000,
    "8": 2000,
}


def problems(form: Mapping[str, str]) -> dict[str, str]:
    """What is wrong, as field → name of a text; empty when all is well."""
    found: dict[str, str] = {}
    if form.get("carrier") not in CARRIERS:
        found["carrier"] = "carrier_missing"
    if not _NUMBER.fullmatch(digits(form.get("number", ""))):
        found["number"] = "number_wrong"
    if not _born(form.get("birth", ""), form.get("digit", "")):
        found["birth"] = "birth_wrong"
    if any(form.get(f"agree_{name}") != "on" for name in CONSENTS):
        found["consents"] = "consents_missing"
    return found


def digits(number: str) -> str:
    """A number without what people put between its digits."""
    return re.sub(r"[\s.-]", "", number)[:20]


def masked(number: str) -> str:
    """A number as the window shows it again: 010-****-5678."""
    kept = digits(number)
    return f"{kept[:3]}-****-{kept[-4:]}"


def _born(birth: str, digit: str) -> bool:
    century = _CENTURIES.get(digit)
    if century is None or not re.fullmatch("[0-9]{6}", birth):
        return False
    try:
        datetime.strptime(f"{century // 100}{birth}", "%Y%m%d")  # noqa: DTZ007 (a date only)
    except ValueError:
        return False
    return True
