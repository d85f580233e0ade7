"""What may come in as a subscription: one row of text fields → `NewSubscription`, or a clear no.

The limits are the gateway's (docs/gateway.md §3). Numbers and moments are read strictly:
Python's own readers take full-width digits, underscores and week dates, a merchant's file does not
mean them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from billing.domain.calendar import day_of
from billing.domain.errors import InvalidInput
from billing.domain.money import MINIMUM_CHARGE, Won
from billing.domain.subscription import Facts, NewSubscription

REQUIRED = ("customer_uid", "amount", "order_name", "initial_paid_at")
OPTIONAL = (
    "initial_merchant_uid",
    "initial_imp_uid",
    "last_paid_on",
    "buyer_name",
    "buyer_email",
    "buyer_tel",
    "reference",
)
COLUMNS = (*REQUIRED, *OPTIONAL)
PRIVATE = frozenset({"buyer_name", "buyer_email", "buyer_tel"})

LENGTHS = {
    "customer_uid": 80,
    "order_name": 40,
    "initial_merchant_uid": 40,
    "initial_imp_uid": 64,
    "buyer_name": 16,
    "buyer_email": 64,
    "buyer_tel": 16,
    "reference": 200,
}
_DIGITS = re.compile(r"[0-9]{1,12}")
_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?"
)
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# A cell that a spreadsheet would run. No initial payment carries such a text.
_FORMULA = re.compile(r"[=+@\-\uff1d\uff0b\uff20\uff0d]")
_TELEPHONE = re.compile(r"\+?[0-9-]+")
# PortOne (then I'mport) has taken payments since 2014; an older moment is a slip of the pen.
_OLDEST = datetime(2010, 1, 1, tzinfo=UTC)


def new_subscription(row: Mapping[str, str], now: datetime, zone: ZoneInfo) -> NewSubscription:
    """Read one row. Raises `InvalidInput` with field, value, problem and remedy."""
    initial_paid_at = _paid_at(row["initial_paid_at"], now)
    return NewSubscription(
        facts=Facts(
            customer_uid=text_field(row, "customer_uid") or _missing("customer_uid"),
            amount=_amount(row["amount"]),
            order_name=text_field(row, "order_name") or _missing("order_name"),
            initial_paid_at=initial_paid_at,
            buyer_name=text_field(row, "buyer_name"),
            buyer_email=text_field(row, "buyer_email"),
            buyer_tel=_telephone(row),
        ),
        initial_merchant_uid=_identifier(row, "initial_merchant_uid"),
        initial_imp_uid=_identifier(row, "initial_imp_uid"),
        last_paid_on=_last_paid_on(row.get("last_paid_on", ""), initial_paid_at, now, zone),
        reference=text_field(row, "reference"),
    )


@dataclass(frozen=True, slots=True)
class Misfit:
    """Which field of a subscription the gateway contradicts, and how."""

    field: str
    problem: str

    def __str__(self) -> str:
        return self.problem


def shown(field: str, value: str) -> str:
    """A value as a report may show it: people's data never, the rest bounded and printable."""
    if field in PRIVATE:
        return "[hidden]" if value else ""
    return UNPRINTABLE.sub("?", value)[:80]


def _missing(field: str) -> str:
    raise InvalidInput(field, "", "is empty", "Every subscription needs one")


def text_field(row: Mapping[str, str], field: str) -> str | None:
    """One text of a row, None where it is empty. Raises `InvalidInput`."""
    value = row.get(field, "")
    if not value:
        return None
    problem = None
    if value != value.strip():
        problem = "begins or ends with a space"
    elif UNPRINTABLE.search(value):
        problem = "holds a control character"
    elif len(value) > LENGTHS[field]:
        problem = f"is {len(value)} characters long, at most {LENGTHS[field]} are allowed"
    elif _FORMULA.match(value) and field != "buyer_tel":
        problem = "begins like a spreadsheet formula"
    elif value in (".", ".."):
        # Neither can be part of an address, so the gateway could never be asked about it.
        problem = "is no name"
    if problem is not None:
        raise InvalidInput(field, shown(field, value), problem, "Correct the cell")
    return value


def _telephone(row: Mapping[str, str]) -> str | None:
    value = text_field(row, "buyer_tel")
    if value is not None and _TELEPHONE.fullmatch(value) is None:
        raise InvalidInput(
            "buyer_tel", "[hidden]", "is not a telephone number", "Use digits and dashes"
        )
    return value


def _identifier(row: Mapping[str, str], field: str) -> str | None:
    value = text_field(row, field)
    if value is not None and _NAME.fullmatch(value) is None:
        raise InvalidInput(field, value, "is not an identifier", "Copy it from the payment")
    return value


def identifier_or_nothing(field: str, value: str) -> str:
    """An id as a row may hold it; empty for one that a row cannot: the gateway takes other names of
    orders, too."""
    try:
        return _identifier({field: value}, field) or ""
    except InvalidInput:
        return ""


def _amount(value: str) -> Won:
    if _DIGITS.fullmatch(value) is None:
        problem = "is not a whole number of won in plain digits" if value else "is empty"
        raise InvalidInput("amount", shown("amount", value), problem, "Write e.g. 9900")
    if int(value) < MINIMUM_CHARGE:
        raise InvalidInput(
            "amount", value, f"is below {MINIMUM_CHARGE}", "The carrier takes no smaller payment"
        )
    return Won(int(value))


def _paid_at(value: str, now: datetime) -> datetime:
    field, remedy = "initial_paid_at", "Write e.g. 2026-10-20T14:30:00+09:00"
    match = _MOMENT.fullmatch(value)
    if match is None:
        problem = "is not a moment" if value else "is empty"
        raise InvalidInput(field, shown(field, value), problem, remedy)
    if match[3] is None:
        raise InvalidInput(field, value, "has no offset from UTC", remedy)
    try:
        moment = datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(field, value, "is not a moment that exists", remedy) from None
    if moment > now:
        raise InvalidInput(field, value, "lies in the future", "It is when the customer paid")
    if moment < _OLDEST:
        raise InvalidInput(field, value, "lies before 2010", remedy)
    return moment


def _last_paid_on(
    value: str, initial_paid_at: datetime, now: datetime, zone: ZoneInfo
) -> date | None:
    if not value:
        return None
    field = "last_paid_on"
    try:
        day = date.fromisoformat(value) if _DATE.fullmatch(value) else None
    except ValueError:
        day = None
    if day is None:
        raise InvalidInput(field, shown(field, value), "is not a date", "Write e.g. 2026-10-20")
    if day < day_of(initial_paid_at, zone):
        raise InvalidInput(field, value, "lies before the initial payment", "Correct one of them")
    if day > day_of(now, zone):
        raise InvalidInput(field, value, "lies in the future", "It is when the customer last paid")
    return day
