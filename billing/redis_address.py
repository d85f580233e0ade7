"""Where the broker is and how it is reached: directly, over TLS, or by asking Sentinels.

One value for Celery's own connections and for ours, so that both verify the same certificate and
follow the same primary.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from redis import Redis, asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

_SENTINEL_PORT = 26379
# A question to Redis of ours is worth two seconds; without an answer we do without.
_PATIENCE: dict[str, Any] = {"socket_timeout": 2, "socket_connect_timeout": 2}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """`url` is one address, or several of Sentinels with semicolons between them; `master` is the
    name under which they know the primary. Over TLS the server's certificate must be signed by
    `ca_file`, or by an authority that this machine trusts, and name the host."""

    url: str = field(repr=False)
    master: str = "mymaster"
    sentinel_password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @property
    def by_sentinel(self) -> bool:
        return self.url.startswith("sentinel://")

    def tls(self) -> dict[str, Any]:
        """What redis-py, and so Celery, wants to know of TLS; empty without it."""
        if not self.url.startswith("rediss://"):
            return {}
        found: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
        if self.ca_file is not None:
            found["ssl_ca_certs"] = str(self.ca_file)
        return found

    def sentinel_options(self) -> dict[str, Any]:
        """What Celery wants to know of Sentinels; empty without them."""
        if not self.by_sentinel:
            return {}
        return {"master_name": self.master, "sentinel_kwargs": self._sentinel_kwargs()}

    def client(self) -> asyncio.Redis:
        """A client for one event loop. It tries once: whoever asks can do without the answer."""
        once: dict[str, Any] = {**_PATIENCE, "retry": AsyncRetry(NoBackoff(), 0)}
        if not self.by_sentinel:
            return asyncio.Redis.from_url(self.url, **once, **self.tls())
        known = AsyncSentinel(  # type: ignore[no-untyped-call]
            self._sentinels(), sentinel_kwargs=self._sentinel_kwargs()
        )
        found: asyncio.Redis = known.master_for(self.master, **self._login(), **once)
        return found

    def quick_client(self) -> Redis:
        """The same for any thread."""
        once: dict[str, Any] = {**_PATIENCE, "retry": Retry(NoBackoff(), 0)}
        if not self.by_sentinel:
            return Redis.from_url(self.url, **once, **self.tls())
        known = Sentinel(  # type: ignore[no-untyped-call]
            self._sentinels(), sentinel_kwargs=self._sentinel_kwargs()
        )
        found: Redis = known.master_for(  # type: ignore[no-untyped-call]
            self.master, **self._login(), **once
        )
        return found

    def _sentinels(self) -> list[tuple[str | None, int]]:
        parts = [urlsplit(url) for url in self.url.split(";")]
        return [(part.hostname, part.port or _SENTINEL_PORT) for part in parts]

    def _sentinel_kwargs(self) -> dict[str, Any]:
        return {**_PATIENCE, "password": self.sentinel_password}

    def _login(self) -> dict[str, Any]:
        """What the first address of Sentinels says of the servers behind them."""
        first = urlsplit(self.url.split(";")[0])
        return {
            "db": int(first.path.strip("/") or 0),
            "username": unquote(first.username) if first.username else None,
            "password": unquote(first.password) if first.password else None,
        }
