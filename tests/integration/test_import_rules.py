"""The import rules are checks that can fail: each is shown a planted violation."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

SANDBOX_ALONE = "The sandbox imports nothing of ours"
SANDBOX_STARTED = "Only the command line starts the sandbox"
PLANTED = [
    ("billing/domain/money.py", "import billing.store.tables", "Inwards only"),
    ("billing/services/dispatch.py", "import billing.portone.client", "Inwards only"),
    ("billing/store/events.py", "import billing.services.record", "Inwards only"),
    ("worker/tasks.py", "import scheduler.app", "Inwards only"),
    ("billing/web/health.py", "import billing.cli.output", "Inwards only"),
    ("billing/signing.py", "import billing.settings", "Inwards only"),
    ("billing/consumer.py", "import worker.app", "Inwards only"),
    ("billing/sandbox/clock.py", "import billing.domain.money", SANDBOX_ALONE),
    ("billing/sandbox/clock.py", "import billing.clock", SANDBOX_ALONE),
    ("billing/services/dispatch.py", "import billing.sandbox", SANDBOX_STARTED),
    ("worker/app.py", "import billing.sandbox", SANDBOX_STARTED),
    ("billing/domain/money.py", "import sqlalchemy", "Rules know no framework"),
    ("billing/services/dispatch.py", "import celery", "Use cases know neither Celery nor httpx"),
]


@pytest.mark.parametrize(("file", "line", "rule"), PLANTED)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, line: str, rule: str) -> None:
    for package in ("billing", "scheduler", "worker", "migrations"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / file
    planted.write_text(f"{planted.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 1
    assert f"{rule} BROKEN" in done.stdout


def test_every_contract_is_shown_a_violation() -> None:
    assert {rule for _, _, rule in PLANTED} == {one["name"] for one in _contracts()}


def test_every_module_has_its_place() -> None:
    """One that stands in no layer may import and be imported as it likes."""
    modules = {
        f"billing.{path.stem}"
        for path in (ROOT / "billing").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"billing.__init__"}
    layers, alone = _contracts()[:2]
    layered = {name.strip() for layer in layers["layers"] for name in layer.split("|")}
    assert layered == {*modules - {"billing.sandbox"}, "scheduler", "worker"}
    assert {*alone["forbidden_modules"]} == layered


def _contracts() -> list[dict[str, Any]]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = document["tool"]["importlinter"]["contracts"]
    return found


@pytest.mark.parametrize(
    "line",
    [
        "import time; time.time()",
        "from time import monotonic",
        "import time as t; t.perf_counter()",
        "from datetime import datetime, UTC; datetime.now(UTC)",
        "import datetime; datetime.date.today()",
    ],
)
@pytest.mark.parametrize(
    ("file", "is_found"), [("billing/services/dispatch.py", True), ("billing/clock.py", False)]
)
def test_a_clock_is_read_in_one_place(line: str, file: str, is_found: bool) -> None:
    program = Path(sys.executable).with_name("ruff")
    done = subprocess.run(
        [program, "check", "--no-cache", "--select=TID251", f"--stdin-filename={file}", "-"],
        cwd=ROOT,
        input=f"{line}\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == (1 if is_found else 0), done.stdout
    assert ("TID251" in done.stdout) is is_found
