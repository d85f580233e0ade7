"""`make fuzz`: each target guided by coverage (atheris), in a process of its own.

`python -m tests.fuzz SECONDS [NAME …]`; exit 1 when a target raised what it must not, hung, or ran
not at all. Where there is no atheris it says so and leaves all out, but for FUZZ=required.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_CHILD = "--child"
# One input takes far less than a millisecond. On a busy machine, too, this is a hang.
_HUNG_SECONDS = 30
# A whole target beyond its time: to start, and to be seen to hang.
_PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Run:
    """What became of one target."""

    name: str
    executions: int
    verdict: str
    told: str = ""


def child(name: str, arguments: list[str]) -> None:
    """Runs inside a process of its own: atheris ends it."""
    import atheris  # type: ignore[import-not-found,unused-ignore]

    # It knows packages as wholes. Instrumenting the libraries, too, takes minutes.
    with atheris.instrument_imports(include=["billing"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def fuzz(seconds: int, name: str) -> Run:
    """Fuzz one target; how many executions, and what was found."""
    from tests.fuzz.targets import SEEDS

    with tempfile.TemporaryDirectory(prefix="mw-fuzz-") as folder:
        known, found = Path(folder) / "known", Path(folder) / "found"
        known.mkdir()
        found.mkdir()
        for number, data in enumerate(SEEDS[name]):
            (known / str(number)).write_bytes(data)
        limits = [f"-max_total_time={seconds}", "-max_len=4096", f"-timeout={_HUNG_SECONDS}"]
        limits.append(f"-artifact_prefix={found}/")
        command = [sys.executable, "-m", "tests.fuzz", _CHILD, name, *limits, str(known)]
        try:
            ended = subprocess.run(
                command,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                timeout=seconds + _PATIENCE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return Run(name, 0, "HUNG")
        inputs = [base64.b64encode(one.read_bytes()).decode() for one in sorted(found.iterdir())]
    counted = re.findall(r"^(?:Done |#)(\d+)\b", ended.stderr, re.MULTILINE)
    executions = max(map(int, counted), default=0)
    # The traceback is on stdout; what libFuzzer says of its progress helps nobody.
    lines = [line for line in ended.stderr.splitlines() if not line.startswith(("#", "INFO:"))]
    told = "\n".join([ended.stdout[-4000:], *lines])[-8000:]
    if ended.returncode and inputs:
        told += "\nfor SEEDS (tests/fuzz/targets.py), in base64:\n" + "\n".join(inputs)
        return Run(name, executions, "FOUND", told)
    if ended.returncode or not executions:
        return Run(name, executions, "DID NOT RUN", told)
    return Run(name, executions, "nothing")


def main(seconds: int, names: list[str]) -> int:
    """Fuzz the targets, one on each processor; print each as it ends."""
    if importlib.util.find_spec("atheris") is None:
        return left_out()
    from tests.fuzz.targets import TARGETS

    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as side_by_side:
        for run in side_by_side.map(partial(fuzz, seconds), names or TARGETS):
            print(f"{run.name:22} {run.executions:>12,} executions  {run.verdict}", flush=True)
            if run.verdict != "nothing":
                failed += 1
                print(run.told, flush=True)
    return 1 if failed else 0


def left_out() -> int:
    """Say what was not done, and why."""
    here = f"Python {platform.python_version()} on {sys.platform} {platform.machine()}"
    print(
        f"fuzz: NOT FUZZED: no atheris here ({here}). `make fuzz` installs it from"
        " requirements/fuzz.txt, which has it for Python 3.11 to 3.13 on Linux x86_64."
        " What needs no guidance is in `make test` (tests/fuzz)."
    )
    return 1 if os.environ.get("FUZZ") == "required" else 0


if __name__ == "__main__":
    if sys.argv[1] == _CHILD:
        child(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
