"""One campaign: start, enrol, strike, wait until all is settled, judge, tell."""

from __future__ import annotations

import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from celery import Celery

from billing.broker import celery_settings
from billing.domain.errors import BrokerUnavailable
from billing.redis_address import RedisAddress
from tests.chaos.cast import Ending, Member, members
from tests.chaos.history import Expected, History, Violation
from tests.chaos.judge import judge
from tests.chaos.nemesis import Blow, Nemesis
from tests.chaos.world import CLOSE_MARGIN_MINUTES, DECLINES_PER_DAY, World, running_world

# "Seen to work again within a minute" (docs/chaos.md).
BACK_WITHIN_SECONDS = 60
# docs/reliability.md, I12: five minutes after the last fault.
SETTLED_WITHIN_SECONDS = 300
# What a process may grow to; several times what one needs.
MOST_MEMORY = 400 << 20
MOST_FILES = 200


@dataclass(frozen=True, slots=True)
class Size:
    """How large a campaign is."""

    kills: int
    subscribers: int
    rate: float
    every_seconds: tuple[float, float]
    charging: int
    long_blows: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """What a campaign came to."""

    violations: Sequence[Violation]
    blows: Sequence[Blow]
    history: History
    settled_after: float | None


def run(seed: int, size: Size, logs: Path | None = None) -> bool:
    """Run one campaign and print it; whether all was as it must be. `logs` is where to keep what
    the processes printed."""
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="mw-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # root's servers run as another user
        cast = members(size.subscribers, seed, datetime.now(UTC))
        _say(began, f"seed {seed}: {size.kills} kills, {len(cast)} subscribers, in {folder}")
        with running_world(folder, seed, size.rate, size.charging) as world:
            _wait_until_at_work(world)
            world.enrol(cast)
            _say(began, "all processes at work, subscribers imported")
            with probing(world):
                finish = _campaign(world, cast, seed, size, began)
            _tell(world, finish)
            late = world.programs.stop()
            if logs is not None:
                shutil.copytree(folder, logs, ignore=shutil.ignore_patterns("data"))
            violations = [*finish.violations, *(_late(name) for name in late)]
            _tell_verdict(finish, violations, seed, began)
            return not violations


def _campaign(world: World, cast: Sequence[Member], seed: int, size: Size, began: float) -> Finish:
    nemesis = Nemesis(world, seed, long_blows=size.long_blows)
    for blow in nemesis.strike(size.kills, size.every_seconds):
        _say(began, f"{blow.kind:18} {blow.target:28} {_progress(world)}")
    nemesis.rest()
    world.mood({})
    quiet_since = time.time()
    _say(began, "quiet: no more faults")
    settled = _settled(world, cast, nemesis.blows, quiet_since, began)
    for kind, why in nemesis.skipped.items():
        _say(began, f"left out: {kind} ({why})")
    violations = [Violation("a clean end", "", text) for text in nemesis.complaints]
    violations += _not_back(world, nemesis.blows)
    violations += _died(world)
    violations += _grown(world)
    if settled is None:
        text = f"not settled {SETTLED_WITHIN_SECONDS} s after the last fault"
        violations.append(Violation("I12 liveness", "", text))
    history = _history(world, cast)
    violations += judge(history)
    for uid in sorted({one.customer_uid for one in violations if one.customer_uid})[:5]:
        _tell_events(world, uid)
    return Finish(violations, nemesis.blows, history, settled)


# -- waiting ----------------------------------------------------------------------------------


def _wait_until_at_work(world: World) -> None:
    """Every process has been seen to work once; an empty inquiry is work, too."""
    with probing(world):
        deadline = time.time() + BACK_WITHIN_SECONDS
        while any(not world.programs.work[name] for name in world.programs.names()):
            if time.time() > deadline:
                raise RuntimeError(f"not at work: {_idle(world)}")
            time.sleep(0.1)


def _idle(world: World) -> str:
    idle = [name for name in world.programs.names() if not world.programs.work[name]]
    return "\n".join(f"{name}: {world.programs.log(name).read_text()[-1500:]}" for name in idle)


