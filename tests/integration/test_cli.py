"""The command line as a merchant types it: documents, exit codes, errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from billing.embedded import Servers
from tests.builders import HEADER

# Every command is a process that loads Celery and SQLAlchemy: seconds each on a busy machine.
pytestmark = pytest.mark.timeout(600)


class Shell:
    """Runs `maewol` as a process of its own against this test's database."""

    def __init__(self, database_url: str, servers: Servers, folder: Path) -> None:
        assert servers.broker_url is not None
        self.folder = folder
        # A test's own terminal has a width; a pipe has none.
        self.env = {
            **{name: value for name, value in os.environ.items() if name != "COLUMNS"},
            "MAEWOL_DATABASE_URL": database_url,
            "MAEWOL_BROKER_URL": servers.broker_url,
        }

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from billing.cli import main; main()", *words],
            env={**self.env, **env},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def document(self, *words: str, code: int = 0) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def file(self, *rows: str) -> str:
        path = self.folder / "subscribers.csv"
        path.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")
        return str(path)


@pytest.fixture
def shell(database_url: str, servers: Servers, tmp_path: Path) -> Shell:
    return Shell(database_url, servers, tmp_path)


def row(uid: str, amount: str = "9900") -> str:
    paid = (datetime.now(UTC) - timedelta(days=40)).isoformat()
    return f"{uid},{amount},plan,{paid},홍길동,010-1234-5678"


def test_windows_needs_no_server() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "billing.cli", "windows"),
            *("--initial-paid-on", "2024-01-31", "--months", "1", "--json"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == [
        {
            "cycle": 1,
            "due_on": "2024-02-29",
            "opens_on": "2024-02-24",
            "closes_on": "2024-02-29",
            "first_attempt_on": "2024-02-26",
            "last_attempt_on": "2024-02-29",
        }
    ]


def test_import_show_pause_resume_cancel(shell: Shell) -> None:
    report = shell.document("subscription", "import", shell.file(row("a"), row("b")))
    assert report == {"read": 2, "added": 2, "unchanged": 0, "rejected": []}
    assert {one["customer_uid"] for one in shell.document("subscription", "list")} == {"a", "b"}
    for command, status in [
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "active"),
        ("cancel", "cancelled"),
    ]:
        assert shell.document("subscription", command, "a")["status"] == status
    refused = shell.run("subscription", "resume", "a")
    assert refused.returncode == 1
    assert "cancelled cannot become active" in refused.stderr
    counts = shell.document("status")
    assert counts["subscriptions"] == {"active": 1, "paused": 0, "suspended": 0, "cancelled": 1}
    assert (counts["won_collected"], counts["invariants_broken"], counts["hold"]) == (0, 0, None)
    facts = shell.document("invariants")
    assert len(facts) > 10
    assert all(set(one) == {"name", "statement", "rows"} and not one["rows"] for one in facts)
    assert shell.document("why", "b")["status"] == "not opened"


def test_in_a_pipe_a_row_is_one_line_and_a_message_too(shell: Shell) -> None:
    long = "a-customer-uid-that-is-longer-than-one-would-like-to-type"
    shell.document("subscription", "import", shell.file(row(long)))
    listed = shell.run("subscription", "list")
    (line,) = (line for line in listed.stdout.splitlines() if "customer-uid" in line)
    assert all(cell in line for cell in (long, "9,900", "active")), listed.stdout
    assert len(line) > 80
    refused = shell.run("subscription", "pause", "nobody-" + long)
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    folded = shell.run("subscription", "list", COLUMNS="60")
    assert all(len(line) <= 60 for line in folded.stdout.splitlines()), folded.stdout


def test_a_bad_file_exits_1_with_its_report(shell: Shell) -> None:
    report = shell.document(
        "subscription", "import", shell.file(row("a"), row("b", "９９００")), code=1
    )
    assert (report["read"], report["added"]) == (2, 0)
    assert [(one["line"], one["field"]) for one in report["rejected"]] == [(3, "amount")]
    assert shell.document("subscription", "list") == []


def test_add_says_what_is_wrong(shell: Shell) -> None:
    words = ["subscription", "add", "--customer-uid", "a", "--order-name", "plan"]
    paid = ["--initial-paid-at", "2026-01-20T10:00:00+09:00"]
    assert shell.document(*words, *paid, "--amount", "9900")["amount"] == 9900
    changed = shell.run(*words, *paid, "--amount", "8800")
    assert changed.returncode == 1
    assert "amount" in changed.stderr
    small = shell.run(*words, *paid, "--amount", "300")
    assert "below 301" in small.stderr


def test_hold_and_release(shell: Shell) -> None:
    assert shell.document("hold", "--why", "a drill") == {"hold": "a drill"}
    assert shell.document("status")["hold"] == "a drill"
    assert shell.document("release") == {"hold": None, "tried_again": 0}
    refused = shell.document("release", "nobody", code=1)
    assert refused == {"error": "no subscription has the customer_uid 'nobody'"}
    assert shell.document("status")["hold"] is None


def test_doctor_names_what_is_not_running(shell: Shell) -> None:
    found = shell.document("doctor", code=1)
    failing = {check["name"] for check in found["checks"] if not check["ok"]}
    assert failing == {"workers seen", "last tick", "credentials"}
    assert all(check["remedy"] for check in found["checks"] if not check["ok"])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LEASE_SECONDS", "30", "PORTONE_TIMEOUT_SECONDS"),
        ("CHARGE_CRON", "every day", "CHARGE_CRON"),
        ("CHARGE_CRON", "0 10 1 * *", "CHARGE_CRON"),
        ("TIMEZONE", "Europe/Paris", "Asia/Seoul"),
        ("WINDOW_DAYS", "6", "WINDOW_DAYS"),
        ("PORTONE_API_URL", "http://example.com", "https"),
        ("CHARGES_PER_SECOND", "fast", "CHARGES_PER_SECOND"),
        ("DATABASE_URL", "mysql://user:hunter2@db/x", "PostgreSQL"),
    ],
)
def test_a_wrong_setting_stops_with_name_and_remedy(
    shell: Shell, name: str, value: str, said: str
) -> None:
    done = shell.run("status", **{f"MAEWOL_{name}": value})
    assert done.returncode == 2
    assert name in done.stderr
    assert said in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_away_is_one_clear_line(shell: Shell) -> None:
    away = "postgresql+psycopg://user:hunter2@127.0.0.1:9/none"
    done = shell.run("status", MAEWOL_DATABASE_URL=away)
    assert done.returncode == 1
    assert "MAEWOL_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_doctor_reports_a_database_that_is_away(shell: Shell) -> None:
    done = shell.run(
        "doctor", "--json", MAEWOL_DATABASE_URL="postgresql+psycopg://user:hunter2@127.0.0.1:9/none"
    )
    assert done.returncode == 1
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert not checks["database"]["ok"]
    assert "MAEWOL_DATABASE_URL" in checks["database"]["remedy"]
    assert "hunter2" not in done.stdout + done.stderr
