"""The only code that speaks to the merchant's own system: signed requests, by Standard Webhooks.

A request is `POST NOTICE_URL` with `webhook-id`, `webhook-timestamp` and `webhook-signature`. The
receiver is outside: no redirect is followed, next to nothing of its answer is read, and what is
told of it names neither the address nor what it said.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
from standardwebhooks import Webhook

from billing.domain.delivery import Delivery, Unreachable, meaning
from billing.domain.notice import Outgoing

# A receiver should take the notice, answer, and work on it afterwards.
DEADLINE_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
# An answer that is read to its end keeps its connection; a longer one is cut off.
_MOST_READ = 16 * 1024
_MOST_CONNECTIONS = 20


class HttpNotifier:
    """See `ports.Notifier`. Lives in one event loop."""

    def __init__(
        self,
        url: str,
        secrets: Sequence[bytes],
        *,
        now: Callable[[], datetime],
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """`secrets`: the one in use first; while they are changed, each signs."""
        self._url = url
        self._signers = [Webhook(secret) for secret in secrets]
        self._now = now
        self._deadline = deadline_seconds
        self._client = httpx.AsyncClient(
            # An authority of the merchant's own is named by SSL_CERT_FILE; nothing else of the
            # environment counts.
            verify=httpx.create_ssl_context(trust_env=True),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(deadline_seconds, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=_MOST_CONNECTIONS),
        )

    async def send(self, notice: Outgoing) -> Delivery:
        answer: Delivery | None = None
        try:
            async with (
                asyncio.timeout(self._deadline),
                self._client.stream(
                    "POST", self._url, content=notice.body, headers=self._headers(notice)
                ) as response,
            ):
                answer = meaning(response.status_code, _retry_after(response, self._now()))
                await _skim(response)
        except TimeoutError:
            return answer or Unreachable(f"no answer within {self._deadline:g} s")
        except (httpx.TransportError, httpx.InvalidURL) as error:
            return answer or Unreachable(_what(error))
        return answer

    async def aclose(self) -> None:
        await self._client.aclose()

    def _headers(self, notice: Outgoing) -> dict[str, str]:
        now = self._now()
        text = notice.body.decode()
        signatures = [signer.sign(notice.webhook_id, now, text) for signer in self._signers]
        return {
            "content-type": "application/json",
            "user-agent": "maewol",
            "webhook-id": notice.webhook_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


async def _skim(response: httpx.Response) -> None:
    """Read a short answer to its end, so that the connection can be used again."""
    read = 0
    # The answer is known by now; how its rest ends does not matter.
    with contextlib.suppress(httpx.TransportError):
        async for chunk in response.aiter_raw():
            read += len(chunk)
            if read > _MOST_READ:
                return


def _retry_after(response: httpx.Response, now: datetime) -> timedelta | None:
    """What `Retry-After` asks for: seconds, or a moment. None for nonsense."""
    asked = response.headers.get("retry-after", "").strip()
    if asked.isascii() and asked.isdigit():
        # The domain bounds it; here it only has to fit into a timedelta.
        return timedelta(seconds=int(asked[:9]))
    try:
        moment = parsedate_to_datetime(asked)
    except (TypeError, ValueError, OverflowError):
        # (The last for a year or an offset of twenty digits.)
        return None
    return max((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now, timedelta(0))


def _what(error: Exception) -> str:
    """What went wrong on the way, by the name of its kind: texts may hold the address."""
    match error:
        case httpx.ConnectTimeout():
            return "could not be connected to in time"
        case httpx.ConnectError() if "CERTIFICATE" in str(error).upper():
            return "its certificate is not valid"
        case httpx.ConnectError():
            return "could not be connected to"
        case httpx.TimeoutException():
            return "no answer in time"
        case _:
            return f"the connection broke ({type(error).__name__})"
