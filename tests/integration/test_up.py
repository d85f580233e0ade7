"""`maewol up` for real: private servers, real Celery processes, real signals."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery
from sqlalchemy import text

from billing.cli import supervisor as supervisor_module
from billing.cli import up
from billing.cli.supervisor import Program, Supervisor
from billing.domain.errors import InvalidInput, InvalidSetting
from billing.store.session import allowed_connections, create_book_engine
from tests.merchant import Merchant, a_merchant

_RUN = "from billing.cli import up; raise SystemExit(up.run(workers=1, flower_port=0))"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path that another system user may enter: root's servers run as one."""
    with tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def merchant() -> Iterator[Merchant]:
    with a_merchant() as running:
        yield running


@pytest.fixture
def environ(folder: Path, merchant: Merchant) -> dict[str, str]:
    return {
        **os.environ,
        "MAEWOL_DATA_DIR": str(folder / "data"),
        "MAEWOL_PORTONE_IMP_KEY": "key",
        "MAEWOL_PORTONE_IMP_SECRET": "secret",
        "MAEWOL_PORTONE_API_URL": "http://127.0.0.1:9",
        "MAEWOL_SCAN_CRON": "* * * * * *",
        "MAEWOL_LOG_FORMAT": "console",
        "MAEWOL_NOTICE_URL": merchant.url,
        "MAEWOL_NOTICE_SECRET": merchant.secret,
    }


@pytest.fixture
def started(folder: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN], env=environ, cwd=folder, stdout=log, stderr=log
        )
    yield process
    family = _family(process.pid)
    if process.poll() is None:
        process.kill()
        process.wait()
    for one in family:
        with contextlib.suppress(psutil.Error):
            one.kill()


def test_a_killed_worker_is_replaced_and_a_termination_leaves_nothing_behind(
    started: subprocess.Popen[bytes], folder: Path, environ: dict[str, str], merchant: Merchant
) -> None:
    log = folder / "log"
    _wait(lambda: log.read_text().count("ready") >= 2, log)
    _wait(lambda: "succeeded" in log.read_text(), log)
    _enrol_somebody(folder, environ)
    _wait(lambda: bool(merchant.taken), log)
    assert merchant.types() == ["subscription.enrolled"]
    for secret in (merchant.secret, merchant.url, "somebody"):
        assert secret not in log.read_text()
    first = _worker_of(started.pid)
    first.kill()
    _wait(lambda: "ended (SIGKILL)" in log.read_text(), log)
    _wait(lambda: _worker_pid(started.pid) not in (None, first.pid), log)
    # Its servers too: the private ones have nobody else who would start them again.
    (pid_file,) = _running_postgresqls(folder)
    psutil.Process(int(pid_file.read_text().split()[0])).kill()
    _wait(lambda: "The private PostgreSQL ended" in log.read_text(), log)
    known = log.read_text().count("succeeded")
    _wait(lambda: log.read_text().count("succeeded") > known + 3, log)
    family = _family(started.pid)

    started.send_signal(signal.SIGTERM)

    assert started.wait(30) == 0, log.read_text()
    _wait(lambda: not any(one.is_running() for one in family), log)
    assert not _running_postgresqls(folder)


def test_it_works_and_is_kept_working_where_nothing_can_be_told(
    folder: Path, environ: dict[str, str], merchant: Merchant
) -> None:
    """A full disk under both of its outputs, from the first line on."""
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN], env=environ, cwd=folder, stdout=full, stderr=full
        )
    try:
        _wait(lambda: _worker_pid(process.pid) is not None)
        _enrol_somebody(folder, environ)
        _wait(lambda: bool(merchant.taken))
        first = _worker_of(process.pid)
        first.kill()
        _wait(lambda: _worker_pid(process.pid) not in (None, first.pid))
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    finally:
        family = _family(process.pid)
        process.kill()
        process.wait()
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.kill()
    assert not _running_postgresqls(folder)


