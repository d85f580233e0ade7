"""Charges per second through the whole product, beside a bare loop and a plain Celery script.

    python benchmarks/pipeline.py [--charges 12000] [--delays-ms 50,300] [--processes 1,2,4]

Everything runs on this machine and shares its cores: a private PostgreSQL (fsync on) and Valkey,
a gateway of fixed delay (`rig/gateway.py`), and one after the other

- *bare*: one asyncio loop with aiohttp that posts the charges and records nothing: the ceiling;
- *bare, with look-up*: the same with the question that the product asks before each charge;
- *script*: one Celery task per charge, POST and INSERT, no safety (`rig/script.py`);
- *maewol*: beat, ticks and `n` charging processes by their own commands, from due subscriptions to
  recorded payments, without a ceiling (`CHARGES_PER_SECOND=0`), all else as it comes.

`steady` is what the gateway saw between a tenth and nine tenths of the charges: it leaves out how
work starts and ends, and what was seen is not yet recorded. `whole` is from the first charge to the
last record. A loop has so many requests in flight and no more (`--width`), 200 at 50 ms, which is a
limit of its own: Maewol has up to 16 batches of 50 in each process, and can be faster than such a
loop. Read the ratios, not the absolutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
from celery import Celery
from rig import processors
from rig.commands import found
from rig.floor import LOOK, MAEWOL, SCRIPT, below, heavier
from rig.subscribers import MARGIN_MINUTES, due_now, until_next_month

from billing.broker import celery_settings
from billing.cli.up import wait_for_worker
from billing.embedded import running
from billing.redis_address import RedisAddress

HERE = Path(__file__).resolve().parent
WIDTH = {0: 100, 50: 200, 300: 1000}
# Threads of each process of the script (`--script-threads` to try others).
SCRIPT_PROCESSES = 2
SCRIPT_THREADS = {50: 32, 300: 128}
PATIENCE_SECONDS = 300
# More than this part of the processors in use for so many seconds before anything runs is other
# work, beside which a rate says little.
FULL, LOOKED_FOR = 0.5, 3.0


@dataclass(frozen=True)
class Seen:
    """What the gateway saw, and until when everything was recorded."""

    doubles: int
    steady: float
    whole: float
    # Milliseconds of a processor for one charge; 0 where that was not measured.
    processor: float = 0.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--charges", type=int, default=12_000)
    options.add_argument("--delays-ms", default="50,300")
    options.add_argument("--processes", default="1,2,4", help="charging processes of maewol")
    options.add_argument("--only", default="", help="bare, look, script or maewol")
    options.add_argument("--width", type=int, default=0, help="requests of a bare loop in flight")
    options.add_argument("--script-threads", type=int, default=0, help="of each of its processes")
    options.add_argument("--floor", type=float, help="exit 1 below this part of the same requests")
    options.add_argument("--script-floor", type=float, help="exit 1 below so many times the script")
    options.add_argument(
        "--most-processor", type=float, help="exit 1 above so many times that of the same requests"
    )
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    found: list[dict[str, Any]] = []
    full = processors.used(LOOKED_FOR) > FULL
    print(f"{chosen.charges} charges; per second: whole (steady)", file=sys.stderr)
    for delay in (int(text) for text in chosen.delays_ms.split(",")):
        for name, rate in _of(delay, chosen):
            row = _row(delay, name, rate, found)
            found.append(row)
            used = f" {rate.processor:.2f} ms of a processor," if rate.processor else ""
            print(
                f"{delay:>4} ms  {name:<28}{row['whole']:>6}/s ({row['steady']:>5})  "
                f"{row['whole_of_the_first']:.2f} ({row['of_the_ceiling']:.2f}) of the first,"
                f"{used} {rate.doubles} doubles",
                file=sys.stderr,
                flush=True,
            )
    if chosen.json:
        print(json.dumps(found, indent=1))
    floors = {LOOK: chosen.floor, SCRIPT: chosen.script_floor}
    if full:
        # What shares its cores with other work is given another part of them than one loop is.
        print("Other work fills the processors: rates are not judged", file=sys.stderr)
    fallen = below(found, {} if full else floors) + heavier(found, chosen.most_processor)
    if fallen:
        raise SystemExit("\n".join(fallen))


def _row(delay: int, name: str, rate: Seen, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is printed of one: its rates, and their parts of the first of this delay (the bare loop,
    where it runs)."""
    first = next((row for row in found if row["delay_ms"] == delay), None)
    steady, whole = (first["steady"], first["whole"]) if first else (rate.steady, rate.whole)
    return {
        "delay_ms": delay,
        "what": name,
        "steady": round(rate.steady),
        "whole": round(rate.whole),
        "of_the_ceiling": round(rate.steady / steady, 2),
        "whole_of_the_first": round(rate.whole / whole, 2),
        "processor_ms": round(rate.processor, 2),
        "doubles": rate.doubles,
    }


