"""Logging: one line an event, JSON for machines or plain for people, never personal data.

Through the standard library's logging on purpose: it swallows a full disk or a closed pipe, which
must not break the recording of a charge.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from billing.store.session import is_away
from billing.store.trouble import why

# These log whole addresses, and with them `customer_uid`s, at INFO.
_CHATTY = ("httpx", "httpcore", "aiohttp", "amqp", "kombu", "asyncio", "alembic")
# What they say of every message we say ourselves, with its correlation id (`carrying`).
_TOLD_BY_US = ("celery.app.trace", "celery.worker.strategy", "celery.beat")
# Tells all its settings at DEBUG, keys of its own among them.
_SECRETIVE = ("flower.command",)
_PRIVATE = frozenset(
    {
        "customer_uid",
        "buyer_name",
        "buyer_email",
        "buyer_tel",
        "name",
        "email",
        "tel",
        "imp_key",
        "imp_secret",
        "access_token",
        "authorization",
        "password",
        "token",
    }
)


_stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)


def configure(log_format: str, log_level: str) -> None:
    """Send every log line of this process to stderr, in one format."""
    logging.raiseExceptions = False
    # Else they are plain text, of several lines.
    logging.captureWarnings(True)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        _stamp,
        _without_private_fields,
        _in_one_line,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(log_format),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(log_level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _SECRETIVE:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    for name in _TOLD_BY_US:
        logging.getLogger(name).setLevel(logging.DEBUG if log_level == "DEBUG" else logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def record(logger: str, event: str) -> bytes:
    """A line of JSON for what cannot go through the loggers."""
    told = _stamp(None, "info", {"event": event, "logger": logger, "level": "info"})
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


def _rendering(log_format: str) -> list[Any]:
    if log_format == "console":
        return [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    # Tracebacks without local variables: those hold secrets and people's data.
    formatter = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(formatter),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]


def _without_private_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for key in event.keys() & _PRIVATE:
        event[key] = "[hidden]"
    return event


def _in_one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A database that is away is told in a line: every tick meets it, until it is back, and a page
    of frames each time says nothing more."""
    error = event.get("exc_info")
    if isinstance(error, tuple):
        error = error[1]
    elif error is True:
        error = sys.exc_info()[1]
    if not isinstance(error, Exception) or not is_away(error):
        return event
    told = {key: value for key, value in event.items() if key != "exc_info"}
    # Celery's own sentence goes on with the error and its statement.
    said = str(event["event"]).partition(f": {type(error).__name__}(")[0]
    return told | {"event": f"{said}: the database is away: {why(error)}"}