def _enrol_somebody(folder: Path, environ: dict[str, str]) -> None:
    """In a process of its own, on the servers that run already."""
    paid_at = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    words = ["subscription", "add", "--customer-uid", "somebody", "--amount", "9900", "--notify"]
    words += ["--order-name", "plan", "--initial-paid-at", paid_at]
    subprocess.run(
        [sys.executable, "-c", "from billing.cli import main; main()", *words],
        env=environ,
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_programs_do_not_outlive_a_supervisor_that_was_killed(folder: Path) -> None:
    program = folder / "program.py"
    program.write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('asked').touch(), sys.exit()))\n"
        "pathlib.Path('born').touch()\n"
        "time.sleep(60)\n"
    )
    code = (
        "import os, pathlib, sys, time\n"
        "from billing.cli.supervisor import Program, Supervisor\n"
        "s = Supervisor(env=os.environ, cwd=pathlib.Path('.'), grace_seconds=5,"
        " on_line=lambda *_: None)\n"
        f"s.start(Program('p', [sys.executable, {str(program)!r}]))\n"
        "time.sleep(60)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], cwd=folder)
    _wait((folder / "born").exists)
    child = next(
        one for one in _family(supervisor.pid) if one.cmdline() and str(program) in one.cmdline()
    )

    supervisor.kill()
    supervisor.wait()

    _wait((folder / "asked").exists)
    _wait(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def _a_supervisor(folder: Path, lines: list[tuple[str, str]]) -> Supervisor:
    return Supervisor(
        env=os.environ,
        cwd=folder,
        grace_seconds=0.5,
        on_line=lambda name, line: lines.append((name, line)),
    )


def test_one_that_does_not_listen_is_ended_after_the_grace_time(folder: Path) -> None:
    lines: list[tuple[str, str]] = []
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('born', flush=True); time.sleep(60)"
    )
    before = time.monotonic()
    with _a_supervisor(folder, lines) as supervisor:
        supervisor.start(Program("stubborn", [sys.executable, "-c", stubborn]))
        _wait(lambda: ("stubborn", "born") in lines)
        pid = supervisor.pids()["stubborn"]

    assert not psutil.pid_exists(pid)
    assert 0.5 <= time.monotonic() - before < 20


def test_one_that_gives_no_sign_of_life_is_killed_and_started_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "LOOK_SECONDS", 0.1)
    lines: list[tuple[str, str]] = []
    hangs = (
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "file = pathlib.Path(os.environ['MAEWOL_LIVENESS_FILE'])\n"
        "times = range(30 if sys.argv[1] == 'hangs' else 600)\n"
        "[(file.write_text(str(n)), time.sleep(0.1)) for n in times]\n"
        "time.sleep(60)\n"
    )
    with _a_supervisor(folder, lines) as supervisor:
        for name in ("hangs", "works"):
            command = [sys.executable, "-c", hangs, name]
            supervisor.start(Program(name, command, hung_after=8))
        silent = [sys.executable, "-c", "import time; time.sleep(60)"]
        supervisor.start(Program("nobody looks at", silent))
        first = supervisor.pids()
        _wait(lambda: ("hangs", "ended (SIGKILL); starting again in 1 s") in lines)
        assert lines[0] == ("hangs", "no sign of life for 8 s: killed")
        _wait(lambda: supervisor.pids().get("hangs", first["hangs"]) != first["hangs"])
        now = supervisor.pids()
    assert {name for name, _ in lines} == {"hangs"}
    assert [now[name] == first[name] for name in ("works", "nobody looks at")] == [True, True]


def test_one_that_does_not_answer_is_killed_and_started_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "LOOK_SECONDS", 0.1)
    lines: list[tuple[str, str]] = []
    # It has no file to touch, nor needs one.
    lives = "import os, time; time.sleep(0 if 'MAEWOL_LIVENESS_FILE' in os.environ else 60)"
    command = [sys.executable, "-c", lives]
    with _a_supervisor(folder, lines) as supervisor:
        supervisor.start(Program("hangs", command, hung_after=8, answers=lambda: False))
        supervisor.start(Program("works", command, hung_after=8, answers=lambda: True))
        works = supervisor.pids()["works"]
        _wait(lambda: ("hangs", "ended (SIGKILL); starting again in 1 s") in lines)
        assert lines[0] == ("hangs", "no sign of life for 8 s: killed")
        assert supervisor.pids()["works"] == works
    assert {name for name, _ in lines} == {"hangs"}


