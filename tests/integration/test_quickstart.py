"""docs/quickstart.md is true: its commands, in their order, lead to a first charge."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import chargeable_now
from tests.console_blocks import Step, steps, terminal

DOCS = Path(__file__).parents[2] / "docs"
# What a terminal of its own runs until Ctrl-C.
STAYS = ("maewol sandbox", "maewol up")
# The environment is the one that runs the test.
NOT_HERE = ("make setup", 'export PATH="$PWD/.venv/bin:$PATH"')
PATIENCE_SECONDS = 240


def commands(name: str) -> list[Step]:
    return list(steps((DOCS / name).read_text(encoding="utf-8")))


def script(found: list[Step], port: int) -> str:
    """All of it as one program that ends at the first command that fails, and says which that was.
    What stays is ended as by Ctrl-C."""
    end = 'code=$?; set +e; for job in $(jobs -p); do kill "$job"; done; wait; exit "$code"'
    lines = ["set -eu -o pipefail", f"trap '{end}' EXIT"]
    for number, step in enumerate(found):
        command = step.command.replace("8888", str(port))
        if command in NOT_HERE:
            continue
        lines.append(f"echo '@@ {number}'")
        if command.startswith(STAYS):
            lines.append(f"{command} > stays-{number}.txt 2>&1 &")
        else:
            lines.append(command)
    return "\n".join([*lines, "echo '@@ done'", ""])


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty folder that the private PostgreSQL, which is not root, can reach."""
    with tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


def run(text: str, home: Path) -> tuple[int, str]:
    """The exit code, and everything that was printed. Nothing goes on afterwards."""
    process = subprocess.Popen(
        ["bash", "-c", text],
        cwd=home,
        env={**terminal(), "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        told, _ = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        # Its group: `maewol up` stops its own, the trap waits for it.
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=90)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        told, _ = process.communicate()
        raise AssertionError(f"not over after {PATIENCE_SECONDS} s\n{told}") from None
    return process.returncode, told


@pytest.mark.timeout(PATIENCE_SECONDS + 120)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's commands use curl")
def test_the_page_leads_to_a_first_charge(home: Path) -> None:
    chargeable_now()
    found = commands("quickstart.md")
    assert len(found) > 20
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code, told = run(script(found, port), home)
    log = "".join(
        f"\n-- {path.name}\n{path.read_text(encoding='utf-8', errors='replace')[-3000:]}"
        for path in (home / "shop").glob("stays-*.txt")
    )
    assert code == 0, told + log
    assert "@@ done" in told
    assert '"ok":true' in told, "the sandbox's verdict"
    assert "9,900" in told
    report = list((home / "shop" / "report").glob("maewol-report-*"))
    assert {path.suffix for path in report} == {".html", ".csv"}
    assert len(report) == 5


def test_a_command_that_fails_is_seen(home: Path) -> None:
    code, told = run(script([Step("true", []), Step("false", []), Step("true", [])], 1), home)
    assert code == 1
    assert told.split() == ["@@", "0", "@@", "1"]
