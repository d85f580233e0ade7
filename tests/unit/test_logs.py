"""What a log line shows of an error."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import psycopg
import pytest
import structlog
from sqlalchemy.exc import IntegrityError, OperationalError, TimeoutError

from billing import logs

AWAY = OperationalError("SELECT 1", {}, psycopg.OperationalError("Connection refused"))


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    logging.captureWarnings(False)


def told(
    capsys: pytest.CaptureFixture[str], error: Exception, *, by_celery: bool
) -> dict[str, str]:
    logs.configure("json", "INFO")
    try:
        raise error
    except Exception as caught:
        if by_celery:
            logging.getLogger("celery.app.trace").error(
                "Task %s[%s] raised unexpected: %r",
                "maewol.tick.open",
                "an-id",
                caught,
                exc_info=True,
            )
        else:
            structlog.get_logger("ours").exception("could not look")
    line: dict[str, str] = json.loads(capsys.readouterr().err)
    return line


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (AWAY, "nothing listens at that address"),
        (TimeoutError("QueuePool limit of size 5 overflow 5 reached"), "TimeoutError"),
    ],
)
def test_a_database_that_is_away_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], error: Exception, why: str
) -> None:
    line = told(capsys, error, by_celery=True)
    assert line["event"] == (
        f"Task maewol.tick.open[an-id] raised unexpected: the database is away: {why}"
    )
    assert line["level"] == "error"
    assert "exception" not in line
    ours = told(capsys, error, by_celery=False)
    assert ours["event"] == f"could not look: the database is away: {why}"
    assert "exception" not in ours


def test_any_other_error_keeps_its_frames(capsys: pytest.CaptureFixture[str]) -> None:
    refused = IntegrityError("INSERT", {}, psycopg.errors.UniqueViolation("twice"))
    for error in (refused, ValueError("odd")):
        line = told(capsys, error, by_celery=True)
        assert "exception" in line
        assert type(error).__name__ in line["event"]
