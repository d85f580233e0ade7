"""What goes wrong in one run: each kind of fault is on or off by the seed, at a rate of its own.

A run with every fault at once hides what only a few together would show; so each kind is on with a
chance of a half, and its rate is drawn evenly on a logarithmic scale (swarm testing).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from billing.sandbox.texts import cancel_texts

# Kind → the lowest and highest rate: a share of the moments at which it could happen, or for those
# that end in `_a_month`, how often it comes in a month.
KINDS: Final[Mapping[str, tuple[float, float]]] = {
    # A process dies (kill -9), or stands still for longer than a lease and goes on.
    "kill_before_commit": (0.0005, 0.03),
    "kill_after_commit": (0.0005, 0.03),
    "kill_before_request": (0.0005, 0.05),
    "kill_after_request": (0.0005, 0.05),
    "kill_after_answer": (0.0005, 0.05),
    "stop_before_look": (0.0005, 0.05),
    "stop_until_sent_again": (0.0005, 0.03),
    "stop_before_send": (0.0005, 0.02),
    "stop_after_refusal": (0.01, 0.5),
    # The database: a commit whose answer is lost, one that fails, one that lost to another.
    "commit_lost_done": (0.0005, 0.05),
    "commit_lost_undone": (0.0005, 0.05),
    "deadlock": (0.0005, 0.1),
    "database_down_a_month": (0.2, 4),
    "database_down_after_answer": (0.001, 0.05),
    # The broker: a hint that is lost, doubled, late, very old; all of it gone.
    "message_lost": (0.001, 0.5),
    "message_doubled": (0.001, 0.5),
    "message_late": (0.001, 0.3),
    "broker_down_a_month": (0.2, 4),
    "broker_flushed_a_month": (0.5, 8),
    # Beat and ticks.
    "tick_missed": (0.01, 0.5),
    "tick_doubled": (0.01, 0.5),
    "idle_tick": (0.01, 0.3),
    "ticks_down_a_month": (0.2, 2),
    # The way to the gateway.
    "not_connected": (0.001, 0.2),
    "slow_way": (0.001, 0.3),
    "answer_lost": (0.001, 0.2),
    "token_revoked": (0.001, 0.1),
    "lookups_down_a_month": (0.2, 4),
    # The gateway.
    "gateway_charge_faults": (0.005, 0.4),
    "gateway_lookup_faults": (0.005, 0.4),
    "gateway_down_a_month": (0.2, 4),
    "lookup_lag": (0.05, 1),
    "late_paid": (0.002, 0.1),
    "failed_row_after": (0.05, 1),
    "operator_declines": (0.02, 0.6),
    # Clocks.
    "clock_drift": (0.1, 1),
    "clock_step_a_month": (0.2, 3),
    # Everything of ours is down.
    "outage_a_month": (0.1, 0.7),
    # People.
    "hand_payment_a_month": (0.5, 6),
    "second_charger_a_month": (0.3, 3),
    "pause_a_month": (0.3, 4),
    "cancel_a_month": (0.1, 1),
    "payment_cancelled_a_month": (0.1, 1),
    "key_deleted_a_month": (0.05, 0.5),
    "refund_a_month": (0.2, 3),
    # What the gateway tells by itself, and what others tell in its name.
    "webhook_lost": (0.01, 0.7),
    "webhook_doubled": (0.01, 0.5),
    "webhook_late": (0.01, 0.5),
    "webhook_forged_a_month": (0.5, 20),
    "gateway_cancel_faults": (0.05, 0.7),
    "refunds_refused": (0.1, 0.3),
    # The book is restored from a copy, and has forgotten all that was since.
    "book_set_back_a_month": (0.05, 0.7),
    # A row is edited behind our back.
    "row_edited_a_month": (0.1, 1),
}


@dataclass(frozen=True, slots=True)
class Swarm:
    """The rates of one run; a kind that is off is not in it."""

    rates: Mapping[str, float]

    def rate(self, kind: str) -> float:
        """The rate of a kind, 0 when it is off."""
        return self.rates.get(kind, 0.0)

    def without(self, kinds: frozenset[str]) -> Swarm:
        """The same with some kinds off."""
        return Swarm({kind: rate for kind, rate in self.rates.items() if kind not in kinds})


NOTHING: Final = Swarm({})


def drawn(dice: random.Random, harshness: float = 1.0) -> Swarm:
    """What a seed makes go wrong. `harshness` scales every rate."""
    rates: dict[str, float] = {}
    for kind, (low, high) in KINDS.items():
        # Drawn for every kind, so that leaving one out changes no other.
        on, rate = dice.random() < 0.5, math.exp(dice.uniform(math.log(low), math.log(high)))
        if on:
            rates[kind] = rate * harshness if kind.endswith("_a_month") else min(rate, 1.0)
    return Swarm(rates)


def mood_of(swarm: Swarm, dice: random.Random) -> dict[str, Any]:
    """The faults document of the sandbox for a swarm: its personality, and what it gets wrong."""
    words = list(_CHARGE_WORDS)
    dice.shuffle(words)
    some = sorted(words[: dice.randint(2, 8)])
    charge = _shares(some, swarm.rate("gateway_charge_faults"))
    if late := swarm.rate("late_paid"):
        charge[f"late_paid:{dice.choice((30, 600, 20_000, 200_000))}"] = late
    if operator := swarm.rate("operator_declines"):
        charge["declined:F"] = operator
    cancel = _shares(list(_CANCEL_WORDS), swarm.rate("gateway_cancel_faults"))
    if refused := swarm.rate("refunds_refused"):
        cancel[f"refused:{dice.choice(list(cancel_texts()))}"] = refused
    looks = sorted(dice.sample(_LOOKUP_WORDS, dice.randint(2, 5)))
    lag = dice.choice((2, 10, 14)) if swarm.rate("lookup_lag") else 0
    return {
        "failed_merchant_uid": dice.choice(("loose", "strict")),
        "code_style": dice.choice(("bracket", "plain")),
        "lookup_lag_seconds": lag,
        "latency": {"charge": [20, dice.choice((80, 2_000, 15_000))], "lookup": [5, 40]},
        "chances": {
            "charge": charge,
            "lookup": _shares(looks, swarm.rate("gateway_lookup_faults")),
            "cancel": cancel,
        },
    }


def _shares(words: list[str], rate: float) -> dict[str, float]:
    return {word: rate / len(words) for word in words} if rate else {}


_CHARGE_WORDS: Final = (
    "timeout_before_charge",
    "timeout_after_charge",
    "reset_before_charge",
    "reset_after_charge",
    "http_before_charge:502",
    "http_after_charge:503",
    "http_after_charge:500",
    "html_before_charge",
    "html_after_charge",
    "cut_json_after_charge",
    "cut_body_after_charge",
    "unauthorized",
    "too_many:30",
    "wrong_amount",
    "wrong_merchant_uid",
    "wrong_customer_uid",
    "ready",
    "declined:A",
    "declined:B",
    "declined:C",
    "declined:D",
    "slow:20000",
)
_CANCEL_WORDS: Final = (
    "timeout_before_cancel",
    "timeout_after_cancel",
    "reset_before_cancel",
    "reset_after_cancel",
    "http_before_cancel:502",
    "http_after_cancel:503",
    "html_after_cancel",
    "cut_json_after_cancel",
    "unauthorized",
    "too_many:30",
)
_LOOKUP_WORDS: Final = (
    "timeout",
    "reset",
    "http:503",
    "http:500",
    "html",
    "cut_json",
    "cut_body",
    "unauthorized",
    "too_many:5",
    "slow:15000",
)
