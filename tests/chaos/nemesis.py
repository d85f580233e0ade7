"""The nemesis: what is done to the processes, one thing after the other, decided by the seed.

Each blow is written down with its moment and with those it hits, so that the way back can be timed.
"""

from __future__ import annotations

import base64
import json
import pickle
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

import psycopg
import redis

from tests.chaos.programs import Programs
from tests.chaos.servers import Servers
from tests.chaos.world import GRACE_SECONDS, LEASE_SECONDS, SETTLE_SECONDS, World

# Longer than a lease and what follows it: the charge has gone to somebody else meanwhile.
PAUSE_SECONDS = LEASE_SECONDS + SETTLE_SECONDS + 4
FULL_DISK_SECONDS = 5

# Anything may stand in the queue. Left alone, Celery's worker ends on most of these.
GARBAGE: Sequence[bytes] = (
    b"not json",
    b"17",
    b"[1, 2, 3]",
    b"null",
    b'"text"',
    b"{}",
    b"\x00\xff\xfe",
    b'{"body": "!!! not base64", "properties": {}}',
    b'{"body": "e30=", "headers": 7, "properties": {"delivery_info": {}, "delivery_tag": "x"}}',
)


@dataclass(slots=True)
class Blow:
    """One thing that was done: what, to whom, when; over at `over`."""

    kind: str
    target: str
    at: float
    hit: list[str] = field(default_factory=list)
    over: float = 0.0
    is_kill: bool = False


