"""The demo's way to the sandbox beside the merchant's: its control endpoints, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx

# One page of the ledger; the control endpoint gives no more.
_ROWS = 1000
# For a machine that is busy with everything else.
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Till:
    """A sandbox that runs at `url`."""

    url: str

    def set_clock(self, moment: datetime) -> timedelta:
        """Make `moment` the gateway's present; how far it is then from this host's clock."""
        return _offset(self._ask("POST", "clock", {"set": moment.isoformat()}))

    def clock_offset(self, client: httpx.Client) -> timedelta:
        """How far the gateway's clock is from this host's now. Raises `httpx.HTTPError`."""
        return _offset(client.get(f"{self.url}/sandbox/clock").raise_for_status().json())

    def register(self, customers: Sequence[Mapping[str, object]]) -> None:
        """Make billing keys known, with what was paid before."""
        self._ask("POST", "customers", list(customers))

    def pay_by_hand(self, customer_uid: str) -> None:
        """A payment with a billing key by somebody else than the biller."""
        self._ask("POST", "pay", {"customer_uid": customer_uid})

    def payments(self) -> Sequence[Mapping[str, Any]]:
        """The whole ledger."""
        return self._all("ledger", "payments")

    def charges(self) -> Sequence[Mapping[str, Any]]:
        """Every request for a charge that arrived."""
        return self._all("requests?kind=again", "requests")

    def complaints(self) -> Sequence[str]:
        """What the sandbox's verdict holds against the biller."""
        problems = self._ask("GET", "verdict")["problems"]
        return [
            f"{one['rule']}: {one['customer_uid']} {one['merchant_uid']} {one['what']}"
            for one in problems
        ]

    def _all(self, path: str, name: str) -> Sequence[Mapping[str, Any]]:
        rows: list[Mapping[str, Any]] = []
        after: int | None = 0
        while after is not None:
            joint = "&" if "?" in path else "?"
            page = self._ask("GET", f"{path}{joint}limit={_ROWS}&after={after}")
            rows, after = rows + page[name], page["next"]
        return rows

    def _ask(self, method: str, what: str, document: object = None) -> Any:
        answer = httpx.request(
            method,
            f"{self.url}/sandbox/{what}",
            json=document,
            timeout=_PATIENCE_SECONDS,
            trust_env=False,
        )
        answer.raise_for_status()
        return answer.json()


def _offset(told: Mapping[str, Any]) -> timedelta:
    return timedelta(seconds=told["offset_seconds"])
