"""Traces and reports of errors, each by a setting and an extra; not even imported otherwise.

Both leave the house, so both say what happened and never with whom: no arguments, no local
variables, no bodies, no texts of exceptions. And neither may ever stop a charge: they work in
threads of their own and drop what they cannot get rid of.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from celery import signals

from billing import __version__, trail
from billing.domain.errors import InvalidSetting
from billing.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer
    from sentry_sdk.types import Event, Hint

_log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_TIMEOUTS = ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
# A process that is asked to end sends its last spans first, and has other things to do by then.
_TIMEOUT_SECONDS = 3
# Whose texts are known to hold nothing of anybody; of others only the name of the logger is sent.
_OUR_LOGGERS = ("billing", "celery", "scheduler", "worker")
_KEPT = ("event_id", "timestamp", "platform", "level", "logger", "release", "environment", "sdk")
_KEPT_OF_A_FRAME = (
    *("filename", "abs_path", "function", "module", "lineno", "in_app"),
    *("pre_context", "context_line", "post_context"),
)


def start(settings: Settings, process: str) -> None:
    """Switch on what is set, for this process. Raises `InvalidSetting`."""
    _report_errors(settings)
    if wants_traces(os.environ):
        _trace(process)


# -- traces: OpenTelemetry, set up by its own variables ---------------------------------------


def wants_traces(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces by OTLP."""
    return (
        any(environ.get(name) for name in _ENDPOINTS)
        and environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
        and environ.get("OTEL_SDK_DISABLED", "false").lower() != "true"
    )


def _trace(process: str) -> None:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        # A platform may set these variables for everybody: no reason not to charge.
        _log.warning("OTEL_… asks for traces, but they need `pip install 'maewol[otel]'`")
        return
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": process}
    provider = TracerProvider(resource=Resource.create({"service.version": __version__, **named}))
    set_by_them = any(os.environ.get(name) for name in _TIMEOUTS)
    exporter = OTLPSpanExporter(timeout=None if set_by_them else _TIMEOUT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    # Ours alone: where a provider is the process's, libraries trace by it too, and FastAPI would
    # send paths, which hold `customer_uid`s.
    tracer = provider.get_tracer("maewol", __version__)
    trail.trace_by(lambda name, attributes: _span(tracer, name, attributes))
    _trace_tasks(tracer)


@contextlib.contextmanager
def _span(
    tracer: Tracer, name: str, attributes: Mapping[str, str | int], parent: Context | None = None
) -> Iterator[Any]:
    from opentelemetry.trace import StatusCode

    # Their own way would send the texts of exceptions.
    with tracer.start_as_current_span(
        name,
        context=parent,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def _trace_tasks(tracer: Tracer) -> None:
    """A span over each task; the tasks that it sends go on with its trace."""
    from opentelemetry.propagate import extract, inject
    from opentelemetry.trace import StatusCode, get_current_span

    running: dict[str, contextlib.ExitStack] = {}

    def sent(headers: dict[str, Any], **_: object) -> None:
        inject(headers)

    def begun(task_id: str, task: Any, **_: object) -> None:
        known = {"traceparent": str(task.request.get("traceparent") or "")}
        marks = {**trail.mark(), "task": task_id}
        running[task_id] = exits = contextlib.ExitStack()
        exits.enter_context(_span(tracer, task.name, marks, extract(known)))

    def ended(task_id: str, state: str | None, **_: object) -> None:
        exits = running.pop(task_id, None)
        if exits is not None:
            if state != "SUCCESS":
                get_current_span().set_status(StatusCode.ERROR)
            exits.close()

    signals.before_task_publish.connect(sent, weak=False)
    signals.task_prerun.connect(begun, weak=False)
    signals.task_postrun.connect(ended, weak=False)


# -- errors: Sentry, by SENTRY_DSN ------------------------------------------------------------


def _report_errors(settings: Settings) -> None:
    if settings.sentry_dsn is None:
        return
    try:
        import sentry_sdk
        from sentry_sdk.integrations.atexit import AtexitIntegration
        from sentry_sdk.integrations.logging import LoggingIntegration
    except ImportError:
        raise InvalidSetting(
            "SENTRY_DSN", "********", "set, but the package is not there",
            "Install it with `pip install 'maewol[sentry]'`",
        ) from None  # fmt: skip
    sentry_sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        release=f"maewol@{__version__}",
        # What is an error is logged as one, by Celery, by the HTTP edge and by us.
        integrations=[
            LoggingIntegration(level=None, event_level=logging.ERROR),
            AtexitIntegration(callback=lambda pending, timeout: None),
        ],
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        send_client_reports=False,
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        before_send=scrubbed,
    )


def scrubbed(event: Event, hint: Hint) -> Event:
    """The event with what is known to be nobody's: where in our code, which kind of error, and in
    which trail. All else is left out, whatever a later version of the SDK may add."""
    whole: dict[str, Any] = dict(event)
    kept = {name: whole[name] for name in _KEPT if name in whole}
    kept["tags"] = trail.marks()
    kept["logentry"] = {"message": _said(hint.get("log_record"))}
    if "exception" in whole:
        kept["exception"] = {"values": [_raised(one) for one in whole["exception"]["values"]]}
    return kept  # type: ignore[return-value]  # a part of it


def _said(record: logging.LogRecord | None) -> str:
    """What was logged, without what was put into it."""
    if record is None:
        return "an error"
    if record.name.partition(".")[0] not in _OUR_LOGGERS:
        return record.name
    return str(record.msg.get("event") if isinstance(record.msg, dict) else record.msg)


def _raised(one: Mapping[str, Any]) -> dict[str, Any]:
    frames = (one.get("stacktrace") or {}).get("frames") or []
    return {
        "type": one.get("type"),
        "module": one.get("module"),
        "stacktrace": {
            "frames": [
                {name: frame[name] for name in _KEPT_OF_A_FRAME if name in frame}
                for frame in frames
            ]
        },
    }
