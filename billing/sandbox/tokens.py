"""Access tokens as getToken hands them out (docs/gateway.md §2)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from billing.sandbox.reply import Reply, success, unauthorized

LIFETIME_SECONDS = 30 * 60
# Asked for in its last minute, a token lives five minutes longer instead of being replaced, so that
# many workers do not cut each other off.
LAST_SECONDS = 60
EXTENSION_SECONDS = 5 * 60


@dataclass(slots=True)
class _Token:
    value: str
    expires_at: int


class Tokens:
    """The live tokens, one for each API key. Without a fixed `imp_key` any pair is accepted."""

    def __init__(
        self,
        now: Callable[[], float],
        seed: int,
        imp_key: str | None = None,
        imp_secret: str | None = None,
    ) -> None:
        self._now = now
        self._seed = seed
        self._fixed = (imp_key, imp_secret)
        self._live: dict[str, _Token] = {}
        self._made = 0

    def get_token(self, asked: Mapping[str, object]) -> Reply:
        """Answer `POST /users/getToken`."""
        key, secret = str(asked.get("imp_key") or ""), str(asked.get("imp_secret") or "")
        if not self._accepts(key, secret):
            return unauthorized("인증에 실패하였습니다. API키와 secret을 확인하세요.")
        now = int(self._now())
        token = self._live.get(key)
        if token is None or token.expires_at <= now:
            token = self._live[key] = self._new(key, now)
        elif token.expires_at - now <= LAST_SECONDS:
            token.expires_at += EXTENSION_SECONDS
        return success(
            {"access_token": token.value, "now": now, "expired_at": token.expires_at},
        )

    def accepts(self, header: str | None) -> bool:
        """Whether an Authorization header, `Bearer TOKEN` or the bare token, is good now."""
        if not header:
            return False
        value = header.removeprefix("Bearer ").strip()
        now = self._now()
        return any(one.value == value and one.expires_at > now for one in self._live.values())

    def revoke(self) -> None:
        """End all tokens now."""
        self._live.clear()

    def _accepts(self, key: str, secret: str) -> bool:
        if not key or not secret:
            return False
        pairs = zip(self._fixed, (key, secret), strict=True)
        return all(
            fixed is None or hmac.compare_digest(fixed.encode(), given.encode())
            for fixed, given in pairs
        )

    def _new(self, key: str, now: int) -> _Token:
        self._made += 1
        name = f"{self._seed}/{self._made}/{now}/{key}"
        value = hashlib.blake2b(name.encode(), digest_size=20).hexdigest()
        return _Token(value, now + LIFETIME_SECONDS)
