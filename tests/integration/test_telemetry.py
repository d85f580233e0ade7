"""Traces and error reports are off, cost nothing where they are off, and stop nobody."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from billing.domain.errors import InvalidSetting
from billing.embedded import Servers
from billing.settings import Settings
from billing.store.session import Book
from billing.telemetry import scrubbed, start, wants_traces
from tests.builders import a_row, enrolled

# Redis-py brings in a part of OpenTelemetry for itself wherever it is installed.
SDKS = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "sentry_sdk")
DSN = "https://0123456789abcdef@errors.example/7"


def daemon(servers: Servers, database_url: str, code: str, **env: str) -> tuple[int, str, float]:
    """A worker's process that does this and ends: its exit code, what it said, how long it took
    from there to its end."""
    began = f"import sys, time\nimport worker.tasks\n{code}\nprint('ends', time.time(), flush=True)"
    done = subprocess.run(
        [sys.executable, "-c", began],
        env={
            "PATH": os.environ["PATH"],
            "MAEWOL_DATABASE_URL": database_url,
            "MAEWOL_BROKER_URL": servers.broker_url or "",
            "MAEWOL_PORTONE_IMP_KEY": "key",
            "MAEWOL_PORTONE_IMP_SECRET": "secret",
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    ended = re.search(r"ends ([\d.]+)", done.stdout)
    took = time.time() - float(ended[1]) if ended else 0.0
    return done.returncode, done.stdout + done.stderr, took


def test_where_nothing_is_set_nothing_is_imported(servers: Servers, database_url: str) -> None:
    code, said, _ = daemon(servers, database_url, f"print([m in sys.modules for m in {SDKS}])")
    assert code == 0, said
    assert "[False, False, False]" in said


def test_receivers_that_are_away_keep_nobody(servers: Servers, database_url: str) -> None:
    """A span and a report are waiting when the process is asked to end."""
    code, said, took = daemon(
        servers,
        database_url,
        "import logging; from billing import trail\n"
        "with trail.span('x'): logging.getLogger('billing').error('an error')",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        MAEWOL_SENTRY_DSN="http://0123456789abcdef@127.0.0.1:9/7",
    )
    assert code == 0, said
    # A worker has 15 s to leave after its last request (`up.LEAVING_SECONDS`).
    assert took < 12


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "sentry_sdk"):
        monkeypatch.setitem(sys.modules, name, None)
    # Asked for by name, Sentry must be there; what a platform asks of everybody need not.
    with pytest.raises(InvalidSetting, match=r"maewol\[sentry\]") as refused:
        start(Settings.load(sentry_dsn=DSN), "maewol-test")
    assert "0123456789abcdef" not in str(refused.value)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    start(Settings.load(), "maewol-test")
    assert "maewol[otel]" in caplog.text


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_standard_variables_decide(environ: Mapping[str, str], wanted: bool) -> None:
    assert wants_traces(environ) is wanted


@pytest.mark.parametrize(
    "dsn", ["errors.example", "http://key@errors.example/7", "https://errors.example/7",
            "https://key@errors.example", "ftp://key@errors.example/7"],
)  # fmt: skip
def test_a_wrong_dsn_is_refused_and_not_shown(dsn: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        Settings.load(sentry_dsn=dsn)
    assert "SENTRY_DSN" in str(refused.value)
    assert "errors.example" not in str(refused.value)


def test_a_report_keeps_what_is_known_to_be_nobodys() -> None:
    """Whatever the SDK may add one day."""
    somebody = "홍길동"
    frame = {"filename": "charge.py", "lineno": 7, "vars": {"buyer": somebody}}
    event = {
        "level": "error",
        "user": {"username": somebody},
        "request": {"data": somebody},
        "extra": {"args": somebody},
        "breadcrumbs": {"values": [{"message": somebody}]},
        "tags": {"customer": somebody},
        "exception": {
            "values": [{"type": "KeyError", "value": somebody, "stacktrace": {"frames": [frame]}}]
        },
        "something_new": somebody,
    }
    kept = scrubbed(event, {})  # type: ignore[arg-type]  # as an SDK of another version may
    assert somebody not in str(kept)
    assert kept["level"] == "error"
    assert kept["exception"]["values"][0]["stacktrace"] == {
        "frames": [{"filename": "charge.py", "lineno": 7}]
    }


def test_an_error_of_the_database_does_not_show_the_row(book: Book, policy: object) -> None:
    """PostgreSQL's DETAIL is the row itself, and a task's error goes to logs and to Flower."""
    enrolled(book, policy, a_row(1))  # type: ignore[arg-type]
    again = text(
        "INSERT INTO buyers (subscription_id, name)"
        " SELECT subscription_id, '임꺽정' FROM buyers LIMIT 1"
    )
    with pytest.raises(IntegrityError) as refused, book.transaction() as tx:
        tx.session.execute(again)
    assert refused.value.orig is not None
    for said in (str(refused.value), repr(refused.value), str(refused.value.orig)):
        assert "duplicate key" in said
        assert "DETAIL" not in said
        assert "subscription_id" not in said.partition("[SQL")[0]