def _of(delay: int, chosen: argparse.Namespace) -> Iterator[tuple[str, Seen]]:
    wanted = {name for name in chosen.only.split(",") if name} or {
        "bare",
        "look",
        "script",
        "maewol",
    }
    if "bare" in wanted:
        yield "bare loop", _bare(delay, chosen, look=False)
    if "look" in wanted:
        yield LOOK, _bare(delay, chosen, look=True)
    if "script" in wanted:
        threads = chosen.script_threads or SCRIPT_THREADS.get(delay, 32)
        yield f"{SCRIPT}, 2 x {threads} threads", _script(delay, chosen.charges, threads)
    if "maewol" in wanted:
        for processes in (int(text) for text in chosen.processes.split(",")):
            yield f"{MAEWOL}, {processes} charging", _maewol(delay, chosen.charges, processes)
    if chosen.floor is not None:
        # Once more: the machine may be another one by now.
        yield LOOK, _bare(delay, chosen, look=True)


def _bare(delay: int, chosen: argparse.Namespace, *, look: bool) -> Seen:
    charges, width = chosen.charges, chosen.width or WIDTH.get(delay, 200)
    with gateway(delay) as (url, _):
        command = [sys.executable, str(HERE / "rig/bare.py"), url, str(charges)]
        done = subprocess.run(
            [*command, str(width), *(["--look"] if look else [])],
            check=True,
            stdout=subprocess.PIPE,
        )
        processor = json.loads(done.stdout)["processor"] * 1000 / charges
        return _seen(url, time.time(), processor)


def _script(delay: int, charges: int, threads: int) -> Seen:
    with ExitStack() as stack:
        database, broker = stack.enter_context(_servers())
        url, _ = stack.enter_context(gateway(delay))
        plain = database.replace("+psycopg", "")
        env = {
            "BENCH_GATEWAY": url,
            "BENCH_DATABASE": plain,
            "BENCH_BROKER": broker,
            "PYTHONPATH": str(HERE.parent),
        }
        os.environ.update(env)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE script_payments (id bigserial PRIMARY KEY,"
                " customer_uid text NOT NULL, imp_uid text NOT NULL, status text NOT NULL,"
                " amount bigint NOT NULL, at timestamptz NOT NULL DEFAULT now())"
            )
            _enqueue(broker, charges)
            for number in range(SCRIPT_PROCESSES):
                stack.enter_context(
                    _process(
                        "celery",
                        "-A",
                        "benchmarks.rig.script",
                        "worker",
                        "-c",
                        str(threads),
                        "-n",
                        f"script{number}@%h",
                        "--without-gossip",
                        "--without-mingle",
                        env=env,
                    )
                )
            recorded = _wait(connection, "SELECT count(*) FROM script_payments", charges)
        return _seen(url, recorded)


def _enqueue(broker: str, charges: int) -> None:
    from benchmarks.rig.script import app

    with app.producer_pool.acquire(block=True) as producer:
        for number in range(charges):
            app.send_task("script.charge", (f"script-{number}", 9_900), producer=producer)


