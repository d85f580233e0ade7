"""How much of an answer is read, and what its envelope may hold."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import pytest

from billing.portone.answer import LARGEST_ANSWER, Answer, Unreadable, envelope, read
from tests.unit.portone.ladder import wrapped

pytestmark = pytest.mark.anyio


async def answered(*chunks: bytes, **headers: str) -> Answer:
    async def given() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await read(200, named, given())


async def test_the_longest_answer_is_taken_and_no_byte_more() -> None:
    longest = b" " * LARGEST_ANSWER
    assert (await answered(longest[1:], b" ")).body == longest
    with pytest.raises(Unreadable, match="answer too long"):
        await answered(longest, b" ")


async def test_an_inflated_answer_has_the_same_limit() -> None:
    longest = b" " * LARGEST_ANSWER
    assert (await answered(gzip.compress(longest), content_encoding="gzip")).body == longest
    with pytest.raises(Unreadable, match="too long when inflated"):
        await answered(gzip.compress(longest + b" "), content_encoding="gzip")


@pytest.mark.parametrize("named", ["identity", " Identity ", ""])
async def test_a_body_that_is_called_unchanged_is_taken_as_it_is(named: str) -> None:
    assert (await answered(b"{}", content_encoding=named)).body == b"{}"


@pytest.mark.parametrize("message", [None, 7, ["no"], {"ko": "no"}, True])
def test_a_message_that_is_no_text_says_nothing(message: object) -> None:
    assert envelope(wrapped(None, 1, message)).message == ""
