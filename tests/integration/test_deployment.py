"""docker-compose.yml, really started, each service as a local process, until a charge goes through.

The roles of PostgreSQL and the user of Valkey are those of the file, so that whatever a process may
not do, it could not have done here. Then processes hang, and the broker goes away.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from billing.store.session import Book, create_book_engine
from tests import locked_down
from tests.builders import a_month_before, chargeable_now, plain, query
from tests.console_blocks import steps
from tests.containers import BIN, OURS, ROOT, Host, until

DAEMONS = ("beat", "ticks", "charges")
WAITING = (*DAEMONS, "web", "flower")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.stop()


@pytest.mark.timeout(420)
def test_all_services_start_get_well_and_a_charge_goes_through(host: Host) -> None:
    for name in ("postgres", "valkey", "sandbox"):
        host.start(name)
    host.wait("postgres", "valkey", "sandbox")
    assert host.start("migrate").wait(120) == 0, host.log("migrate")
    with contextlib.ExitStack() as sockets:
        told = {name: sockets.enter_context(_systemd(name)) for name in (*DAEMONS, "web")}
        for name in WAITING:
            assert not host.alive_file(name).exists()
            host.start(name, **_as_a_unit(name))
        host.wait(*WAITING)
        for one in told.values():
            assert one.recv(100) == b"WATCHDOG=1"

    _goes_live_as_the_page_says(host)
    book = Book(create_book_engine(host.secret("database_url")), lambda _: datetime.now(UTC))
    try:
        until(lambda: _statuses(book) == ["paid"], "the charge did not go through")
    finally:
        book.close()
    verdict = _ask(f"{host.sandbox}/sandbox/verdict")
    assert verdict["ok"] is True, verdict
    _reports_as_the_page_says(host)

    _the_daemons_own_nothing(host)
    _nobody_was_refused_by_the_broker(host)
    _is_started_anew_when_it_hangs(host, "charges")
    _is_started_anew_when_it_hangs(host, "web")
    _is_told_when_the_broker_is_gone(host)
    _no_secret_is_seen(host)
    _nobody_wrote_where_nothing_stays(host)


@pytest.mark.skipif(locked_down.version() < 1, reason="this system cannot lock a process in")
def test_a_program_that_is_locked_down_writes_nowhere_else(tmp_path: Path) -> None:
    """Also as root: that the services start so is the proof that a read-only disk is enough."""
    (given := tmp_path / "given").mkdir()
    program = (
        "import pathlib, sys\n"
        "for name in ('given/new', 'new', 'old'):\n"
        "    try: pathlib.Path(name).write_text('x')\n"
        "    except PermissionError: print(name)\n"
    )
    (tmp_path / "old").write_text("kept", encoding="utf-8")
    locked = [sys.executable, locked_down.__file__, str(given), "--"]
    command = [*locked, sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["new", "old"]
    assert (tmp_path / "old").read_text(encoding="utf-8") == "kept"


def _nobody_wrote_where_nothing_stays(host: Host) -> None:
    """A container's disk is read-only but for its volumes and /tmp; and a folder that can be
    written in the image would be a new one each time."""
    assert {name: host.written(name) for name in OURS} == {name: [] for name in OURS}


def _as_a_unit(name: str) -> dict[str, str]:
    """What a unit of systemd with `WatchdogSec=` has in its environment besides."""
    return {"NOTIFY_SOCKET": f"@maewol-{os.getpid()}-{name}", "WATCHDOG_USEC": "360000000"}


@contextlib.contextmanager
def _systemd(name: str) -> Iterator[socket.socket]:
    """Where systemd would be told that a service works, which must be soon."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(_as_a_unit(name)["NOTIFY_SOCKET"].replace("@", "\0"))
        listening.settimeout(60)
        yield listening


def _the_daemons_own_nothing(host: Host) -> None:
    with psycopg.connect(plain(host.secret("database_url"))) as connection:
        who = "SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user"
        assert connection.execute(who).fetchone() == ("maewol_run", False)
        owners = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'"
        assert connection.execute(owners).fetchall() == [("maewol",)]
        asking = "SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = 'maewol'"
        assert connection.execute(asking).fetchall() == [("maewol_run",)]
    done = subprocess.run(
        [BIN / "maewol", "doctor", "--json"],
        env=host.environment("ticks"),
        capture_output=True,
        check=False,
        timeout=60,
    )
    (role,) = [one for one in json.loads(done.stdout)["checks"] if one["name"] == "database role"]
    assert role["ok"] is True
    assert "maewol_run" in role["detail"]


