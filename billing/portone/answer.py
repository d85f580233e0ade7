"""From bytes to a checked envelope: how much is read, and what counts as JSON.

PortOne wraps everything in `{"code": int, "message": str | null, "response": …}`.
Whatever is not that, is too long, or could be read in two ways is `Unreadable`; what an unreadable
answer means is for `wire` (a charge: unknown) and `client` (a look-up: not answered) to say.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

# A page of 100 payments is well below 300 KiB. More than this is not an answer but an attack or a
# fault, and 50 of them at once must still fit in memory.
LARGEST_ANSWER = 1 << 20

# zlib: any window, gzip or zlib header found by itself.
_EITHER_HEADER = 47


class Unreadable(Exception):
    """The gateway answered, but not with something that can be believed.

    The text says in which way, never what the answer held.
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole HTTP answer, inflated."""

    status: int
    body: bytes = field(repr=False)
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """PortOne's wrapping: `code` 0 is success, else `message` says what is wrong."""

    code: int
    message: str = field(repr=False)
    response: object = field(repr=False)


async def read(status: int, headers: Mapping[str, str], chunks: AsyncIterable[bytes]) -> Answer:
    """The whole answer. `headers` must not care about case. Raises `Unreadable` above the size
    limit or for an encoding we did not ask for, and what `chunks` raises when it breaks off."""
    raw = bytearray()
    async for chunk in chunks:
        raw += chunk
        if len(raw) > LARGEST_ANSWER:
            raise Unreadable("answer too long")
    body = _inflated(bytes(raw), headers.get("content-encoding", "").strip().lower())
    return Answer(status, body, headers.get("retry-after"))


def envelope(body: bytes) -> Envelope:
    """The body as an envelope. Raises `Unreadable`, and nothing else."""
    parsed = _parsed(body)
    if not isinstance(parsed, dict):
        raise Unreadable("not a JSON object")
    code, message = parsed.get("code"), parsed.get("message")
    # `True` is an int to Python, and a text "0" is not a code.
    if type(code) is not int:
        raise Unreadable("no code in the answer")
    return Envelope(code, message if isinstance(message, str) else "", parsed.get("response"))


def _inflated(raw: bytes, encoding: str) -> bytes:
    """We ask for none, but proxies compress unasked; one layer is taken, within the limit."""
    if encoding in ("", "identity"):
        return raw
    if encoding not in ("gzip", "deflate"):
        raise Unreadable("unasked content encoding")
    inflater = zlib.decompressobj(_EITHER_HEADER)
    try:
        body = inflater.decompress(raw, LARGEST_ANSWER + 1)
    except zlib.error:
        raise Unreadable("broken compression") from None
    if len(body) > LARGEST_ANSWER:
        raise Unreadable("answer too long when inflated")
    if not inflater.eof or inflater.unused_data:
        raise Unreadable("broken compression")
    return body


def _parsed(body: bytes) -> object:
    try:
        # Not `json.loads(bytes)`: that guesses UTF-16 and lets broken surrogates pass.
        return _DECODER.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Unreadable("not JSON") from None


def _each_key_once(pairs: list[tuple[str, object]]) -> Mapping[str, object]:
    # `{"status": "failed", "status": "paid"}` means one thing here and another elsewhere.
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Unreadable("a key twice in one object")
    return made


def _no_constant(_: str) -> NoReturn:
    raise Unreadable("NaN or Infinity in the answer")


_DECODER = json.JSONDecoder(object_pairs_hook=_each_key_once, parse_constant=_no_constant)
