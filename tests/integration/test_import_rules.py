"""The import rules are checks that can fail: each is shown a planted violation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLANTED = [
    ("billing/domain/money.py", "import billing.store.tables", "Inwards only"),
    ("billing/services/dispatch.py", "import billing.portone.client", "Inwards only"),
    ("billing/store/events.py", "import billing.services.record", "Inwards only"),
    ("worker/tasks.py", "import scheduler.app", "Inwards only"),
    ("billing/web/health.py", "import billing.cli.output", "Inwards only"),
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
