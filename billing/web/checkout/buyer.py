"""What the form asks of a buyer. It goes to the gateway by the payment window, and is not kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from billing.domain.enrolment import text_field
from billing.domain.errors import InvalidInput

FIELDS = ("buyer_name", "buyer_email", "buyer_tel")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_TEL = re.compile(r"\+?[0-9][0-9 -]{7,14}")


@dataclass(frozen=True, slots=True)
class CheckoutBuyer:
    """Texts that the carrier compares every month, as the customer wrote them."""

    name: str = field(repr=False)
    email: str = field(repr=False)
    tel: str = field(repr=False)


def problems(form: Mapping[str, str]) -> list[str]:
    """The fields that are wrong, in the order of the form."""
    return [name for name in FIELDS if not _good(name, form.get(name, "").strip())]


def read(form: Mapping[str, str]) -> CheckoutBuyer:
    """A form without problems."""
    return CheckoutBuyer(*(form[name].strip() for name in FIELDS))


def _good(name: str, value: str) -> bool:
    try:
        kept = text_field({name: value}, name)
    except InvalidInput:
        return False
    match name:
        case "buyer_email":
            return bool(_EMAIL.fullmatch(value))
        case "buyer_tel":
            return bool(_TEL.fullmatch(value))
    return bool(kept)
