"""What `make fuzz` makes of how a target ended; atheris itself is played."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import __main__ as runner

DONE = "#2\tINITED cov: 105\n#4096\tpulse\nDone 5123 runs in 4 second(s)\n"
# A line of a traceback is no count.
RAISED = "#2\tINITED cov: 105\n#17\tNEW cov: 118\n === Uncaught Python exception: ===\nKeyError\n"


def ending(returncode: int, stderr: str, leaving: bytes | None = None) -> Any:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        (prefix,) = [one for one in command if one.startswith("-artifact_prefix=")]
        if leaving is not None:
            Path(f"{prefix.partition('=')[2]}crash-1").write_bytes(leaving)
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    return run


@pytest.mark.parametrize(
    ("ended", "executions", "verdict"),
    [
        (ending(0, DONE), 5123, "nothing"),
        (ending(77, RAISED, b"\xff"), 17, "FOUND"),
        (ending(1, "ImportError: no such thing"), 0, "DID NOT RUN"),
        (ending(0, ""), 0, "DID NOT RUN"),
    ],
)
def test_each_end_has_its_verdict(
    monkeypatch: pytest.MonkeyPatch, ended: Any, executions: int, verdict: str
) -> None:
    monkeypatch.setattr(subprocess, "run", ended)
    found = runner.fuzz(4, "moment")
    assert (found.executions, found.verdict) == (executions, verdict)
    # The folder is gone by then: the input is told, whole.
    assert ("/w==" in found.told) is (verdict == "FOUND")


def test_one_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert runner.fuzz(4, "moment").verdict == "HUNG"


@pytest.mark.parametrize(("verdict", "code"), [("nothing", 0), ("FOUND", 1), ("DID NOT RUN", 1)])
def test_one_bad_end_fails_the_whole(
    monkeypatch: pytest.MonkeyPatch, verdict: str, code: int
) -> None:
    def fuzz(_: int, name: str) -> runner.Run:
        return runner.Run(name, 9, verdict if name == "moment" else "nothing")

    monkeypatch.setattr(runner, "fuzz", fuzz)
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda _: object())
    assert runner.main(4, []) == code


@pytest.mark.parametrize(("switch", "code"), [(None, 0), ("required", 1)])
def test_where_there_is_no_fuzzer_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    switch: str | None,
    code: int,
) -> None:
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda _: None)
    monkeypatch.delenv("FUZZ", raising=False)
    if switch:
        monkeypatch.setenv("FUZZ", switch)
    assert runner.main(4, []) == code
    told = capsys.readouterr().out
    assert told.startswith("fuzz: NOT FUZZED")
    assert sys.platform in told