def _nobody_was_refused_by_the_broker(host: Host) -> None:
    """Our user may do what our processes do, and nothing to the server. Nobody else comes in."""
    with redis.Redis.from_url(host.secret("broker_url")) as ours:
        refused = int(ours.info("stats")["acl_access_denied_cmd"])  # type: ignore[index]
        assert refused == 0, "something that a process does was refused"
        for command in ("FLUSHALL", "KEYS *", "CONFIG GET *", "SHUTDOWN", "ACL LIST"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                ours.execute_command(command)
    address = host.secret("broker_url")
    for stranger in (address.replace("maewol:", ":"), address.replace("maewol:", "default:")):
        with redis.Redis.from_url(stranger) as theirs, pytest.raises(redis.AuthenticationError):
            theirs.ping()


def _is_started_anew_when_it_hangs(host: Host, name: str) -> None:
    """First it is unwell; when that lasts, its own check ends it, and `restart` is ours."""
    hung = host.process(name)
    hung.send_signal(signal.SIGSTOP)
    _grows_old(host, name, minutes=4)
    assert not host.is_well(name)
    assert hung.poll() is None, "not yet"
    _grows_old(host, name, minutes=7)
    assert not host.is_well(name)
    assert hung.wait(10) == -signal.SIGKILL
    host.start(name)
    host.wait(name)


def _is_told_when_the_broker_is_gone(host: Host) -> None:
    """They come back by themselves: after 148 outages, on a free machine and with a twelfth of one
    processor, it took 8 s at most. A server that cannot start again is told at once."""
    broker = host.process("valkey")
    broker.kill()
    broker.wait(10)
    assert not host.is_well("valkey")
    # Whoever is on the way to touch its file does so now.
    time.sleep(3)
    for name in DAEMONS:
        _grows_old(host, name, minutes=4)
    time.sleep(5)
    assert [name for name in DAEMONS if host.is_well(name)] == []
    host.start("valkey")
    host.wait("valkey", *DAEMONS)


def _no_secret_is_seen(host: Host) -> None:
    for name in ("redis_password", "postgres_run_password", "postgres_owner_password"):
        secret = host.secret(name)
        assert not [one for one in ("postgres", "migrate", *WAITING) if secret in host.log(one)]
        shown = Path(f"/proc/{host.process('valkey').pid}/cmdline")
        assert not shown.exists() or secret.encode() not in shown.read_bytes()


def _grows_old(host: Host, name: str, *, minutes: float) -> None:
    """Minutes pass in which nothing touches the file."""
    then = time.time() - minutes * 60
    os.utime(host.alive_file(name), (then, then))


def _goes_live_as_the_page_says(host: Host) -> None:
    """docs/deploying.md from a hold to its end, with a customer who paid for the first time a month
    ago, so that this month is due."""
    paid_at = a_month_before(chargeable_now()).isoformat()
    one = {"customer_uid": "customer-1", "amount": 9900, "name": "plan", "paid_at": paid_at}
    _ask(f"{host.sandbox}/sandbox/customers", [one])
    file = host.folder / "subscribers.csv"
    file.write_text(
        f"customer_uid,amount,order_name,initial_paid_at\ncustomer-1,9900,plan,{paid_at}\n",
        encoding="utf-8",
    )
    inside = ("docker compose exec ", "docker compose run ")
    page = [one.command for one in steps((ROOT / "docs/deploying.md").read_text("utf-8"))]
    found = [command for command in page if command.startswith(inside)]
    assert [re.findall(r"maewol (\w+)", command)[-1] for command in found] == [
        *("doctor", "hold", "subscription", "due", "release", "doctor")
    ]
    # The first ticks may still be on their way.
    until(lambda: host.typed(found[0]).returncode == 0, "doctor finds something wrong")
    said = [_typed(host, command, subscribers=file) for command in found]
    assert "first import" in said[1] + said[4]
    assert "customer-1" in said[3]


def _reports_as_the_page_says(host: Host) -> None:
    page = steps((ROOT / "docs/operating.md").read_text("utf-8"))
    (command,) = [one.command for one in page if one.command.startswith("docker")]
    folder = host.folder / "reports"
    folder.mkdir()
    _typed(host, command.partition("#")[0], reports=folder)
    assert len(list(folder.iterdir())) == 5


def _typed(host: Host, command: str, **mounted: Path) -> str:
    done = host.typed(command, **mounted)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def _statuses(book: Book) -> list[str]:
    return [row[0] for row in query(book, "SELECT status FROM cycles")]


def _ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)
