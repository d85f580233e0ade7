"""The command line as a merchant types it: documents, exit codes, errors that say what to do.

Most run in this process (`tests/called.py`); those of the shell itself are real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from billing.embedded import Servers
from tests.builders import HEADER
from tests.called import Call, document

# Those in a process of their own load Celery and SQLAlchemy: seconds each on a busy machine.
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


@pytest.fixture
def shell(database_url: str, servers: Servers, tmp_path: Path) -> Shell:
    return Shell(database_url, servers, tmp_path)


def file(folder: Path, *rows: str) -> str:
    path = folder / "subscribers.csv"
    path.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")
    return str(path)


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


def test_import_show_pause_resume_cancel(call: Call, tmp_path: Path) -> None:
    dry = call("subscription", "import", file(tmp_path, row("a"), row("b", "99")), "--dry-run")
    assert (dry.code, "│ would be added │ 0" in dry.out) == (1, True)
    assert "line 3, field amount, value 99, problem is below 301" in dry.out
    report = document(call, "subscription", "import", file(tmp_path, row("a"), row("b")))
    assert report == {"read": 2, "added": 2, "unchanged": 0, "rejected": []}
    assert {one["customer_uid"] for one in document(call, "subscription", "list")} == {"a", "b"}
    for command, status in [
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "active"),
        ("cancel", "cancelled"),
    ]:
        assert document(call, "subscription", command, "a")["status"] == status
    refused = call("subscription", "resume", "a")
    assert refused.code == 1
    assert "cancelled cannot become active" in refused.err
    counts = document(call, "status")
    assert counts["subscriptions"] == {"active": 1, "paused": 0, "suspended": 0, "cancelled": 1}
    assert (counts["won_collected"], counts["invariants_broken"], counts["hold"]) == (0, 0, None)
    facts = document(call, "invariants")
    assert len(facts) > 10
    assert all(
        set(one) == {"name", "statement", "rows", "remedy"} and not one["rows"] for one in facts
    )
    assert document(call, "why", "b")["status"] == "not opened"


def test_in_a_pipe_a_row_is_one_line_and_a_message_too(shell: Shell) -> None:
    long = "a-customer-uid-that-is-longer-than-one-would-like-to-type"
    assert shell.run("subscription", "import", file(shell.folder, row(long))).returncode == 0
    listed = shell.run("subscription", "list")
    (line,) = (line for line in listed.stdout.splitlines() if "customer-uid" in line)
    assert all(cell in line for cell in (long, "9,900", "active")), listed.stdout
    assert len(line) > 80
    refused = shell.run("subscription", "pause", "nobody-" + long)
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    folded = shell.run("subscription", "list", COLUMNS="60")
    assert all(len(line) <= 60 for line in folded.stdout.splitlines()), folded.stdout


def test_a_bad_file_exits_1_with_its_report(call: Call, tmp_path: Path) -> None:
    report = document(
        call, "subscription", "import", file(tmp_path, row("a"), row("b", "９９００")), code=1
    )
    assert (report["read"], report["added"]) == (2, 0)
    assert [(one["line"], one["field"]) for one in report["rejected"]] == [(3, "amount")]
    assert document(call, "subscription", "list") == []


def test_add_says_what_is_wrong(call: Call) -> None:
    words = ["subscription", "add", "--customer-uid", "a", "--order-name", "plan"]
    paid = ["--initial-paid-at", "2026-01-20T10:00:00+09:00"]
    assert document(call, *words, *paid, "--amount", "9900")["amount"] == 9900
    changed = call(*words, *paid, "--amount", "8800")
    assert changed.code == 1
    assert "amount" in changed.err
    small = call(*words, *paid, "--amount", "300")
    assert "below 301" in small.err


def test_hold_and_release(call: Call) -> None:
    assert document(call, "hold", "--why", "a drill")["hold"] == "a drill"
    assert document(call, "status")["hold"] == "a drill"
    released = document(call, "release")
    since = datetime.fromisoformat(released.pop("held_since"))
    assert abs(since - datetime.now(UTC)) < timedelta(minutes=5)
    assert released == {"hold": None, "released": "a drill", "tried_again": 0}
    again = call("release", "--json")
    nothing = {"hold": None, "released": None, "held_since": None, "tried_again": 0}
    assert json.loads(again.out) == nothing
    assert "Nothing was held" in again.err
    refused = document(call, "release", "nobody", code=1)
    assert refused == {"error": "no subscription has the customer_uid 'nobody'"}
    assert document(call, "status")["hold"] is None


def test_doctor_names_what_is_not_running(call: Call) -> None:
    found = document(call, "doctor", code=1)
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
    call: Call, name: str, value: str, said: str
) -> None:
    done = call("status", **{name: value})
    assert done.code == 2
    assert name in done.err
    assert said in done.err
    assert "hunter2" not in done.err
    assert "Traceback" not in done.err


def test_a_database_that_is_away_is_one_clear_line(shell: Shell) -> None:
    away = "postgresql+psycopg://user:hunter2@127.0.0.1:9/none"
    done = shell.run("status", MAEWOL_DATABASE_URL=away)
    assert done.returncode == 1
    assert "MAEWOL_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_doctor_reports_a_database_that_is_away(call: Call) -> None:
    done = call(
        "doctor", "--json", DATABASE_URL="postgresql+psycopg://user:hunter2@127.0.0.1:9/none"
    )
    assert done.code == 1
    checks = {check["name"]: check for check in json.loads(done.out)["checks"]}
    assert not checks["database"]["ok"]
    assert "MAEWOL_DATABASE_URL" in checks["database"]["remedy"]
    assert "hunter2" not in done.out + done.err
