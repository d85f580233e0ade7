"""The whole system as processes of its own, with the sandbox as its gateway: what the demo starts,
with nobody in it yet."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from billing import clock
from billing.cli import up
from billing.cli.demo.follow import following
from billing.cli.demo.stage import SPEED, checkout_settings
from billing.cli.demo.till import Till
from billing.cli.supervisor import Program, Supervisor
from billing.settings import PREFIX
from billing.store.session import Book, create_book_engine

PATIENCE_SECONDS = 60.0


@dataclass
class Stage:
    """What runs: the edge's address, the sandbox, and the book."""

    url: str
    sandbox: str
    book: Book
    log: Path
    supervisor: Supervisor

    def ledger(self, **query: str) -> list[dict[str, Any]]:
        """The sandbox's payments."""
        found = httpx.get(f"{self.sandbox}/sandbox/ledger", params=query, trust_env=False)
        return list(found.json()["payments"])

    def verdict(self) -> Any:
        """What the sandbox holds against the biller."""
        return httpx.get(f"{self.sandbox}/sandbox/verdict", trust_env=False).json()

    def control(self, path: str, document: object) -> Any:
        """A control request that succeeds."""
        answer = httpx.post(f"{self.sandbox}/sandbox/{path}", json=document, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextlib.contextmanager
def staged(
    database_url: str, broker_url: str, folder: Path, *, at: str, billing: bool
) -> Iterator[Stage]:
    """The sandbox with its clock at `at`, the edge, and with `billing` beat, ticks and a worker."""
    log = folder / "log"
    lines = _Lines(log)
    web_port, sandbox_port = up.free_port(), up.free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    env = up.child_environment(clean, database_url, broker_url)
    env.update({PREFIX + name: value for name, value in SPEED.items()})
    env.update(checkout_settings(f"http://127.0.0.1:{sandbox_port}"))
    env.update({f"{PREFIX}PORTONE_IMP_KEY": "key", f"{PREFIX}PORTONE_IMP_SECRET": "secret"})
    book = Book(create_book_engine(database_url), clock.database_time)
    with Supervisor(env=env, cwd=folder, grace_seconds=10, on_line=lines) as supervisor:
        options = ["--port", str(sandbox_port), "--at", at]
        told = ["--notice-url", f"http://127.0.0.1:{web_port}/webhooks/portone"]
        command = [sys.executable, "-m", "billing.cli", "sandbox", *options, *told]
        supervisor.start(Program("sandbox", command))
        edge = up.web(web_port)
        supervisor.start(Program(edge.name, edge.command))
        if billing:
            for program in up.daemons(1):
                supervisor.start(program)
        stage = Stage(
            f"http://127.0.0.1:{web_port}",
            f"http://127.0.0.1:{sandbox_port}",
            book,
            log,
            supervisor,
        )
        for address in (f"{stage.sandbox}/sandbox/health", f"{stage.url}/readyz"):
            wait_for(partial(_answers, address), log)
        with following(Till(stage.sandbox), book):
            yield stage
    book.close()


def wait_for(what: Callable[[], object], log: Path, seconds: float = PATIENCE_SECONDS) -> None:
    """Until it is true; else the end of the log tells why not."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain\n{log.read_text('utf-8')[-5000:]}")
        time.sleep(0.1)


def _answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(address, trust_env=False).status_code == 200
    return False


class _Lines:
    """Keeps every line of every process in a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        path.touch()

    def __call__(self, name: str, line: str) -> None:
        with self._lock, self._path.open("a", encoding="utf-8") as out:
            out.write(f"{name:9}| {line}\n")
