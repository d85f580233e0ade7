"""Webhooks of the gateway: what it tells the merchant's server by itself (docs/gateway.md §7).

Unsigned, sent once, in no fixed order. Told are: paid (in the window and by key), a scheduled
attempt paid or failed, a cancellation in the console; one by the API only where it asks for it.
An ordinary refusal is told to nobody.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import httpx

from billing.sandbox.faults import webhook_fault
from billing.sandbox.model import Payment, Status
from billing.sandbox.mood import by_chance

if TYPE_CHECKING:
    from billing.sandbox.gateway import Sandbox

Format = Literal["json", "form"]

# The gateway's own patience (docs/gateway.md §7).
_PATIENCE = httpx.Timeout(30, connect=10)
# Between the two of a doubled webhook.
_ECHO_SECONDS = 0.2


class WebhookAddressError(ValueError):
    """An address that nothing can be sent to: names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the store's webhooks go, as set in the gateway's console; `url` "" for nowhere."""

    url: str = ""
    format: Format = "json"


def checked_url(url: str) -> str:
    """`url`, if something can be sent there; "" is nowhere. Raises `WebhookAddressError`."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if url and not good:
        raise WebhookAddressError(f"{url!r} is no address. Give http://… or https://…, or nothing")
    return url


class Webhooks:
    """Sends them beside the requests, each once its payment is on the disk."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.address = Address()
        self._sandbox = sandbox
        self._sending: set[asyncio.Task[None]] = set()

    def tell(self, payment: Payment) -> None:
        """Tell of a payment as it is now. Needs a running event loop, where there is an address."""
        url = payment.notice_url or self.address.url
        if not url:
            return
        task = asyncio.get_running_loop().create_task(self._told(url, payment))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def drained(self) -> None:
        """Return once all webhooks so far are sent, or lost."""
        while self._sending:
            await asyncio.gather(*self._sending)

    async def _told(self, url: str, payment: Payment) -> None:
        box = self._sandbox
        await box.ledger.committed()
        dice = box.dice.of("webhook", payment.imp_uid, payment.status)
        fault = webhook_fault(by_chance(box.mood.chances.webhook, dice))
        if fault.kind == "late":
            await box.sleep(fault.number)
        if fault.kind == "lost":
            self._log(payment, "lost", str(fault))
            return
        await self._sent(url, payment, "" if fault.kind == "ok" else str(fault))
        if fault.kind == "doubled":
            await box.sleep(_ECHO_SECONDS)
            await self._sent(url, payment, str(fault))

    async def _sent(self, url: str, payment: Payment, fault: str) -> None:
        body = _body(payment)
        try:
            # Our own environment's proxy is not the gateway's; plain http needs no certificates.
            async with httpx.AsyncClient(
                timeout=_PATIENCE, trust_env=False, verify=url.startswith("https:")
            ) as client:
                if self.address.format == "form":
                    answer = await client.post(url, data=body)
                else:
                    answer = await client.post(url, json=body)
            outcome = str(answer.status_code)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            outcome = f"not delivered: {type(error).__name__}"
        self._log(payment, outcome, fault)

    def _log(self, payment: Payment, outcome: str, fault: str) -> None:
        self._sandbox.saw(
            "webhook",
            f"{payment.status}:{outcome}",
            order=payment.merchant_uid,
            customer=payment.customer_uid,
            fault=fault,
        )


def _body(payment: Payment) -> dict[str, str]:
    body = {
        "imp_uid": payment.imp_uid,
        "merchant_uid": payment.merchant_uid,
        "status": payment.status.value,
    }
    if payment.status is Status.CANCELLED:
        body["cancellation_id"] = cancellation_id(payment)
    return body


def cancellation_id(payment: Payment) -> str:
    """The gateway's id of a cancellation."""
    return f"cancel_{payment.number:012d}"
