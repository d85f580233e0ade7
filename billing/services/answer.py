"""What one claim learnt, and what became of it: values between charging, asking and recording."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from billing.domain.finding import Finding
from billing.domain.outcome import Outcome

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MESSAGE_LENGTH = 500


class Result(StrEnum):
    """What became of one answer, for the tally of a task."""

    APPROVED = "approved"
    DECLINED = "declined"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
    ELSEWHERE = "paid_elsewhere"
    HELD = "held"
    TOO_LATE = "too_late"
    # The book could not be written in time; the lease runs out and the gateway is asked.
    UNRECORDED = "unrecorded"


@dataclass(frozen=True, slots=True)
class FactsChanged:
    """The seal over the facts is broken: this row must not be charged (docs/reliability.md, I3)."""


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The claim was not used: too little of the lease, or of the band, was left."""

    why: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one claim learnt: from the charge itself, or from a look-up before or after it."""

    attempt_id: int
    fence: int
    learnt: Outcome | Finding | FactsChanged | GivenBack
    # When the gateway was asked, for a look-up after an unknown outcome. "Nothing" proves what was
    # so then, however much later it is written down.
    asked_at: datetime | None = None


def clean(text: str) -> str:
    """Outside text fit for the book and for a terminal: bounded, no control or direction marks."""
    return _UNPRINTABLE.sub(" ", text)[:MESSAGE_LENGTH]