@pytest.mark.parametrize(
    ("scan_cron", "seconds"),
    [
        ("* * * * *", 360),
        ("* * * * * */10", 360),
        ("*/2 * * * *", 360),
        ("*/10 * * * *", 1800),
        # From 18:50 to 9:00 of the next day.
        ("*/10 9-18 * * *", 3 * 51_000),
        ("30 4 * * *", 3 * 86_400),
    ],
)
def test_beat_may_be_as_long_without_a_tick_as_its_line_says(scan_cron: str, seconds: int) -> None:
    assert up.beat_hangs_after(scan_cron) == seconds


def _lines_of_a_brief_one(folder: Path, count: int) -> list[str]:
    """The first lines about a program that ends as soon as it began."""
    lines: list[str] = []
    with Supervisor(
        env=os.environ, cwd=folder, grace_seconds=5, on_line=lambda _, line: lines.append(line)
    ) as supervisor:
        supervisor.start(Program("brief", [sys.executable, "-c", "raise SystemExit(3)"]))
        _wait(lambda: len(lines) >= count)
    return lines[:count]


def test_one_that_dies_is_started_again_with_growing_pauses(folder: Path) -> None:
    assert _lines_of_a_brief_one(folder, 2) == [
        "ended (exit 3); starting again in 1 s",
        "ended (exit 3); starting again in 2 s",
    ]


def test_one_that_cannot_be_started_just_now_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, tries = subprocess.Popen, itertools.count()

    def short_of_memory(command: list[str], **options: Any) -> Any:
        if command[-1] == "raise SystemExit(3)" and next(tries) == 1:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return start(command, **options)

    monkeypatch.setattr(subprocess, "Popen", short_of_memory)
    assert _lines_of_a_brief_one(folder, 3) == [
        "ended (exit 3); starting again in 1 s",
        "could not be started (Resource temporarily unavailable); starting again in 2 s",
        "ended (exit 3); starting again in 4 s",
    ]


def test_a_broker_that_is_away_does_not_end_the_wait_for_workers() -> None:
    nowhere = Celery("nowhere", broker="redis://127.0.0.1:9/0")
    assert not up.wait_for_worker(nowhere, threading.Event(), patience=1)


def test_more_workers_than_postgresql_has_connections_for_are_named(database_url: str) -> None:
    engine = create_book_engine(database_url)
    with engine.connect() as connection:
        most = int(connection.execute(text("SHOW max_connections")).scalar_one())
    assert allowed_connections(engine) == most - 3
    engine.dispose()
    assert up.crowded(97, 5) is None
    told = up.crowded(97, 6)
    assert told is not None
    assert "PostgreSQL allows 97 connections, and 6 workers with all else may open 100" in told


def test_it_refuses_to_start_without_credentials() -> None:
    with pytest.raises(InvalidSetting, match="PORTONE_IMP_KEY"):
        up.run(workers=1, flower_port=0)


def test_it_refuses_no_worker_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAEWOL_PORTONE_IMP_KEY", "key")
    monkeypatch.setenv("MAEWOL_PORTONE_IMP_SECRET", "secret")
    with pytest.raises(InvalidInput, match="--workers"):
        up.run(workers=0, flower_port=0)


def test_the_environment_of_the_processes_names_the_servers_and_never_opens_flower() -> None:
    environ = {
        "PATH": "/bin",
        "FLOWER_UNAUTHENTICATED_API": "true",
        "MAEWOL_DATABASE_URL_FILE": "/run/secrets/database",
    }

    child = up.child_environment(environ, "postgresql://x", "redis://y")

    assert child["MAEWOL_DATABASE_URL"] == "postgresql://x"
    assert child["MAEWOL_BROKER_URL"] == "redis://y"
    assert child["PATH"] == "/bin"
    assert not {"FLOWER_UNAUTHENTICATED_API", "MAEWOL_DATABASE_URL_FILE"} & child.keys()


def _running_postgresqls(folder: Path) -> list[Path]:
    return list(folder.rglob("postmaster.pid"))


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def _worker_pid(pid: int) -> int | None:
    found = [one for one in _family(pid) if "charges" in _command(one)]
    return found[0].pid if found else None


def _worker_of(pid: int) -> psutil.Process:
    found = _worker_pid(pid)
    assert found is not None
    return psutil.Process(found)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _wait(for_what: Callable[[], bool], log: Path | None = None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not for_what():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain\n{log.read_text() if log else ''}")
        time.sleep(0.1)