class Nemesis:
    """Strikes `world` until so many processes were killed."""

    def __init__(self, world: World, seed: int, *, long_blows: bool) -> None:
        self._servers: Servers = world.servers
        self._programs: Programs = world.programs
        self._world = world
        self._dice = random.Random(f"nemesis {seed}")
        self._deeds: list[threading.Thread] = []
        self._paused: set[str] = set()
        self._kept: list[bytes] = []
        self.blows: list[Blow] = []
        self.complaints: list[str] = []
        self.skipped: dict[str, str] = {}
        self._kills = self._deck(
            {
                "kill charges": 6,
                "kill ticks": 3,
                "kill beat": 2,
                "kill gateway": 3,
                "kill valkey": 2,
                "kill postmaster": 2,
                "kill session": 2,
            }
        )
        others = {
            "terminate": 4,
            "flushall": 1,
            "empty valkey": 1,
            "postgres fast": 1,
            "postgres immediate": 1,
            "end sessions": 2,
            "cut subscriptions": 1,
            "cut connections": 1,
            "garbage": 2,
            "copied message": 2,
            "old message": 1,
        }
        if long_blows:
            others |= {
                "pause": 3,
                "full disk": 1,
                "freeze valkey": 1,
                "freeze postgres": 1,
                "no valkey": 1,
            }
        if self._servers.small_disk is not None:
            self.skipped["full disk"] = self._servers.small_disk
            others.pop("full disk", None)
        self._others = self._deck(others)

    def strike(self, kills: int, seconds: tuple[float, float]) -> Iterator[Blow]:
        """Strike, waiting between two moments of `seconds` in between; yields each blow."""
        while sum(blow.is_kill for blow in self.blows) < kills:
            time.sleep(self._dice.uniform(*seconds))
            self._keep_messages()
            kind = next(self._others if self._dice.random() < 0.36 else self._kills)
            blow = Blow(kind, "", time.time(), is_kill=kind.startswith(("kill", "empty")))
            with suppress(psycopg.Error, redis.RedisError):
                self._do(blow)
                blow.over = blow.over or time.time()
                self.blows.append(blow)
                yield blow

    def rest(self) -> None:
        """End what still goes on: every pause, every wait for a process that was asked to end."""
        for deed in self._deeds:
            deed.join()

    def _deck(self, weights: dict[str, int]) -> Iterator[str]:
        """Every kind once, in some order; then shuffled packs by weight, without end."""
        first = list(weights)
        self._dice.shuffle(first)
        yield from first
        while True:
            pack = [kind for kind, weight in weights.items() for _ in range(weight)]
            self._dice.shuffle(pack)
            yield from pack

    def _do(self, blow: Blow) -> None:
        daemons = self._programs.daemons()
        match blow.kind.split():
            case ["kill", "postmaster"]:
                blow.hit = daemons
                self._servers.kill_postmaster()
            case ["kill", "session"]:
                blow.hit = daemons
                blow.is_kill = self._servers.kill_backend()
            case ["kill", "valkey"]:
                blow.hit = daemons
                self._servers.kill_valkey()
            case ["kill", role]:
                self._kill(blow, self._dice.choice(self._programs.names(role)))
            case ["terminate"]:
                self._alone(self._terminate, blow, daemons)
            case ["pause"]:
                self._alone(self._pause, blow, [one for one in daemons if one not in self._paused])
            case ["flushall"]:
                self._servers.flush()
            case ["empty", "valkey"]:
                blow.hit = daemons
                self._servers.kill_valkey(empty=True)
            case ["postgres", mode]:
                blow.hit = daemons
                self._servers.restart_postgres(mode)
            case ["end", "sessions"]:
                blow.hit = daemons
                self._servers.end_all_sessions()
            case ["cut", kind]:
                blow.hit = self._programs.names("charges") + self._programs.names("ticks")
                self._servers.cut("pubsub" if kind == "subscriptions" else "normal")
            case ["full", "disk"]:
                self._for_a_while(blow, self._servers.full_disk(), FULL_DISK_SECONDS)
            case ["freeze", server]:
                self._for_a_while(blow, self._servers.frozen(server), PAUSE_SECONDS)
            case ["no", "valkey"]:
                self._for_a_while(blow, self._servers.valkey_away(), PAUSE_SECONDS)
            case ["garbage"]:
                self._garbage(blow)
            case ["copied", "message"]:
                self._send_copies(self._messages()[:3] * 2)
            case ["old", "message"]:
                self._send_copies(self._kept[:3])

    def _for_a_while(
        self, blow: Blow, trouble: AbstractContextManager[None], seconds: float
    ) -> None:
        """Trouble for everybody."""
        blow.hit = self._programs.daemons()
        with trouble:
            time.sleep(seconds)
        blow.over = time.time()

    # -- to one process -----------------------------------------------------------------------

    def _kill(self, blow: Blow, name: str) -> None:
        blow.target, blow.hit = name, [name]
        if self._programs.signal(name, signal.SIGKILL) is None:
            blow.is_kill, blow.hit = False, []

    def _alone(self, deed: Callable[[Blow, str], None], blow: Blow, names: Sequence[str]) -> None:
        """Do something that takes long to one of them, while other blows go on."""
        if names:
            name = blow.target = self._dice.choice(names)
            thread = threading.Thread(target=deed, args=(blow, name), daemon=True)
            self._deeds.append(thread)
            thread.start()

    def _terminate(self, blow: Blow, name: str) -> None:
        """A deploy in the middle of work: it must leave by itself within the grace time."""
        pid = self._programs.signal(name, signal.SIGTERM)
        deadline = time.time() + GRACE_SECONDS
        while pid is not None and self._programs.runs(pid):
            if name in self._paused:
                deadline = time.time() + GRACE_SECONDS
            if time.time() > deadline:
                self.complaints.append(f"{name} did not end {GRACE_SECONDS} s after SIGTERM")
                self._programs.signal(name, signal.SIGKILL)
                break
            time.sleep(0.05)
        blow.over = time.time()
        blow.hit = [name]

    def _pause(self, blow: Blow, name: str) -> None:
        """A virtual machine that stood still: it wakes long after its lease."""
        self._paused.add(name)
        pid = self._programs.signal(name, signal.SIGSTOP)
        time.sleep(PAUSE_SECONDS)
        if pid is not None and self._programs.runs(pid):
            self._programs.signal(name, signal.SIGCONT)
        self._paused.discard(name)
        blow.over = time.time()
        blow.hit = [name]

    # -- to the queue -------------------------------------------------------------------------

    def _garbage(self, blow: Blow) -> None:
        queue = self._dice.choice(("charges", "ticks"))
        payload = self._dice.choice((*GARBAGE, *_crafted()))
        blow.target = f"{queue}: {payload[:40]!r}"
        blow.hit = self._programs.names(queue)
        for _ in range(self._dice.randint(1, 3)):
            self._servers.push(queue, payload)

    def _messages(self) -> list[bytes]:
        """Copies of messages as workers hold them now, as the broker would deliver them again."""
        return [_as_sent(raw) for raw in self._servers.messages_in_hand()] or self._kept[-3:]

    def _keep_messages(self) -> None:
        if len(self._kept) < 10:
            with suppress(redis.RedisError):
                self._kept += [_as_sent(raw) for raw in self._servers.messages_in_hand()]

    def _send_copies(self, copies: Sequence[bytes]) -> None:
        for one in copies:
            queue = json.loads(one)["properties"]["delivery_info"]["routing_key"]
            self._servers.push(queue, one)


def _as_sent(unacked: bytes) -> bytes:
    """kombu keeps `[message, exchange, routing key]` of what is not acknowledged."""
    return json.dumps(json.loads(unacked)[0]).encode()


def _crafted() -> Iterator[bytes]:
    """Well-formed messages of what must not be done: an unknown task, strange ids, pickle."""
    for task, body, content_type in (
        ("os.system", json.dumps([["true"], {}, {}]).encode(), "application/json"),
        ("maewol.charge", json.dumps([["all"], {}, {}]).encode(), "application/json"),
        ("maewol.charge", json.dumps([[[-1, 2**70]], {}, {}]).encode(), "application/json"),
        ("maewol.charge", pickle.dumps([[[1]], {}, {}]), "application/x-python-serialize"),
    ):
        yield json.dumps(
            {
                "body": base64.b64encode(body).decode(),
                "content-encoding": "utf-8" if "json" in content_type else "binary",
                "content-type": content_type,
                "headers": {"task": task, "id": "garbage", "lang": "py", "argsrepr": "()"},
                "properties": {
                    "correlation_id": "garbage",
                    "delivery_mode": 2,
                    "delivery_info": {"exchange": "", "routing_key": "charges"},
                    "body_encoding": "base64",
                    "delivery_tag": "garbage",
                },
            }
        ).encode()
