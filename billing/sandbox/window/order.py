"""What `IMP.request_pay` asks for: read, and refused with words that help its developer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from billing.sandbox.charging import ALREADY_PAID, storable, won
from billing.sandbox.gateway import Sandbox

_LONGEST = {
    "customer_uid": 80,
    "merchant_uid": 40,
    "name": 40,
    "buyer_name": 16,
    "buyer_email": 64,
    "buyer_tel": 16,
}
# The window refuses less at once; the carrier says so of a charge (docs/gateway.md §10).
_MINIMUM_WON = 301
_PHONE_PG = "mobilians"

ALREADY = "F1002"
WRONG_CALL = "F0001"


class OrderRefused(ValueError):
    """No window is opened: `code` and the text, as the SDK's callback gets them."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Order:
    """One payment window's order; the terms are the billing key's from then on."""

    merchant_uid: str
    customer_uid: str = field(repr=False)
    amount: int
    name: str
    buyer_name: str = field(default="", repr=False)
    buyer_email: str = field(default="", repr=False)
    buyer_tel: str = field(default="", repr=False)
    custom_data: str = field(default="", repr=False)
    notice_url: str = field(default="", repr=False)
    redirect_url: str = field(default="", repr=False)
    """Where a phone goes afterwards."""


def read_order(sandbox: Sandbox, params: Mapping[str, object], *, phone: bool) -> Order:
    """The order, checked also against what the gateway knows. Raises `OrderRefused`."""
    _check_call(params, phone)
    text = {name: storable(params.get(name)) for name in _LONGEST}
    order = Order(
        **text,
        amount=won(params.get("amount")),
        custom_data=_custom(params.get("custom_data")),
        notice_url=_address(params, "notice_url"),
        redirect_url=_address(params, "m_redirect_url"),
    )
    _check_amount(sandbox, order)
    check_unpaid(sandbox, order)
    return order


def check_unpaid(sandbox: Sandbox, order: Order) -> None:
    """Raises `OrderRefused` for a merchant_uid that was ever paid (docs/gateway.md §3)."""
    if any(one.paid_at for one in sandbox.ledger.of_order(order.merchant_uid)):
        raise OrderRefused(ALREADY, ALREADY_PAID)


def _check_call(params: Mapping[str, object], phone: bool) -> None:
    for name in ("merchant_uid", "name", "customer_uid"):
        if not params.get(name):
            why = ": without it no billing key is made" if name == "customer_uid" else ""
            raise _wrong(f"{name} is missing{why}")
    if params.get("pay_method") != "phone":
        raise _wrong('pay_method must be "phone"; this sandbox knows nothing else')
    pg = str(params.get("pg") or _PHONE_PG)
    if not pg.startswith(_PHONE_PG):
        raise _wrong(f'pg must be "{_PHONE_PG}" or "{_PHONE_PG}.{{store id}}", not {pg[:40]!r}')
    for name, longest in _LONGEST.items():
        if len(str(params.get(name) or "")) > longest:
            raise _wrong(f"{name} has more than {longest} characters")
    if phone and not params.get("m_redirect_url"):
        raise _wrong("m_redirect_url is missing: a phone leaves your page and must find back")


def _check_amount(sandbox: Sandbox, order: Order) -> None:
    if order.amount < 0:
        raise _wrong("amount must be a whole number of won")
    if order.amount < _MINIMUM_WON:
        raise _wrong(f"amount must be at least {_MINIMUM_WON} won")
    prepared = sandbox.ledger.prepared.get(order.merchant_uid)
    if prepared is not None and prepared != order.amount:
        raise OrderRefused(
            "F0002", f"사전 등록된 금액({prepared:,}원)과 결제 금액({order.amount:,}원)이 다릅니다."
        )


def _custom(value: object) -> str:
    """Kept as text; the SDK takes objects, too."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _address(params: Mapping[str, object], name: str) -> str:
    url = params.get(name)
    # The real SDK takes a list of notice addresses; the first is as good as any here.
    url = url[0] if isinstance(url, list) and url else url
    if not url:
        return ""
    try:
        parts = urlsplit(str(url))
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise _wrong(f"{name} must be a whole address with http:// or https://")
    return str(url)


def _wrong(text: str) -> OrderRefused:
    return OrderRefused(WRONG_CALL, f"IMP.request_pay: {text}")
