"""Everything of one run, started for real: servers, gateway, beats, ticks, charging workers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos.cast import Member, write_csv
from tests.chaos.programs import Program, Programs
from tests.chaos.servers import Servers

# Short, so that recovery is quick, and still within the inequalities that are checked at start.
TIMEOUT_SECONDS = 2
LEASE_SECONDS = 15
SETTLE_SECONDS = 3
CLOSE_MARGIN_MINUTES = 3
DECLINES_PER_DAY = 3
# What a request, its record and the leaving take together, and no more.
GRACE_SECONDS = TIMEOUT_SECONDS + 10 + 5

# About one charge in five is lost, broken, late or refused at the door; look-ups fare a little
# better. Left out is what the guarantee does not cover or what needs a person: look-ups that hide
# a payment for long, payments that turn up later, answers that contradict the request.
FAULTS = {
    "lookup_lag_seconds": 0.8,
    "latency": {"charge": [30, 200], "lookup": [2, 20]},
    "chances": {
        "charge": {
            "timeout_before_charge": 0.012,
            "timeout_after_charge": 0.02,
            "reset_before_charge": 0.015,
            "reset_after_charge": 0.02,
            "http_before_charge:503": 0.015,
            "http_after_charge:500": 0.015,
            "html_before_charge": 0.01,
            "html_after_charge": 0.01,
            "cut_json_after_charge": 0.015,
            "cut_body_after_charge": 0.01,
            "unauthorized": 0.02,
            "too_many:1": 0.01,
            "ready": 0.005,
            "slow:900": 0.02,
        },
        "lookup": {
            "timeout": 0.005,
            "reset": 0.01,
            "http:503": 0.01,
            "html": 0.005,
            "cut_json": 0.005,
            "unauthorized": 0.01,
            "too_many:1": 0.005,
            "slow:300": 0.02,
        },
    },
}


class World:
    """A run's processes and the ways to ask them. Made by `running_world`."""

    def __init__(self, folder: Path, seed: int, rate: float, servers: Servers) -> None:
        self.began = time.time()
        self.folder = folder
        self.servers = servers
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._seed = seed
        self._faults = folder / "faults.json"
        self.env = {
            **{name: value for name, value in os.environ.items() if name[:7] != "MAEWOL_"},
            "PYTHONUNBUFFERED": "1",
            # Where the code under test is, for programs that start in the run's own folder.
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **{f"MAEWOL_{name}": str(value) for name, value in self._settings(rate).items()},
        }
        self.programs = Programs(self.env, folder, GRACE_SECONDS)

    def _settings(self, rate: float) -> dict[str, object]:
        return {
            "DATABASE_URL": self.servers.database_url,
            "BROKER_URL": self.servers.broker_url,
            "PORTONE_API_URL": self.url,
            "PORTONE_IMP_KEY": "chaos-key",
            "PORTONE_IMP_SECRET": "chaos-secret",
            "PORTONE_TIMEOUT_SECONDS": TIMEOUT_SECONDS,
            "GATEWAY_VISIBILITY_SECONDS": 1,
            "LEASE_SECONDS": LEASE_SECONDS,
            "INQUIRY_SETTLE_SECONDS": SETTLE_SECONDS,
            "CLOSE_MARGIN_MINUTES": CLOSE_MARGIN_MINUTES,
            "CHARGE_CRON": "* * * * *",
            "RETRY_CRON": "* * * * * */10",
            "RETRY_SOON_MINUTES": 0,
            "SCAN_CRON": "* * * * * */2",
            "ATTEMPTS_PER_DAY": DECLINES_PER_DAY,
            "CHARGES_PER_SECOND": rate,
            "MAX_OUTSTANDING": max(40, int(rate * 8)),
            "CHARGE_BATCH": 5,
        }

    # -- the gateway --------------------------------------------------------------------------

    def mood(self, faults: dict[str, Any]) -> None:
        """How the gateway behaves from now on, over its restarts, too."""
        self._faults.write_text(json.dumps(faults), encoding="utf-8")
        if self.programs.names("gateway"):
            self.ask("/sandbox/faults", faults, patience=20)

    def ask(self, path: str, body: Any = None, *, patience: float = 0) -> Any:
        """Ask the gateway's own endpoints; again for so many seconds while it is away."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        deadline = time.time() + patience
        while True:
            try:
                request = urllib.request.Request(self.url + path, data, headers)
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                raise RuntimeError(f"{path}: {error.read()[:500]!r}") from error
            except OSError:
                if time.time() > deadline:
                    raise
                time.sleep(0.1)

    def payments(self) -> list[dict[str, Any]]:
        """Every payment in the gateway's book."""
        return self._pages("ledger", "payments")

    def requests(self, **wanted: str) -> list[dict[str, Any]]:
        """Every request that the gateway saw; of one `kind` or `customer_uid`, if given."""
        return self._pages("requests", "requests", **wanted)

    def _pages(self, path: str, name: str, **wanted: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        after: int | None = 0
        query = "".join(f"&{key}={value}" for key, value in wanted.items())
        while after is not None:
            page = self.ask(f"/sandbox/{path}?limit=1000&after={after}{query}", patience=20)
            rows += page[name]
            after = page["next"]
        return rows

    # -- the book -----------------------------------------------------------------------------

    def maewol(self, *arguments: str) -> Any:
        """Run a command as an operator would; its JSON."""
        command = [sys.executable, "-m", "billing.cli", *arguments, "--json"]
        done = subprocess.run(
            command, env=self.env, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if not done.stdout:
            raise RuntimeError(f"maewol {' '.join(arguments)}: {done.stderr}")
        return json.loads(done.stdout)

    def enrol(self, cast: Sequence[Member]) -> None:
        """Register the cast at the gateway, then import it into the book."""
        self.ask("/sandbox/customers", [one.as_customer() for one in cast], patience=20)
        file = self.folder / "subscribers.csv"
        write_csv(cast, file)
        report = self.maewol("subscription", "import", str(file))
        if report["added"] != len(cast):
            raise RuntimeError(f"import: {report}")

    # -- life ---------------------------------------------------------------------------------

    def start_gateway(self) -> None:
        port = self.url.rpartition(":")[2]
        kept = ("--faults", str(self._faults), "--data", str(self.folder / "ledger.sqlite"))
        sandbox = _python("billing.cli", "sandbox", "--port", port, "--seed", str(self._seed))
        self.programs.start(Program("gateway", [*sandbox, *kept], works=r'"url"'))

    def start_daemons(self, charging: int) -> None:
        """Two beats, two workers of ticks, so many charging workers: the contract's commands."""
        done, sent = r"succeeded in", r" sent\. id->"
        for number in (1, 2):
            beat = _python("celery", "-A", "scheduler", "beat")
            # Only at this level does beat tell what it has sent.
            self.programs.start(
                Program(f"beat{number}", beat, works=sent, env={"MAEWOL_LOG_LEVEL": "DEBUG"})
            )
            self.programs.start(_worker(f"ticks{number}", "scheduler", "ticks", done))
        for number in range(1, charging + 1):
            self.programs.start(_worker(f"charges{number}", "worker", "charges", done))


@contextmanager
def running_world(folder: Path, seed: int, rate: float, charging: int) -> Iterator[World]:
    """Everything up, nobody enrolled yet; nothing is left running behind it."""
    with Servers(folder) as servers:
        world = World(folder, seed, rate, servers)
        with world.programs:
            world.maewol("db", "upgrade")
            world.mood(FAULTS)
            world.start_gateway()
            world.start_daemons(charging)
            yield world


def _worker(name: str, app: str, queue: str, works: str) -> Program:
    command = _python("celery", "-A", app, "worker", "-Q", queue, "-n", f"{name}@%h")
    return Program(name, command, works)


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
