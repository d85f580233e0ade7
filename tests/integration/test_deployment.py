"""docker-compose.yml and its kin: valid by their schemas, and really started, as local processes.

No container engine is needed: every service's own command runs here with its own environment, its
secrets from files, against local servers; and its own health check says when it is well, and when
it is not.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from billing.domain.calendar import SEOUL
from billing.embedded.home import Home
from billing.embedded.programs import valkey_program
from billing.store.session import Book, create_book_engine
from tests.builders import query

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("migrate", "beat", "ticks", "charges", "web", "flower", "sandbox")
ALIVE = "/tmp/alive"  # noqa: S108 - of a container's own
ANYWHERE = "0.0.0.0"  # noqa: S104 - of a container's own network
# What would be in .env: so that the test need not wait for minutes.
ENV_FILE = {"MAEWOL_CHARGE_CRON": "* * * * *", "MAEWOL_SCAN_CRON": "* * * * * */2"}


def test_compose_fits_the_specification() -> None:
    _valid(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec",
           ROOT / "docker-compose.yml")  # fmt: skip


@pytest.mark.parametrize("file", sorted((ROOT / "deploy/kubernetes").glob("*.yaml")), ids=str)
def test_manifests_fit_kubernetes(file: Path) -> None:
    _valid(BIN / "kubernetes-validate", "--strict", file)


def test_the_schemas_can_refuse(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text("services: {web: {image: x, helthcheck: {}}}\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="helthcheck"):
        _valid(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", broken)


def _valid(*command: object) -> None:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", OURS)
def test_every_process_of_ours_is_locked_in(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert name == "migrate" or service["restart"] == "unless-stopped"
    assert name == "migrate" or "healthcheck" in service
    published = [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
    assert published == []


def test_no_secret_is_in_the_file_and_every_image_is_pinned() -> None:
    for service in SERVICES.values():
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?", service["image"])
        for name, value in (service.get("environment") or {}).items():
            if re.search("URL|KEY|SECRET|TOKEN|PASSWORD", name):
                assert name.endswith(("_FILE", "__FILE"))
                assert value.startswith("/run/secrets/")


def test_everybody_else_runs_the_same_commands() -> None:
    def words(command: Any) -> str:
        return re.sub(r"\s+", " ", " ".join(command))

    wanted = {
        name: words(SERVICES[name]["command"]) for name in ("beat", "ticks", "charges", "flower")
    }
    for file in (ROOT / "deploy/kubernetes").glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if document["kind"] == "Deployment":
                (container,) = document["spec"]["template"]["spec"]["containers"]
                name = container["name"]
                assert words(container["command"]) == wanted.get(name, words(container["command"]))
                grace = document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
                assert f"{grace}s" == SERVICES[name]["stop_grace_period"]
    for name, command in wanted.items():
        (unit,) = (ROOT / "deploy/systemd").glob(f"maewol-{name}*.service")
        started = unit.read_text(encoding="utf-8").partition("ExecStart=/opt/maewol/bin/")[2]
        line = started.splitlines()[0].replace("%%h", "%h").replace("%i", "")
        # A container has a network of its own, a host has not.
        assert line.replace(" --address=127.0.0.1", "") == command


def test_secrets_are_made_once(tmp_path: Path) -> None:
    folder = _secrets(tmp_path)
    before = {file.name: file.read_text(encoding="ascii") for file in folder.iterdir()}
    assert set(before) == set(COMPOSE["secrets"])
    assert before["postgres_password"] in before["database_url"]
    assert folder.stat().st_mode & 0o777 == 0o700
    _secrets(tmp_path)
    assert {file.name: file.read_text(encoding="ascii") for file in folder.iterdir()} == before


def _secrets(tmp_path: Path) -> Path:
    subprocess.run(
        ["sh", ROOT / "tools/secrets.sh", tmp_path / "secrets"],
        env={"PATH": os.environ["PATH"], "PORTONE_IMP_KEY": "imp", "PORTONE_IMP_SECRET": "sec"},
        check=True,
        capture_output=True,
        timeout=30,
    )
    return tmp_path / "secrets"


# -- and now for real -------------------------------------------------------------------------


class Host:
    """Runs services of the file as local processes, with paths and ports of this test."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.secrets = _secrets(folder)
        self._ports = {port: _free_port() for port in ("6379", "8000", "5555", "8888")}
        self._put("database_url", database_url)
        password = (self.secrets / "redis_password").read_text(encoding="ascii")
        self._put("broker_url", f"redis://:{password}@127.0.0.1:{self._ports['6379']}/0")
        self._path = f"{self._programs()}:{BIN}:{os.environ['PATH']}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.sandbox = f"http://127.0.0.1:{self._ports['8888']}"

    def start(self, name: str) -> subprocess.Popen[bytes]:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        log = (home / "log").open("ab")
        process = subprocess.Popen(
            [self._here(name, word) for word in SERVICES[name]["command"]],
            cwd=home,
            env=self._environment(name),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        self._running[name] = process
        return process

    def is_well(self, name: str) -> bool:
        kind, *words = SERVICES[name]["healthcheck"]["test"]
        words = [self._here(name, word).replace("$$", "$") for word in words]
        done = subprocess.run(
            ["sh", "-c", *words] if kind == "CMD-SHELL" else words,
            env=self._environment(name),
            capture_output=True,
            check=False,
            timeout=30,
        )
        return done.returncode == 0

    def alive_file(self, name: str) -> Path:
        return self.folder / name / "alive"

    def log(self, name: str) -> str:
        return (self.folder / name / "log").read_text(encoding="utf-8", errors="replace")

    def process(self, name: str) -> subprocess.Popen[bytes]:
        return self._running[name]

    def stop(self) -> None:
        for process in reversed(self._running.values()):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def _environment(self, name: str) -> dict[str, str]:
        env = {"PATH": self._path, "HOME": str(self.folder), "LANG": "C.UTF-8"}
        if name in OURS:
            # As the image sets them.
            env |= {"MAEWOL_LIVENESS_FILE": ALIVE, "PYTHONUNBUFFERED": "1"}
            env |= {"MAEWOL_DATA_DIR": "/var/lib/maewol"}
        env |= SERVICES[name].get("environment") or {}
        if name in OURS and name != "sandbox":
            env |= {**ENV_FILE, "MAEWOL_PORTONE_API_URL": self.sandbox}
        return {key: self._here(name, value) for key, value in env.items()}

    def _here(self, name: str, text: str) -> str:
        """A container's paths, ports and addresses, as they are on this machine."""
        for there, here in {
            "$$": "$",
            "/run/secrets": str(self.secrets),
            "/var/lib/maewol": str(self.folder / name),
            ALIVE: str(self.alive_file(name)),
            ANYWHERE: "127.0.0.1",
        }.items():
            text = text.replace(there, here)
        for port, free in self._ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        return text

    def _put(self, name: str, text: str) -> None:
        (self.secrets / name).write_text(text, encoding="ascii")

    def _programs(self) -> Path:
        """What the other images bring; the client, which no wheel has, is a ping of our own."""
        folder = self.folder / "programs"
        folder.mkdir()
        (folder / "valkey-server").symlink_to(valkey_program(Home(self.folder)))
        ping = folder / "valkey-cli"
        ping.write_text(
            f"#!{sys.executable}\nimport os, redis\n"
            f"r = redis.Redis(port={self._ports['6379']}, password=os.environ['REDISCLI_AUTH'])\n"
            "print('PONG' if r.ping() else '')\n",
            encoding="utf-8",
        )
        ping.chmod(0o755)
        return folder


@pytest.fixture
def host(tmp_path: Path, database_url: str) -> Iterator[Host]:
    made = Host(tmp_path, database_url)
    yield made
    made.stop()


@pytest.mark.timeout(360)
def test_all_services_start_get_well_and_a_charge_goes_through(
    host: Host, database_url: str
) -> None:
    for name in ("valkey", "sandbox"):
        host.start(name)
        _wait(partial(host.is_well, name), f"{name} is not well")
    assert host.start("migrate").wait(60) == 0, host.log("migrate")
    waiting = ("beat", "ticks", "charges", "web", "flower")
    for name in waiting:
        assert not host.alive_file(name).exists()
        host.start(name)
    for name in waiting:
        _wait(partial(host.is_well, name), f"{name} is not well")

    _enrol_one(host)
    book = Book(create_book_engine(database_url), lambda _: datetime.now(UTC))
    try:
        _wait(lambda: _statuses(book) == ["paid"], "the charge did not go through")
    finally:
        book.close()
    verdict = _ask(f"{host.sandbox}/sandbox/verdict")
    assert verdict["ok"] is True, verdict

    _is_told_when_it_stands_still(host)
    _is_told_when_the_broker_is_gone(host)
    secret = (host.secrets / "redis_password").read_text(encoding="ascii")
    assert not [name for name in waiting if secret in host.log(name)]
    shown = Path(f"/proc/{host.process('valkey').pid}/cmdline")
    assert not shown.exists() or secret.encode() not in shown.read_bytes()


def _is_told_when_it_stands_still(host: Host) -> None:
    charges = host.process("charges")
    charges.send_signal(signal.SIGSTOP)
    _grows_old(host, "charges")
    assert not host.is_well("charges")
    charges.send_signal(signal.SIGCONT)
    _wait(lambda: host.is_well("charges"), "it did not come back")


def _is_told_when_the_broker_is_gone(host: Host) -> None:
    broker = host.process("valkey")
    broker.kill()
    broker.wait(10)
    assert not host.is_well("valkey")
    # Whoever is on the way to touch its file does so now.
    time.sleep(3)
    for name in ("beat", "ticks", "charges"):
        _grows_old(host, name)
    time.sleep(5)
    assert [name for name in ("beat", "ticks", "charges") if host.is_well(name)] == []
    host.start("valkey")
    for name in ("valkey", "beat", "ticks", "charges"):
        _wait(partial(host.is_well, name), f"{name} did not come back", 150)


def _grows_old(host: Host, name: str) -> None:
    """Minutes pass in which nothing touches the file."""
    then = time.time() - 600
    os.utime(host.alive_file(name), (then, then))


def _enrol_one(host: Host) -> None:
    """A customer who paid for the first time a month ago, so that this month is due."""
    today = datetime.now(SEOUL)
    month_before = today.replace(day=1) - timedelta(days=1)
    paid_at = month_before.replace(day=min(today.day, 28), hour=12, microsecond=0).isoformat()
    one = {"customer_uid": "customer-1", "amount": 9900, "name": "plan", "paid_at": paid_at}
    _ask(f"{host.sandbox}/sandbox/customers", [one])
    file = host.folder / "one.csv"
    file.write_text(
        f"customer_uid,amount,order_name,initial_paid_at\ncustomer-1,9900,plan,{paid_at}\n",
        encoding="utf-8",
    )
    subprocess.run(
        [BIN / "maewol", "subscription", "import", file],
        env=host._environment("ticks"),
        check=True,
        capture_output=True,
        timeout=60,
    )


def _statuses(book: Book) -> list[str]:
    return [row[0] for row in query(book, "SELECT status FROM cycles")]


def _ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def _wait(until: Callable[[], bool], otherwise: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
