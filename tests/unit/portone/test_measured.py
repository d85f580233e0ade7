"""Every request is noted once: its kind, how it ended, how long it took."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx
import pytest

from billing.meter import KINDS, OUTCOMES
from billing.portone.answer import Answer, Unreadable
from billing.portone.client import _KINDS
from billing.portone.measured import MeasuredTransport

HOST = "https://gateway.example"


class Carrier:
    def __init__(self, ends: Answer | BaseException, clock: list[float]) -> None:
        self._ends = ends
        self._clock = clock

    async def send(self, *_: object) -> Answer:
        self._clock[0] += 0.25
        if isinstance(self._ends, BaseException):
            raise self._ends
        return self._ends

    async def aclose(self) -> None:
        self._clock[0] = -1


class Notes:
    def __init__(self) -> None:
        self.taken: list[tuple[str, str, float]] = []

    def note(self, call: str, outcome: str, seconds: float) -> None:
        self.taken.append((call, outcome, seconds))


def noted(
    ends: Answer | BaseException, method: str = "POST", path: str = "/subscribe/payments/again"
) -> tuple[str, str, float]:
    notes, clock = Notes(), [100.0]
    headers: Mapping[str, str] = {}
    measured = MeasuredTransport(Carrier(ends, clock), _KINDS, notes, lambda: clock[0])
    sending = measured.send(method, HOST + path, headers, None)
    if isinstance(ends, BaseException):
        with pytest.raises(type(ends)):
            asyncio.run(sending)
    else:
        assert asyncio.run(sending) is ends
    asyncio.run(measured.aclose())
    assert clock == [-1]
    (one,) = notes.taken
    return one


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [
        (Answer(200, b""), "2xx"),
        (Answer(302, b""), "3xx"),
        (Answer(400, b""), "4xx"),
        (Answer(401, b""), "401"),
        (Answer(404, b""), "404"),
        (Answer(429, b""), "429"),
        (Answer(503, b""), "5xx"),
        (httpx.ConnectError("x"), "not_connected"),
        (httpx.ConnectTimeout("x"), "not_connected"),
        (httpx.ReadError("x"), "broken_off"),
        (httpx.ReadTimeout("x"), "broken_off"),
        (Unreadable("x"), "unreadable"),
        (asyncio.CancelledError(), "given_up"),
    ],
)
def test_outcomes(ends: Answer | BaseException, outcome: str) -> None:
    assert noted(ends) == ("charge", outcome, 0.25)
    assert outcome in OUTCOMES


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/subscribe/payments/again", "charge"),
        ("POST", "/payments/cancel", "cancel"),
        ("POST", "/payments/prepare", "prepare"),
        ("POST", "/users/getToken", "token"),
        ("POST", "/something/else", "other"),
        ("GET", "/payments/findAll/mw-1/?limit=100", "lookup"),
        ("GET", "/payments/prepare/mw-1", "lookup"),
    ],
)
def test_kinds(method: str, path: str, kind: str) -> None:
    assert noted(Answer(200, b""), method, path)[0] == kind
    assert kind in KINDS