def _maewol(delay: int, charges: int, processes: int) -> Seen:
    with ExitStack() as stack:
        database, broker = stack.enter_context(_servers())
        url, _ = stack.enter_context(gateway(delay))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="maewol-bench-")))
        env = {
            "MAEWOL_DATABASE_URL": database,
            "MAEWOL_BROKER_URL": broker,
            "MAEWOL_DATA_DIR": str(folder),
            "MAEWOL_PORTONE_API_URL": url,
            "MAEWOL_PORTONE_IMP_KEY": "key",
            "MAEWOL_PORTONE_IMP_SECRET": "secret",
            "MAEWOL_CHARGES_PER_SECOND": "0",
            "MAEWOL_CHARGE_CRON": "* * * * * *",
            "MAEWOL_CLOSE_MARGIN_MINUTES": str(MARGIN_MINUTES),
            "MAEWOL_SCAN_CRON": "* * * * * */5",
        }
        _command("maewol", "db", "upgrade", env=env)
        if left := until_next_month(datetime.now(UTC)):
            print(f"The month ends soon in Seoul: on in {left}", file=sys.stderr, flush=True)
            time.sleep(left.total_seconds())
        file = due_now(folder / "subscribers.csv", charges, datetime.now(UTC))
        _command("maewol", "subscription", "import", str(file), env=env)
        with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:
            pids = [
                stack.enter_context(
                    _process(
                        "celery",
                        "-A",
                        "worker",
                        "worker",
                        "-Q",
                        "charges",
                        "-n",
                        f"charges{number}@%h",
                        env=env,
                    )
                )
                for number in range(processes)
            ]
            ticks = ("celery", "-A", "scheduler", "worker", "-Q", "ticks", "-n", "ticks@%h")
            pids.append(stack.enter_context(_process(*ticks, env=env)))
            _wait_for_workers(broker, processes)
            # Without beat, whose start would be most of what it uses.
            before = _processor(pids, connection)
            stack.enter_context(_process("celery", "-A", "scheduler", "beat", env=env))
            paid = "SELECT count(*) FROM cycles WHERE status = 'paid'"
            recorded = _wait(connection, paid, charges)
            processor = (_processor(pids, connection) - before) * 1000 / charges
        return _seen(url, recorded, processor)


def _processor(pids: Sequence[int], connection: psycopg.Connection[Any]) -> float:
    """The seconds that these processes and PostgreSQL have used."""
    server = processors.of_server(connection.info.backend_pid)
    return sum(processors.of_process(pid) for pid in pids) + server


def _wait_for_workers(broker: str, processes: int) -> None:
    with Celery("bench") as celery:
        celery.conf.update(celery_settings(RedisAddress(broker)))
        if not wait_for_worker(celery, threading.Event(), charging=processes):
            raise SystemExit("the charging workers do not answer")


def _seen(url: str, recorded_at: float, processor: float = 0.0) -> Seen:
    found: dict[str, Any] = httpx.get(f"{url}/seen", timeout=60, trust_env=False).json()["response"]
    times: list[float] = found["times"]
    tenth = len(times) // 10
    early, late = times[tenth], times[-tenth - 1]
    return Seen(
        doubles=found["doubles"],
        steady=(len(times) - 2 * tenth) / (late - early),
        whole=len(times) / (max(recorded_at, times[-1]) - found["first"]),
        processor=processor,
    )


def _wait(connection: psycopg.Connection[Any], query: str, wanted: int) -> float:
    """The moment at which all was recorded, to a quarter of a second."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        ((count,),) = connection.execute(query).fetchall()
        if count >= wanted:
            return time.time()
        time.sleep(0.25)
    raise SystemExit(f"only {count} of {wanted} were recorded in {PATIENCE_SECONDS} s")


@contextmanager
def _servers() -> Iterator[tuple[str, str]]:
    with (
        tempfile.TemporaryDirectory(prefix="mwb-", ignore_cleanup_errors=True) as folder,
        running(Path(folder)) as servers,
    ):
        assert servers.database_url is not None
        assert servers.broker_url is not None
        yield servers.database_url, servers.broker_url


@contextmanager
def gateway(delay: int) -> Iterator[tuple[str, int]]:
    """A gateway that answers after so many milliseconds: its address, and the id of its process."""
    command = [sys.executable, str(HERE / "rig/gateway.py"), "--delay-ms", str(delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["url"], server.pid
        finally:
            server.terminate()


def _command(*command: str, env: Mapping[str, str]) -> None:
    subprocess.run(
        found(*command), env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL
    )


@contextmanager
def _process(*command: str, env: Mapping[str, str]) -> Iterator[int]:
    log = Path(tempfile.gettempdir()) / f"maewol-bench-{os.getpid()}.log"
    with log.open("ab") as output:
        child = subprocess.Popen(
            found(*command), env={**os.environ, **env}, stdout=output, stderr=output
        )
        try:
            yield child.pid
        finally:
            child.terminate()
            child.wait(timeout=90)


if __name__ == "__main__":
    main()
