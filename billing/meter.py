"""How long the gateway's answers take, counted by every process and added up in the broker.

The processes that call are many, on many hosts, and come and go; the one that Prometheus asks is
the HTTP edge. So each process counts in memory and adds what it has counted to one hash in Redis,
every few seconds and off the road of a charge: one round trip, no row of the book, no port of its
own. Like all that Redis holds it may be lost, and Prometheus takes that for what it is, a counter
that starts again. Docs/adr/0011-watching.md weighs it against an exporter in every worker.
"""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from billing.broker import CHARGES_QUEUE, TICKS_QUEUE, TOKEN_KEY, token_fetched_at

# Upper ends, in seconds, of the classes of durations.
SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
KINDS = ("charge", "cancel", "lookup", "prepare", "token", "other")
OUTCOMES = (
    *("2xx", "3xx", "4xx", "401", "404", "429", "5xx"),
    *("not_connected", "broken_off", "unreadable", "given_up"),
)
SHARE_EVERY_SECONDS = 5.0

_KEY = "maewol:gateway-calls"
# A sum is kept in whole microseconds: adding up fractions drifts.
_SUM = "us"
_PLACES = {_SUM, *(str(number) for number in range(len(SECONDS) + 1))}


@dataclass(slots=True)
class Calls:
    """Calls of one kind and outcome: how many in each class of duration (the last: longer than all
    others), and how long they took together."""

    classes: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    seconds: float = 0.0

    def add(self, others: Calls) -> None:
        self.classes = [
            mine + theirs for mine, theirs in zip(self.classes, others.classes, strict=True)
        ]
        self.seconds += others.seconds


class CallCounter:
    """Counts calls in this process until they are taken away; see `ports.CallMeter`."""

    def __init__(self) -> None:
        self._calls: defaultdict[tuple[str, str], Calls] = defaultdict(Calls)
        self._lock = threading.Lock()

    def note(self, call: str, outcome: str, seconds: float) -> None:
        with self._lock:
            calls = self._calls[call, outcome]
            calls.classes[bisect_left(SECONDS, seconds)] += 1
            calls.seconds += seconds

    def take(self) -> Mapping[tuple[str, str], Calls]:
        """What was counted since the last time."""
        with self._lock:
            taken, self._calls = self._calls, defaultdict(Calls)
            return taken

    def give_back(self, taken: Mapping[tuple[str, str], Calls]) -> None:
        """What could not be passed on."""
        with self._lock:
            for labels, calls in taken.items():
                self._calls[labels].add(calls)


class Shared:
    """What all processes share in the broker's server: the sums, and what else it can tell."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def add(self, counted: Mapping[tuple[str, str], Calls]) -> None:
        """Add to the sums. Raises `RedisError`, `OSError`."""
        with self._redis.pipeline(transaction=True) as pipe:
            for (call, outcome), calls in counted.items():
                for place, count in enumerate(calls.classes):
                    if count:
                        pipe.hincrby(_KEY, f"{call}:{outcome}:{place}", count)
                pipe.hincrby(_KEY, f"{call}:{outcome}:{_SUM}", round(calls.seconds * 1_000_000))
            pipe.execute()

    def calls(self) -> dict[tuple[str, str], Calls]:
        """The sums by call and outcome. Raises `RedisError`, `OSError`. What we did not write
        ourselves is passed over: names become labels."""
        found: dict[tuple[str, str], Calls] = {}
        kept: Any = self._redis.hgetall(_KEY)
        for name, count in kept.items():
            call, _, rest = name.decode(errors="replace").partition(":")
            outcome, _, place = rest.partition(":")
            if call in KINDS and outcome in OUTCOMES and place in _PLACES and count.isdigit():
                calls = found.setdefault((call, outcome), Calls())
                if place == _SUM:
                    calls.seconds = int(count) / 1_000_000
                else:
                    calls.classes[int(place)] = int(count)
        return found

    def token_fetched_at(self) -> datetime | None:
        """When the access token that all processes share was fetched; None where there is none.
        Raises `RedisError`, `OSError`."""
        kept = self._redis.get(TOKEN_KEY)
        return None if kept is None else token_fetched_at(kept)

    def waiting(self) -> dict[str, int]:
        """How many messages wait in each queue. Raises `RedisError`, `OSError`."""
        return {queue: self._redis.llen(queue) for queue in (CHARGES_QUEUE, TICKS_QUEUE)}


@contextlib.contextmanager
def sharing(
    counter: CallCounter, redis: Redis, every: float = SHARE_EVERY_SECONDS
) -> Iterator[None]:
    """Pass on what is counted, every so many seconds and at the end, from a thread of its own."""
    shared, over = Shared(redis), threading.Event()

    def share() -> None:
        if taken := counter.take():
            try:
                shared.add(taken)
            except (RedisError, OSError):
                counter.give_back(taken)

    def keep_sharing() -> None:
        while not over.wait(every):
            share()

    thread = threading.Thread(target=keep_sharing, name="meter", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        share()
        redis.close()
