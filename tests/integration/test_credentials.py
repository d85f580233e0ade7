"""Who needs the gateway's credentials: the charging workers do, and say so when they start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from billing.embedded import Servers

KEY, SECRET = "MAEWOL_PORTONE_IMP_KEY", "MAEWOL_PORTONE_IMP_SECRET"


def started(
    servers: Servers, database_url: str, *words: str, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={
            "PATH": os.environ["PATH"],
            "MAEWOL_DATABASE_URL": database_url,
            "MAEWOL_BROKER_URL": str(servers.broker_url),
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("env", [{}, {KEY: "key"}, {SECRET: "hunter2"}], ids=str)
def test_a_charging_worker_without_credentials_ends_with_one_line(
    servers: Servers, database_url: str, env: dict[str, str]
) -> None:
    missing = "PORTONE_IMP_SECRET" if KEY in env else "PORTONE_IMP_KEY"
    words = ("-m", "celery", "-A", "worker", "worker", "-Q", "charges")
    done = started(servers, database_url, *words, **env)
    assert done.returncode == 2, done.stderr
    assert f"maewol: {missing}=None: not set. Set MAEWOL_{missing}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["-A", "scheduler", "beat"], ["-A", "scheduler", "worker", "-Q", "ticks"]],
    ids=["beat", "ticks"],
)
def test_beat_and_ticks_start_without(
    servers: Servers, database_url: str, arguments: list[str]
) -> None:
    """Both load the ticks."""
    done = started(servers, database_url, "-c", _loading("scheduler.ticks", arguments))
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr


_ASKS_FOR_THE_GATEWAY = """
import threading
from billing.daemon import Daemon
from billing.domain.errors import InvalidSetting

process = Daemon("ticks")
for _ in range(3):
    try:
        process.run(lambda gateway: None)
    except InvalidSetting as error:
        print(error.field, sum(one.name == "meter" for one in threading.enumerate()))
"""


def test_a_tick_that_finds_no_credentials_leaves_no_thread_behind(
    servers: Servers, database_url: str
) -> None:
    """It asks again at every tick, for as long as anything waits."""
    done = started(servers, database_url, "-c", _ASKS_FOR_THE_GATEWAY)
    assert done.stdout.splitlines() == ["PORTONE_IMP_KEY 0"] * 3, done.stderr


def test_flower_starts_with_the_broker_alone(servers: Servers, tmp_path: Path) -> None:
    """Neither the gateway's credentials nor the book, nor a private one in its place."""
    code = _loading("worker", ["-A", "worker", "flower"])
    code += "; assert 'worker.tasks' not in sys.modules; print(worker.app.conf.broker_url)"
    home = {"MAEWOL_DATA_DIR": str(tmp_path), "MAEWOL_DATABASE_URL": ""}
    done = started(servers, "", "-c", code, **home)
    assert (done.returncode, done.stdout) == (0, f"started\n{servers.broker_url}\n"), done.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"flower"}


def _loading(module: str, arguments: list[str]) -> str:
    return f"import sys; sys.argv = ['celery', *{arguments}]; import {module}; print('started')"
