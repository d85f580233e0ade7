"""The sandbox's mood: a checked faults document, and what it means for one request."""

from __future__ import annotations

import hashlib
import json
import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from billing.sandbox.carrier import CarrierRules, WindowReading
from billing.sandbox.faults import (
    OK,
    Fault,
    cancel_fault,
    charge_fault,
    lookup_fault,
    spell_fault,
    webhook_fault,
)


class FaultsError(ValueError):
    """A faults document that is wrong: every mistake with its place, one per line."""


def _word(parse: Callable[[str], Fault]) -> AfterValidator:
    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


ChargeWord = Annotated[str, _word(charge_fault)]
CancelWord = Annotated[str, _word(cancel_fault)]
LookupWord = Annotated[str, _word(lookup_fault)]
WebhookWord = Annotated[str, _word(webhook_fault)]
SpellWord = Annotated[str, _word(spell_fault)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Carrier(_Strict):
    """The rules of `carrier.CarrierRules`."""

    window: WindowReading = WindowReading.BOTH
    margin_days: Annotated[int, Field(ge=0, le=15)] = 5
    once_a_month: bool = True
    failures_per_day: NonNegativeInt = 3


# An hour: longer than any client waits.
_Milliseconds = Annotated[float, Field(ge=0, le=3_600_000)]
Milliseconds = _Milliseconds | tuple[_Milliseconds, _Milliseconds]


class Latency(_Strict):
    """Milliseconds before an answer: fixed, or drawn evenly between two."""

    charge: Milliseconds = 0
    lookup: Milliseconds = 0


class Chances(_Strict):
    """What happens to which share of the requests."""

    charge: dict[ChargeWord, Share] = {}
    lookup: dict[LookupWord, Share] = {}
    cancel: dict[CancelWord, Share] = {}
    webhook: dict[WebhookWord, Share] = {}

    @model_validator(mode="after")
    def _at_most_all(self) -> Chances:
        for shares in (self.charge, self.lookup, self.cancel, self.webhook):
            if sum(shares.values()) > 1:
                raise ValueError("the shares add up to more than 1")
        return self


class Script(_Strict):
    """What the n-th request of each customer of a pattern meets."""

    customers: str
    does: list[ChargeWord]


class Spell(_Strict):
    """What everybody meets from one moment until before another."""

    begins: AwareDatetime = Field(alias="from")
    until: AwareDatetime
    does: SpellWord


class Mood(_Strict):
    """A whole faults document; the default is a gateway in good health."""

    failed_merchant_uid: Literal["loose", "strict"] = "loose"
    test_mode: bool = False
    racy: bool = False
    lookup_lag_seconds: Annotated[float, Field(ge=0, le=86_400)] = 0
    code_style: Literal["bracket", "plain"] = "bracket"
    carrier: Carrier = Carrier()
    latency: Latency = Latency()
    chances: Chances = Chances()
    scripts: list[Script] = []
    spells: list[Spell] = []

    @cached_property
    def rules(self) -> CarrierRules:
        """The carrier's rules."""
        return CarrierRules(**self.carrier.model_dump())

    def fail_reason(self, code: str, text: str) -> str:
        """A refusal as PortOne passes it on."""
        return f"[{code}] {text}" if code and self.code_style == "bracket" else text

    def spell(self, now: float) -> Fault | None:
        """What everybody meets at this moment; None for nothing."""
        for one in self.spells:
            if one.begins.timestamp() <= now < one.until.timestamp():
                return spell_fault(one.does)
        return None

    def scripted(self, customer_uid: str, nth: int) -> Fault | None:
        """What the files' first script for this customer says about the `nth` request."""
        for one in self.scripts:
            if fnmatchcase(customer_uid, one.customers):
                return charge_fault(one.does[nth - 1]) if nth <= len(one.does) else None
        return None


def mood(document: Any) -> Mood:
    """A checked faults document. Raises `FaultsError`."""
    try:
        # From JSON, where a moment is text and a pair is a list.
        return Mood.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise FaultsError(told(error)) from None


def mood_from(path: Path) -> Mood:
    """The mood of a faults file. Raises `FaultsError`, naming the file."""
    try:
        text = path.read_text("utf-8-sig")
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return mood(document)
    except OSError as error:
        raise FaultsError(f"{path}: {error.strerror}. Give a TOML or JSON file") from None
    except ValueError as error:
        raise FaultsError(f"{path}: {error}") from None


def told(error: ValidationError) -> str:
    """What is wrong with a document, for people: one line for each mistake."""
    return "\n".join(
        f"{'.'.join(str(part) for part in one['loc'] if part != '[key]') or 'document'}: "
        f"{one['msg'].removeprefix('Value error, ')}"
        for one in error.errors(include_url=False)
    )


@dataclass(frozen=True, slots=True)
class Dice:
    """All chance of the sandbox, from one seed.

    Each request throws its own dice, named by what it is about, so that the same seed decides the
    same way however requests interleave, and goes on the same way after a restart.
    """

    seed: int

    def of(self, *names: object) -> random.Random:
        """Dice that depend on the seed and on these names only."""
        text = "/".join(str(name) for name in (self.seed, *names))
        return random.Random(hashlib.blake2b(text.encode(), digest_size=16).digest())  # noqa: S311 (repeatable on purpose)


def by_chance(shares: dict[str, float], dice: random.Random) -> str:
    """The word on which the dice fall; `ok` for the rest."""
    point = dice.random()
    for word, share in shares.items():
        point -= share
        if point < 0:
            return word
    return str(OK)


def seconds(latency: Milliseconds, dice: random.Random) -> float:
    """How long one answer takes, in seconds."""
    low, high = latency if isinstance(latency, tuple) else (latency, latency)
    return (low if low == high else dice.uniform(low, high)) / 1000
