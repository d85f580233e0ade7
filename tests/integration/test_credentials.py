"""Who needs the gateway's credentials: the charging workers do, and say so when they start."""

from __future__ import annotations

import os
import subprocess
import sys

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
    ("arguments", "loaded"),
    [
        (["-A", "worker", "flower"], "worker.tasks"),
        (["-A", "scheduler", "beat"], "scheduler.ticks"),
        (["-A", "scheduler", "worker", "-Q", "ticks"], "scheduler.ticks"),
    ],
    ids=["Flower", "beat", "ticks"],
)
def test_the_others_start_without(
    servers: Servers, database_url: str, arguments: list[str], loaded: str
) -> None:
    """What each of them loads; beat loads the ticks, too."""
    code = f"import sys; sys.argv = ['celery', *{arguments}]; import {loaded}; print('started')"
    done = started(servers, database_url, "-c", code)
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
