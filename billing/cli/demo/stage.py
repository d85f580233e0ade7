"""Sets the stage: private servers, the demo's gateway, the book and its people, the daemons."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from celery import Celery

from billing import clock
from billing.broker import celery_settings
from billing.cli import up
from billing.cli.demo import watch
from billing.cli.demo.cast import BUYER_TEL, ORDER_NAME, STARTS_AT, Member, as_csv
from billing.cli.supervisor import Program, Supervisor
from billing.domain.errors import BillingError
from billing.embedded import running
from billing.settings import PREFIX
from billing.store import schema
from billing.store.session import Book, create_book_engine

WORKERS = 2
# Only what would make an audience wait is shorter than in production; the plan of attempts is not.
SPEED: Final[Mapping[str, str]] = {
    "SCAN_CRON": "* * * * * *",
    "PORTONE_TIMEOUT_SECONDS": "3",
    "GATEWAY_VISIBILITY_SECONDS": "1",
    "INQUIRY_SETTLE_SECONDS": "5",
    "LEASE_SECONDS": "14",
    "CHARGE_BATCH": "10",
    "LOG_FORMAT": "console",
}
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs, and the ways to it."""

    folder: Path
    book: Book
    supervisor: Supervisor
    celery: Celery
    gateway_url: str
    flower_port: int
    flower_password: str

    def move_clock(self, moment: datetime) -> None:
        """Make `moment` the present, for the gateway and for the book."""
        self._control("POST", "clock", {"now": moment.isoformat()})
        watch.move_clock(self.book, moment)

    def ledger(self) -> Mapping[str, Any]:
        """Every payment and every complaint of the gateway."""
        found: Mapping[str, Any] = self._control("GET", "ledger")
        return found

    def take_in(self, cast: list[Member]) -> None:
        """Make the cast known to the gateway, with what they have paid before the story."""
        known = [
            {
                "customer_uid": one.customer_uid,
                "amount": one.amount,
                "name": ORDER_NAME,
                "buyer_tel": BUYER_TEL,
                "anchor_day": one.anchor_on.day,
                "paid": [moment.isoformat() for moment in one.earlier_payments],
                "trouble": str(one.kind.trouble),
                # Whoever can put it right has done so by the second morning after.
                "until": (STARTS_AT + timedelta(days=1.5)).isoformat() if one.kind.helped else None,
            }
            for one in cast
        ]
        self._control("POST", "customers", known)

    def kill_a_worker(self) -> int:
        """End a charging worker without any warning; returns its process id."""
        pid = self.supervisor.pids()["charges1"]
        os.kill(pid, 9)
        return pid

    def _control(self, method: str, what: str, body: Any = None) -> Any:
        answer = httpx.request(method, f"{self.gateway_url}/demo/{what}", json=body, timeout=10)
        answer.raise_for_status()
        return answer.json()


@contextlib.contextmanager
def set_up(cast: list[Member], tell: Callable[[str], None]) -> Iterator[Stage]:
    """Everything started, subscribers enrolled, the clock at the story's beginning.

    The folder is private to this run and gone after it.
    """
    with contextlib.ExitStack() as exits:
        folder = Path(tempfile.mkdtemp(prefix="maewol-demo-"))
        exits.callback(shutil.rmtree, folder, ignore_errors=True)
        # Root's private servers run as another user, who must get in; each folder of theirs is
        # closed to everybody else.
        folder.chmod(0o755)
        tell("Starting a private PostgreSQL and Valkey")
        servers = exits.enter_context(running(folder / "data", durable=False, announce=tell))
        if servers.database_url is None or servers.broker_url is None:
            raise AssertionError("both servers were asked for")
        log = _Log(exits.enter_context((folder / "log").open("w", encoding="utf-8")))
        env = _environment(servers.database_url, servers.broker_url)
        supervisor = exits.enter_context(
            Supervisor(env=env, cwd=folder, grace_seconds=10, on_line=log)
        )
        supervisor.start(
            Program("gateway", [sys.executable, str(Path(__file__).with_name("gateway.py"))])
        )
        engine = create_book_engine(servers.database_url)
        exits.callback(engine.dispose)
        schema.upgrade(engine)
        celery = Celery("maewol-demo")
        celery.conf.update(celery_settings(servers.broker_url))
        exits.callback(celery.close)
        stage = Stage(
            folder=folder,
            book=Book(engine, clock.database_time),
            supervisor=supervisor,
            celery=celery,
            gateway_url=log.gateway_url(),
            flower_port=_free_port(),
            flower_password=secrets.token_urlsafe(9),
        )
        stage.move_clock(STARTS_AT)
        stage.take_in(cast)
        env[f"{PREFIX}PORTONE_API_URL"] = stage.gateway_url
        tell("Starting beat, ticks, two charging workers; enrolling subscribers from a CSV file")
        for program in up.daemons(WORKERS):
            supervisor.start(Program(program.name, program.command, env=env))
        _enrol(cast, folder, env)
        yield stage


def raise_curtain(stage: Stage, asked: threading.Event) -> bool:
    """Wait for the workers, then start Flower; False when they do not come."""
    if not up.wait_for_worker(stage.celery, asked, charging=WORKERS):
        return False
    stage.supervisor.start(up.flower(stage.flower_port, stage.flower_password))
    return True


class _Log:
    """Keeps every process's lines in a file; catches the gateway's address as it comes by."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._url: str | None = None
        self._known = threading.Event()

    def __call__(self, name: str, line: str) -> None:
        with self._lock:
            self._file.write(f"{name:9}| {line}\n")
            self._file.flush()
        if name == "gateway" and line.startswith("{"):
            self._url = json.loads(line)["url"]
            self._known.set()

    def gateway_url(self) -> str:
        if not self._known.wait(_PATIENCE_SECONDS) or self._url is None:
            raise BillingError("the demo's gateway did not start")
        return self._url


def _environment(database_url: str, broker_url: str) -> dict[str, str]:
    """Nothing of the merchant's own settings gets in: the demo must never meet real credentials."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    env = up.child_environment(clean, database_url, broker_url)
    env.update({PREFIX + name: value for name, value in SPEED.items()})
    env[f"{PREFIX}PORTONE_IMP_KEY"] = "demo"
    env[f"{PREFIX}PORTONE_IMP_SECRET"] = secrets.token_hex(16)
    return env


def _enrol(cast: list[Member], folder: Path, env: Mapping[str, str]) -> None:
    file = folder / "subscribers.csv"
    file.write_text(as_csv(cast), encoding="utf-8")
    command = "from billing.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "subscription", "import", str(file), "--json"],
        env=dict(env),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BillingError(f"the subscribers could not be enrolled: {done.stdout}{done.stderr}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
