"""Listening to a process that a test has started."""

from __future__ import annotations

from typing import IO


def until(stream: IO[str] | None, words: str) -> str:
    """All that it says until these words are in it; fails where it ends without them."""
    assert stream is not None, "it was not given a pipe to speak into"
    told = ""
    while words not in told:
        line = stream.readline()
        assert line, told
        told += line
    return told