@contextmanager
def probing(world: World) -> Iterator[None]:
    """Sends empty inquiries: a worker is seen to work by what it does, even with nothing to do."""
    app = Celery("chaos")
    app.conf.update(celery_settings(RedisAddress(world.servers.broker_url)))
    ended = threading.Event()

    def probe() -> None:
        while not ended.wait(0.4):
            with suppress(Exception):  # The broker is away: so is every worker.
                app.send_task("maewol.inquire", args=[[]], queue="charges", retry=False)

    thread = threading.Thread(target=probe, name="probe", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(BrokerUnavailable, OSError):
            app.close()


def _settled(
    world: World, cast: Sequence[Member], blows: Sequence[Blow], since: float, began: float
) -> float | None:
    """Wait for the end of all work and for every process; the seconds it took."""
    wanted = sum(one.ending is Ending.PAID for one in cast)
    shown = 0.0
    while time.time() < since + SETTLED_WITHIN_SECONDS:
        if _is_done(world, wanted) and not _away(world, blows):
            return time.time() - since
        if time.time() - shown > 10:
            shown = time.time()
            _say(began, f"{'waiting':18} {', '.join(_away(world, blows)):28} {_progress(world)}")
        time.sleep(0.25)
    return None


def _is_done(world: World, wanted: int) -> bool:
    found = _counts(world)
    return (
        found is not None
        and found["paid"] >= wanted
        and not found["sending"] + found["unknown"] + found["due"]
        and found["opened"]
    )


def _counts(world: World) -> dict[str, Any] | None:
    """How far the book is; None while it cannot be read."""
    statement = """
        SELECT (SELECT count(*) FROM cycles WHERE status = 'paid') AS paid,
               count(*) FILTER (WHERE status = 'sending') AS sending,
               count(*) FILTER (WHERE status = 'unknown') AS unknown,
               count(*) FILTER (WHERE status = 'due' AND ready_at < now() + interval '1 minute')
                   AS due,
               NOT EXISTS (SELECT FROM subscriptions WHERE next_due_at <= now()) AS opened
        FROM attempts"""
    with suppress(psycopg.Error), world.servers.connection() as session:
        cursor = session.execute(statement)
        names = [column.name for column in cursor.description or ()]
        return dict(zip(names, cursor.fetchone() or (), strict=True))
    return None


def _progress(world: World) -> str:
    found = _counts(world)
    if found is None:
        return "the book is away"
    return " ".join(f"{name} {count}" for name, count in found.items() if name != "opened")


def _away(world: World, blows: Sequence[Blow]) -> list[str]:
    """Whoever was hit and has not been seen to work since."""
    last: dict[str, float] = {}
    for blow in blows:
        for name in blow.hit:
            last[name] = max(last.get(name, 0.0), blow.over)
    return [name for name, at in last.items() if world.programs.worked_after(name, at) is None]


# -- judging ----------------------------------------------------------------------------------


def _history(world: World, cast: Sequence[Member]) -> History:
    return History(
        expected=[
            Expected(
                customer_uid=one.customer_uid,
                anchor_on=one.anchor_on,
                ending=str(one.ending),
                amount=one.amount,
                name=one.order_name,
                buyer_name=one.buyer_name,
                buyer_email=one.buyer_email,
                buyer_tel=one.buyer_tel,
            )
            for one in cast
        ],
        payments=world.payments(),
        requests=world.requests(kind="again"),
        cycles=world.maewol("cycles"),
        status=world.maewol("status"),
        broken=[fact for fact in world.maewol("invariants") if fact["rows"]],
        at=datetime.now(UTC),
        declines_per_day=DECLINES_PER_DAY,
        margin=timedelta(minutes=CLOSE_MARGIN_MINUTES),
    )


def _recoveries(world: World, blow: Blow) -> Iterator[tuple[str, float | None]]:
    """How long each that was hit took to be seen at work; None when another blow came first."""
    for name in blow.hit:
        back = world.programs.worked_after(name, blow.over + 0.2)
        yield name, None if back is None else back - blow.over


def _not_back(world: World, blows: Sequence[Blow]) -> Iterator[Violation]:
    """Who was not at work within a minute, though nothing else happened to them meanwhile."""
    for blow in blows:
        for name, seconds in _recoveries(world, blow):
            later = [one.at for one in blows if name in one.hit and one.at > blow.over]
            undisturbed = min(later, default=time.time()) - blow.over
            if undisturbed > BACK_WITHIN_SECONDS and (seconds or undisturbed) > BACK_WITHIN_SECONDS:
                text = f"{name} was not back at work a minute after {blow.kind}"
                yield Violation("back within a minute", "", text)


def _died(world: World) -> Iterator[Violation]:
    """Who ended without having been killed or asked to. Asked while it was still being loaded, a
    program ends as Python does, at once: Celery's own way to end comes with its first work."""
    began: dict[str, float] = defaultdict(float)
    for name, code, at in world.programs.exits:
        since, began[name] = began[name], at
        loading = not any(since < moment <= at for moment in world.programs.work[name])
        if code not in (0, -signal.SIGKILL) and not (loading and code == -signal.SIGTERM):
            yield Violation("nobody ends by itself", "", f"{name} ended with exit {code}")


def _grown(world: World) -> Iterator[Violation]:
    for role, size in world.programs.most_memory.items():
        if size > MOST_MEMORY:
            yield Violation("bounded memory", "", f"{role}: {size >> 20} MB")
    for role, count in world.programs.most_files.items():
        if count > MOST_FILES:
            yield Violation("bounded files", "", f"{role}: {count} open files")


def _late(name: str) -> Violation:
    return Violation("a clean end", "", f"{name} had to be killed at the end of the run")


# -- telling ----------------------------------------------------------------------------------


def _tell(world: World, finish: Finish) -> None:
    print()
    _table("kills and other blows", Counter(blow.kind for blow in finish.blows))
    _tell_recoveries(world, finish)
    exits = Counter(
        f"{name.rstrip('0123456789')} ended {code}" for name, code, _ in world.programs.exits
    )
    _table("how processes ended", exits)
    _tell_roads(world)
    memory, files = world.programs.most_memory, world.programs.most_files
    print("largest processes")
    for role, most in memory.items():
        print(f"  {role:24} {most >> 20:6} MB {files[role]:6} files")
    _tell_faults(world)


def _tell_verdict(finish: Finish, violations: Sequence[Violation], seed: int, began: float) -> None:
    kills = sum(blow.is_kill for blow in finish.blows)
    settled = finish.settled_after
    paid = [row for row in finish.history.payments if row["origin"] == "again" and row["paid_at"]]
    doubles = len(paid) - len({row["customer_uid"] for row in paid})
    print(f"\nseed {seed}: {kills} kills and {len(finish.blows) - kills} other blows")
    print(f"{len(finish.history.requests)} charge requests, {len(paid)} charges, {doubles} doubles")
    print(f"settled {'never' if settled is None else f'{settled:.0f} s after the last fault'}")
    for one in violations[:40]:
        print(f"VIOLATION {one.rule}: {one.customer_uid} {one.what}")
    print(f"{len(violations)} violations in {time.time() - began:.0f} s")


def _tell_recoveries(world: World, finish: Finish) -> None:
    times: dict[str, list[float]] = {}
    for blow in finish.blows:
        seconds = [one for _, one in _recoveries(world, blow) if one is not None]
        times.setdefault(blow.kind, []).extend(seconds)
    print("seconds until those hit were seen at work again")
    for kind, seconds in sorted(times.items()):
        if seconds:
            middle, most = statistics.median(seconds), max(seconds)
            print(f"  {kind:24} median {middle:5.1f}  longest {most:5.1f}  of {len(seconds)}")


def _tell_roads(world: World) -> None:
    """Which roads were gone: a campaign in which nothing was unknown has shown nothing."""
    statement = """
        SELECT left(kind || coalesce(': ' || (data->>'why'), ''), 60) AS what, count(*) FROM events
        WHERE kind LIKE 'attempt.%' OR kind LIKE 'gateway.%' OR kind LIKE 'answer.%'
        GROUP BY 1"""
    with world.servers.connection() as session:
        _table("what the book tells", Counter(dict(session.execute(statement).fetchall())))


def _tell_faults(world: World) -> None:
    """What the gateway did to requests, and to how many of them."""
    requests = [row for row in world.requests() if row["kind"] != "token"]
    faults = Counter(f"{_what(row)} {row['fault']}" for row in requests if row["fault"])
    _table("faults of the gateway", faults)
    for what in ("charge", "look-up"):
        seen = [row for row in requests if _what(row) == what]
        struck = sum(bool(row["fault"]) for row in seen)
        print(f"  {what}s: {len(seen)}, struck {struck} ({struck / max(1, len(seen)):.0%})")


def _what(row: dict[str, Any]) -> str:
    return "charge" if row["kind"] == "again" else "look-up"


def _table(title: str, counts: Counter[str]) -> None:
    print(title)
    for name, count in sorted(counts.items()):
        print(f"  {name:62} {count:6}")


def _tell_events(world: World, customer_uid: str) -> None:
    """The whole story of one customer, from the book and from the gateway."""
    statement = """
        SELECT e.at, e.kind, e.attempt_id, e.data FROM events e
        LEFT JOIN cycles c ON c.id = e.cycle_id
        JOIN subscriptions s ON s.id = coalesce(e.subscription_id, c.subscription_id)
        WHERE s.customer_uid = %s ORDER BY e.id"""
    print(f"\n{customer_uid}: the book")
    with world.servers.connection() as session:
        for at, kind, attempt_id, data in session.execute(statement, (customer_uid,)):
            print(f"  {at:%H:%M:%S.%f} {kind:24} {attempt_id} {data}")
    print(f"{customer_uid}: the gateway")
    for row in world.requests(customer_uid=customer_uid):
        names = ("at", "kind", "merchant_uid", "fault", "outcome", "overlaps")
        print("  " + " ".join(str(row[name]) for name in names))


def _say(began: float, text: str) -> None:
    print(f"{time.time() - began:6.1f} s  {text}", flush=True)
