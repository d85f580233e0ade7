"""What each request to the gateway took and how it ended, noted for whoever watches (`meter`).

The wire's truth and nothing more: an answer with status 200 may hold anything, and what an answer
means for a charge is counted in the event log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx

from billing import trail
from billing.portone.answer import Answer, Unreadable
from billing.portone.transport import Transport
from billing.ports import CallMeter

# By the end of the address; every other request is a look-up.
Kinds = Mapping[str, str]

# An answer of its own: a look-up that found nothing, a token that has ended, "slow down".
_OUTCOMES = {200: "2xx", 401: "401", 404: "404", 429: "429"}


class MeasuredTransport:
    """A `Transport` around another one. Notes neither addresses nor bodies."""

    def __init__(
        self, inner: Transport, kinds: Kinds, meter: CallMeter, monotonic: Callable[[], float]
    ) -> None:
        self._inner = inner
        self._kinds = kinds
        self._meter = meter
        self._monotonic = monotonic

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        call = "lookup" if method == "GET" else self._kind(url)
        # Whatever is not told apart below: our deadline, or a process that is asked to end.
        outcome = "given_up"
        started = self._monotonic()
        try:
            with trail.span("gateway", call=call) as span:
                answer = await self._inner.send(method, url, headers, body)
                if span is not None:
                    span.set_attribute("http.response.status_code", answer.status)
            outcome = _OUTCOMES.get(answer.status) or f"{answer.status // 100}xx"
            return answer
        except (httpx.ConnectError, httpx.ConnectTimeout):
            outcome = "not_connected"
            raise
        except httpx.TransportError:
            outcome = "broken_off"
            raise
        except Unreadable:
            outcome = "unreadable"
            raise
        finally:
            self._meter.note(call, outcome, self._monotonic() - started)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _kind(self, url: str) -> str:
        for end, kind in self._kinds.items():
            if url.endswith(end):
                return kind
        return "other"
