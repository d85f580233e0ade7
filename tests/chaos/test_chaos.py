"""A minute of chaos on real processes; `make chaos` is the long form."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests import heard

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60


@contextmanager
def a_campaign(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A campaign under way, and a mark that all its processes carry in their environment."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", "--quick", *arguments],
        cwd=ROOT,
        env={**os.environ, "CHAOS_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, mark
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.timeout(400)
def test_every_promise_holds_while_real_processes_are_killed() -> None:
    with a_campaign("--kills", "8", "--seed", "1") as (process, mark):
        told, _ = process.communicate()

    if process.returncode == 2:
        pytest.skip(told.strip())
    assert process.returncode == 0, told[-12_000:]
    assert re.search(r"^seed 1: ([89]|\d\d) kills", told, re.MULTILINE), told
    assert re.search(r"\b7\d charges, 0 doubles$", told, re.MULTILINE), told
    nothing_is_left(mark, folder_of(told))


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running_however_a_campaign_ends(how: signal.Signals) -> None:
    with a_campaign("--kills", "1000") as (process, mark):
        told = heard.until(process.stdout, "imported")
        told += heard.until(process.stdout, "kill")
        process.send_signal(how)
        process.wait(PATIENCE_SECONDS)

    nothing_is_left(mark, folder_of(told))


def nothing_is_left(mark: str, folder: str) -> None:
    """What was told to end may take a moment."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := left_running(mark, folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def folder_of(told: str) -> str:
    found = re.search(r"/\S*mw-chaos-\w+", told)
    assert found is not None, told
    return found.group()


def left_running(mark: str, folder: str) -> list[str]:
    """Processes of a campaign: by the mark; its servers, which do not have it, by the folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        line = " ".join(process.info["cmdline"] or [])
        if (process.info["environ"] or {}).get("CHAOS_MARK") == mark or folder in line:
            found.append(line)
    return found
