"""Who traces and reports of errors are sent to: a small server on this machine for both."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    name: str
    service: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]


@dataclass
class Receivers:
    """What has come in: raw, so that anything in it can be searched for, and read."""

    port: int = 0
    traces: list[bytes] = field(default_factory=list)
    envelopes: list[bytes] = field(default_factory=list)

    @property
    def otlp(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def dsn(self) -> str:
        return f"http://0123456789abcdef@127.0.0.1:{self.port}/7"

    def spans(self) -> list[Span]:
        return [span for body in list(self.traces) for span in _spans(body)]

    def reports(self) -> list[dict[str, Any]]:
        """The events of all envelopes: lines of JSON, of which the third is the first item."""
        return [json.loads(body.split(b"\n")[2]) for body in list(self.envelopes)]


@contextlib.contextmanager
def receivers() -> Iterator[Receivers]:
    """An OTLP/HTTP and a Sentry endpoint that take everything."""
    made = Receivers()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            kept = made.traces if self.path == "/v1/traces" else made.envelopes
            kept.append(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _spans(body: bytes) -> Iterator[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        of = {one.key: one.value.string_value for one in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    service=of.get("service.name", ""),
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    attributes={
                        one.key: one.value.string_value or one.value.int_value
                        for one in span.attributes
                    },
                )
