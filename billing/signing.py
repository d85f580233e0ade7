"""Where notices go and what signs them: `NOTICE_URL` and `NOTICE_SECRET`, checked."""

from __future__ import annotations

import base64
from urllib.parse import urlsplit

from billing.domain.errors import InvalidSetting

MAKE_ONE = 'Make one: echo "whsec_$(openssl rand -base64 32)"'
# How a secret of Standard Webhooks begins, and how many bytes may follow.
_MARK = "whsec_"
_LENGTHS = range(24, 65)
# The new one and the old one, while they are changed.
_MOST_KEYS = 2


def check_receiver(url: str) -> str:
    """The address that receives notices. Raises `InvalidSetting` for one that is not `https`, but
    for this machine, or that holds a password."""
    try:
        parts = urlsplit(url)
        port, user = parts.port, parts.username or parts.password
    except ValueError:
        raise InvalidSetting("NOTICE_URL", url, "not an address", "Use https://host/path") from None
    if user is not None:
        raise InvalidSetting(
            "NOTICE_URL",
            "********",
            "holds a user or password, which `doctor` would print",
            "Leave it out: the signature says who sends",
        )
    loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    secured = parts.scheme == "https" or (parts.scheme == "http" and loopback)
    # Spaces and control characters are read in more than one way.
    plain = url.isprintable() and " " not in url
    if not parts.hostname or not secured or port == 0 or not plain:
        raise InvalidSetting(
            "NOTICE_URL",
            url,
            "not an https address",
            "Use https://…; plain http is for a receiver on this machine only",
        )
    return url


def signing_keys(secret: str) -> list[bytes]:
    """The keys in `NOTICE_SECRET`, the one in use first. Raises `InvalidSetting`.

    `whsec_` and base64 (Standard Webhooks) stands for the bytes behind it; any other text of at
    least 24 bytes is the key as it stands.
    """
    texts = secret.split()
    if not 1 <= len(texts) <= _MOST_KEYS:
        raise _wrong("not one secret, or two with a space between while it is changed")
    return [_key(text) for text in texts]


def _key(text: str) -> bytes:
    if not text.startswith(_MARK):
        key = text.encode()
        if len(key) < _LENGTHS.start:
            raise _wrong(f"a secret of less than {_LENGTHS.start} bytes (a space ends a secret)")
        return key
    try:
        key = base64.b64decode(text.removeprefix(_MARK), validate=True)
    except ValueError:
        raise _wrong(f"not base64 behind {_MARK}") from None
    if len(key) not in _LENGTHS:
        raise _wrong(f"not {_LENGTHS.start} to {_LENGTHS.stop - 1} bytes behind {_MARK}")
    return key


def _wrong(problem: str) -> InvalidSetting:
    return InvalidSetting("NOTICE_SECRET", "********", problem, MAKE_ONE)
