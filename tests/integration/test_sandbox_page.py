"""docs/sandbox.md is true: its commands are run, and answer as it says."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import heard
from tests.console_blocks import blocks, steps, terminal

PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text("utf-8")


def is_as_shown(shown: list[str], told: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in "\n".join(shown).split("…"))
    return re.match(pattern, told, re.DOTALL) is not None


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A shell where `maewol` is ours, in a folder with the page's faults file."""
    (toml,) = (text for kind, text in blocks(PAGE) if kind == "toml")
    (tmp_path / "faults.toml").write_text(toml, "utf-8")
    with subprocess.Popen(
        ["bash"],
        cwd=tmp_path,
        env=terminal(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def told_by(shell: subprocess.Popen[str], command: str) -> tuple[int, str]:
    """The exit code and what was printed. What does not end is left in the background."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    if command.startswith("maewol sandbox"):
        shell.stdin.write(f"{command} & sandbox=$!\n")
        shell.stdin.flush()
        return 0, shell.stdout.readline()
    shell.stdin.write(f"{command}\necho; echo @@ $?\n")
    shell.stdin.flush()
    told, _, code = heard.until(shell.stdout, "\n@@ ").rpartition("\n@@ ")
    return int(code), told


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's commands use curl")
def test_every_command_of_the_page_answers_as_it_shows(shell: subprocess.Popen[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    found = list(steps(PAGE))
    assert len(found) > 15
    try:
        for step in found:
            code, told = told_by(shell, step.command.replace("8888", port))
            shown = [line.replace("8888", port) for line in step.shown]
            assert is_as_shown(shown, told), f"{step.command}\n{told}"
            assert code == 0, f"{step.command}\n{told}"
    finally:
        told_by(shell, "kill $sandbox; wait $sandbox")


def test_the_comparison_finds_differences() -> None:
    assert is_as_shown(['{"code":0,…"status":"paid"'], '{"code":0,"a":1,"status":"paid"}')
    assert not is_as_shown(['{"code":0,…"status":"paid"'], '{"code":1,"status":"paid"}')
    assert not is_as_shown(["curl: exit …"], "")
