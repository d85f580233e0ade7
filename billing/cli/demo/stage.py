"""Sets the stage: private servers, the sandbox, the book and its people, the daemons."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from celery import Celery

from billing import clock
from billing.broker import celery_settings
from billing.cli import up
from billing.cli.demo import watch
from billing.cli.demo.cast import ORDER_NAME, STARTS_AT, Member, Trouble, as_csv, faults
from billing.cli.demo.follow import following
from billing.cli.demo.till import Till
from billing.cli.supervisor import Program, Supervisor
from billing.domain.errors import BillingError
from billing.embedded import running
from billing.redis_address import RedisAddress
from billing.settings import PREFIX
from billing.store import schema
from billing.store.session import Book, create_book_engine

WORKERS = 2
# Only what would make an audience wait is shorter than in production; the plan of attempts is not.
SPEED: Final[Mapping[str, str]] = {
    "SCAN_CRON": "* * * * * *",
    "PORTONE_TIMEOUT_SECONDS": "4",
    "GATEWAY_VISIBILITY_SECONDS": "1",
    "INQUIRY_SETTLE_SECONDS": "6",
    # Much longer than it must be: on a busy machine a batch waits before it is sent.
    "LEASE_SECONDS": "22",
    "CHARGE_BATCH": "10",
    "LOG_FORMAT": "console",
}
_PATIENCE_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs, and the ways to it."""

    folder: Path
    book: Book
    supervisor: Supervisor
    celery: Celery
    sandbox: Till
    flower_port: int
    web_port: int
    flower_password: str

    @property
    def log(self) -> Path:
        """Every line of every process."""
        return self.folder / "log"

    def move_clock(self, moment: datetime) -> None:
        """Make `moment` the present, for the gateway and for the book."""
        # The database runs on this host, so that one offset serves both.
        watch.move_clock(self.book, self.sandbox.set_clock(moment))

    def kill_a_worker(self) -> int | None:
        """End a charging worker without any warning; its process id, None when it was not there."""
        pid = self.supervisor.pids().get("charges1")
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return pid

    def keep_log(self) -> Path:
        """The log, where it outlives the stage."""
        kept = self.folder.with_suffix(".log")
        with kept.open("xb") as out:
            out.write(self.log.read_bytes())
        return kept


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
        web_port = up.free_port()
        supervisor.start(Program("sandbox", _sandbox(folder, web_port)))
        engine = create_book_engine(servers.database_url)
        exits.callback(engine.dispose)
        schema.upgrade(engine)
        celery = Celery("maewol-demo")
        celery.conf.update(celery_settings(RedisAddress(servers.broker_url)))
        exits.callback(celery.close)
        stage = Stage(
            folder=folder,
            book=Book(engine, clock.database_time),
            supervisor=supervisor,
            celery=celery,
            sandbox=Till(log.sandbox_url()),
            flower_port=up.free_port(),
            web_port=web_port,
            flower_password=secrets.token_urlsafe(9),
        )
        stage.move_clock(STARTS_AT)
        stage.sandbox.register([one.as_customer() for one in cast])
        # Before anybody charges: on a busy machine the first slot comes while they are enrolled.
        for one in cast:
            if one.kind.trouble is Trouble.PAID_BY_HAND:
                stage.sandbox.pay_by_hand(one.customer_uid)
        exits.enter_context(following(stage.sandbox, stage.book))
        env.update(checkout_settings(stage.sandbox.url))
        tell("Starting beat, ticks, two charging workers; enrolling subscribers from a CSV file")
        for program in up.daemons(WORKERS):
            supervisor.start(Program(program.name, program.command, env=env))
        edge = up.web(stage.web_port, stage.flower_port)
        supervisor.start(Program(edge.name, edge.command, env={**env, **(edge.env or {})}))
        _enrol(cast, folder, env)
        yield stage


def raise_curtain(stage: Stage, asked: threading.Event) -> bool:
    """Wait for the workers, then start Flower; False when they do not come."""
    if not up.wait_for_worker(stage.celery, asked, charging=WORKERS, patience=_PATIENCE_SECONDS):
        return False
    stage.supervisor.start(up.flower(stage.flower_port, stage.flower_password))
    return True


def checkout_settings(sandbox_url: str) -> Mapping[str, str]:
    """The settings with which the checkout page sells through a sandbox."""
    return {
        f"{PREFIX}PORTONE_API_URL": sandbox_url,
        f"{PREFIX}PORTONE_SDK_URL": f"{sandbox_url}/sdk/iamport.js",
        f"{PREFIX}PORTONE_IMP_CODE": "imp_demo",
        f"{PREFIX}CHECKOUT_AMOUNT": "9900",
        f"{PREFIX}CHECKOUT_ORDER_NAME": ORDER_NAME,
    }


def _sandbox(folder: Path, web_port: int) -> list[str]:
    """`maewol sandbox`, with what goes wrong in a file. It keeps its address and its ledger, should
    it have to be started again."""
    file = folder / "faults.json"
    file.write_text(json.dumps(faults()), encoding="utf-8")
    options = ("--port", str(up.free_port()), "--faults", str(file), "--seed", "1")
    kept = ("--data", str(folder / "sandbox.db"))
    told = ("--notice-url", f"http://127.0.0.1:{web_port}/webhooks/portone")
    return [sys.executable, "-m", "billing.cli", "sandbox", *options, *kept, *told]


class _Log:
    """Keeps every process's lines in a file; catches the sandbox's address as it comes by."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._url: str | None = None
        self._known = threading.Event()

    def __call__(self, name: str, line: str) -> None:
        with self._lock:
            self._file.write(f"{name:9}| {line}\n")
            self._file.flush()
        if name == "sandbox" and line.startswith("{"):
            self._url = json.loads(line)["url"]
            self._known.set()

    def sandbox_url(self) -> str:
        if not self._known.wait(_PATIENCE_SECONDS) or self._url is None:
            raise BillingError("the sandbox did not start")
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
    done = subprocess.run(
        [sys.executable, "-m", "billing.cli", "subscription", "import", str(file), "--json"],
        env=dict(env),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BillingError(f"the subscribers could not be enrolled: {done.stdout}{done.stderr}")
