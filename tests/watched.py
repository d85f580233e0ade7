"""The whole installation by its documented commands, watched by everything that can watch it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from billing.bootstrap import billing_policy
from billing.clock import database_time
from billing.services.import_subscriptions import import_subscriptions
from billing.settings import Settings
from billing.store.session import Book, create_book_engine
from tests.builders import HEADER, KEY, a_file, a_month_before, chargeable_now, query
from tests.receivers import Receivers

PASSWORD = "a-password-of-flower"
SECRET = "a-secret-of-the-store"
# What must be seen nowhere: the customers' own, and ours.
NAMES, PHONES = ("임꺽정", "홍길동"), ("010-5555-0001", "010-5555-0002")
MAIL = "kim@example.org"
PRIVATE = (*NAMES, *PHONES, MAIL, "customer-of-ours", PASSWORD, SECRET)


@dataclass
class Answer:
    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Installation:
    """Its processes by name, each with a log of its own."""

    folder: Path
    env: dict[str, str]
    book: Book
    flower_port: int
    web_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *words: str, **env: str) -> None:
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=self.folder,
                env={**self.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start_flower(self, **env: str) -> None:
        # The documented command; only the port is this test's.
        self.start("flower", "celery", "-A", "worker", "flower", f"--port={self.flower_port}",
                   MAEWOL_FLOWER_PASSWORD=PASSWORD, **env)  # fmt: skip
        self.wait(lambda: self.flower("/healthcheck").status == 200, "Flower does not answer")

    def stop(self, name: str) -> int:
        self.processes[name].terminate()
        return self.processes.pop(name).wait(60)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def logged(self) -> str:
        return "\n".join(
            file.read_text(encoding="utf-8", errors="replace")
            for file in sorted(self.folder.glob("*.log"))
        )

    def lines(self) -> list[dict[str, Any]]:
        """Every structured line of every process."""
        return [json.loads(line) for line in self.logged().splitlines() if line.startswith("{")]

    def enrol(self, *numbers: int) -> None:
        """Customers with names and numbers, due now, into the live book."""
        paid_at = a_month_before(chargeable_now()).isoformat()
        # By the daemons' settings: they plan anew only what was planned before they came.
        policy = billing_policy(Settings.load(charge_cron=self.env["MAEWOL_CHARGE_CRON"]))
        rows = (
            f"customer-of-ours-{one},{1000 + one},plan,{paid_at},"
            f"{NAMES[one % 2]},{PHONES[one % 2]},{MAIL}"
            for one in numbers
        )
        file = a_file(*rows, header=f"{HEADER},buyer_email")
        report = import_subscriptions(self.book, policy, lambda: KEY, file)
        assert report.added == len(numbers)

    def paid(self) -> int:
        return int(query(self.book, "SELECT count(*) FROM cycles WHERE status = 'paid'")[0][0])

    def flower(
        self, path: str, user: str | None = f"maewol:{PASSWORD}", method: str = "GET"
    ) -> Answer:
        return _ask(f"http://127.0.0.1:{self.flower_port}{path}", user, method)

    def metrics(self) -> str:
        return _ask(f"http://127.0.0.1:{self.web_port}/metrics", None).text

    def tasks(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.flower("/api/tasks").json()
        return found

    def everything_flower_shows(self) -> Iterator[str]:
        """Each page and each document, for every worker and every task."""
        paths = ["/", "/workers", "/tasks", "/broker", "/metrics", "/api/tasks", "/api/task/types"]
        paths += ["/api/workers?refresh=1", "/api/queues/length"]
        paths += [f"/worker/{quote(name)}" for name in self.flower("/api/workers").json()]
        for task in self.tasks():
            paths += [f"/task/{task}", f"/api/task/info/{task}"]
        columns = "&".join(
            f"columns[{number}][data]={name}" for number, name in enumerate(("name", "args"))
        )
        paths.append(f"/tasks/datatable?draw=1&start=0&length=1000&search[value]=&{columns}"
                     "&order[0][column]=0&order[0][dir]=asc")  # fmt: skip
        for path in paths:
            answer = self.flower(path)
            assert answer.status == 200, path
            yield answer.text

    def wait(self, until: Callable[[], object], otherwise: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, f"{otherwise}\n{self.logged()[-8000:]}"
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended\n{self.logged()[-8000:]}"
            time.sleep(0.2)


@contextlib.contextmanager
def watched(
    folder: Path, database_url: str, broker_url: str, gateway_url: str, to: Receivers
) -> Iterator[Installation]:
    """Beat, ticks, a charging worker, the HTTP edge and Flower, which sees both workers."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAEWOL_")}
    env |= {
        "MAEWOL_DATA_DIR": str(folder / "data"),
        "MAEWOL_DATABASE_URL": database_url,
        "MAEWOL_BROKER_URL": broker_url,
        "MAEWOL_PORTONE_API_URL": gateway_url,
        "MAEWOL_PORTONE_IMP_KEY": "key",
        "MAEWOL_PORTONE_IMP_SECRET": SECRET,
        "MAEWOL_CHARGE_CRON": "* * * * *",
        "MAEWOL_SCAN_CRON": "* * * * * */2",
        "MAEWOL_CHARGE_BATCH": "5",
        "MAEWOL_CANARY_CHARGES": "0",
        "MAEWOL_SENTRY_DSN": to.dsn,
        "OTEL_EXPORTER_OTLP_ENDPOINT": to.otlp,
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }
    book = Book(create_book_engine(database_url), database_time)
    made = Installation(folder, env, book, _free_port(), _free_port())
    try:
        made.start("ticks", "celery", "-A", "scheduler", "worker", "-Q", "ticks", "-n", "ticks@%h")
        made.start(
            "charges", "celery", "-A", "worker", "worker", "-Q", "charges", "-n", "charges@%h"
        )
        made.start("web", "billing.web", "--port", str(made.web_port))
        made.wait(lambda: made.logged().count(" ready.") >= 2, "the workers do not start")
        made.start_flower()
        made.wait(lambda: len(made.flower("/api/workers?refresh=1").json()) == 2, "not all seen")
        made.start("beat", "celery", "-A", "scheduler", "beat")
        yield made
    finally:
        book.close()
        for process in made.processes.values():
            process.terminate()
        for process in made.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ask(url: str, user: str | None, method: str = "GET") -> Answer:
    request = urllib.request.Request(url, method=method)
    if user is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return Answer(answer.status, answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode())
    except OSError as error:
        return Answer(0, type(error).__name__)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
