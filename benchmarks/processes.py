"""How long until each process works, and how much memory it holds then (Linux).

    python benchmarks/processes.py [--rounds 3]

Every process is started by the command of docs/deploying.md, one after the other, on a private
PostgreSQL and Valkey; `ready` is when it first answers (a ping through the broker, `/readyz`, a
first tick in the queue). The memory is its own share (PSS), children included. The best of the
rounds; below, commands that people wait for, beside a Python that does nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import redis
from celery import Celery
from rig.commands import found

from billing.broker import celery_settings
from billing.cli.up import free_port
from billing.embedded import running
from billing.redis_address import RedisAddress

PATIENCE = 120.0
# What it loads after its first answer is loaded by then.
SETTLED = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="mw-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running(folder / "data") as servers:
            broker = str(servers.broker_url)
            env = {
                **os.environ,
                "MAEWOL_DATABASE_URL": str(servers.database_url),
                "MAEWOL_BROKER_URL": broker,
                "MAEWOL_DATA_DIR": str(folder / "state"),
                "MAEWOL_PORTONE_IMP_KEY": "key",
                "MAEWOL_PORTONE_IMP_SECRET": "secret",
                # Else the first tick is up to a minute away.
                "MAEWOL_SCAN_CRON": "* * * * * *",
            }
            subprocess.run(
                found("maewol", "db", "upgrade"), env=env, check=True, stdout=subprocess.DEVNULL
            )
            print(f"{'process':28} {'ready':>8} {'memory':>9}")
            for title, command, is_ready in _processes(broker):
                tries = [_started(command, env, is_ready) for _ in range(rounds)]
                seconds, megabytes = min(one[0] for one in tries), min(one[1] for one in tries)
                print(f"{title:28} {seconds:6.1f} s {megabytes:6.0f} MB", flush=True)
            print(f"\n{'command':28} {'seconds':>8}")
            for words in (
                ("python", "-c", "pass"),
                ("maewol", "--version"),
                ("maewol", "windows", "--initial-paid-on", "2026-01-31"),
                ("maewol", "status"),
            ):
                spent = min(_ran(words, env) for _ in range(rounds))
                print(f"{' '.join(words)[:28]:28} {spent:6.2f} s", flush=True)


Process = tuple[str, Sequence[str], Callable[[], bool]]


def _processes(broker: str) -> Sequence[Process]:
    web, flower = free_port(), free_port()
    return (
        ("charging worker", _worker("worker", "charges"), lambda: _answers(broker, "charges")),
        ("ticks", _worker("scheduler", "ticks"), lambda: _answers(broker, "ticks")),
        ("beat", found("celery", "-A", "scheduler", "beat"), _ticked(broker)),
        (
            "web",
            found("maewol", "web", "--host", "127.0.0.1", "--port", str(web)),
            lambda: _serves(f"http://127.0.0.1:{web}/readyz"),
        ),
        (
            "Flower",
            found("celery", "-A", "worker", "flower", "--address=127.0.0.1", f"--port={flower}"),
            lambda: _serves(f"http://127.0.0.1:{flower}/"),
        ),
    )


def _worker(app: str, queue: str) -> list[str]:
    return found("celery", "-A", app, "worker", "-Q", queue, "-n", f"{queue}@%h")


def _started(
    command: Sequence[str], env: dict[str, str], is_ready: Callable[[], bool]
) -> tuple[float, float]:
    """Seconds until it is ready, and its megabytes a moment later."""
    # What an earlier round left in a queue is no answer.
    is_ready()
    started = time.perf_counter()
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not is_ready():
            assert child.poll() is None, f"{command} ended"
            assert time.perf_counter() - started < PATIENCE, f"{command} never answered"
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        time.sleep(SETTLED)
        return seconds, _megabytes(child.pid)
    finally:
        child.terminate()
        child.wait(timeout=90)


def _answers(broker: str, queue: str) -> bool:
    with Celery("bench") as celery:
        celery.conf.update(celery_settings(RedisAddress(broker)))
        pings = celery.control.ping(timeout=0.3) or []
    return any(name.startswith(f"{queue}@") for one in pings for name in one)


def _ticked(broker: str) -> Callable[[], bool]:
    """Whether beat has sent anything, which lies in the queue since nobody takes it."""

    def is_ready() -> bool:
        with redis.Redis.from_url(broker) as client:
            return bool(client.delete("ticks"))

    return is_ready


def _serves(url: str) -> bool:
    with suppress(httpx.TransportError):
        # Flower answers without a password, if only that it wants one.
        return httpx.get(url).status_code in (200, 401)
    return False


def _megabytes(pid: int) -> float:
    """The proportional share of a process and its children."""
    first = psutil.Process(pid)
    everybody = [first, *first.children(recursive=True)]
    return float(sum(one.memory_full_info().pss for one in everybody)) / 1e6


def _ran(words: Sequence[str], env: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(
        found(*words), env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
