"""`/metrics` for Prometheus: gauges from the book, counters from its event log, and what the
workers have added up in the broker.

Every web process counts from the newest line at its own start, which is what Prometheus expects of
a counter. Lines are counted one scrape after they were first seen, so that a transaction that
took its numbers earlier and committed later is not passed over.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import accumulate

from fastapi import APIRouter, Depends, FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

import billing
from billing import clock
from billing.bootstrap import quick_redis
from billing.meter import SECONDS as CALL_SECONDS
from billing.meter import Calls, Shared
from billing.services.measure import Gateway, Measured, measure, newest_line
from billing.settings import Settings
from billing.store.gauges import LINES_AT_ONCE, SECONDS
from billing.web.access import check_watcher
from billing.web.edge import Edge

router = APIRouter(tags=["health"])

_WAITING = {
    "due": ("attempts_due", "Attempts planned, now or later"),
    "ready": ("attempts_ready", "Attempts that may go now and were not claimed yet"),
    "oldest_ready_seconds": (
        "oldest_ready_seconds",
        "Since the slot of the oldest attempt that may go",
    ),
    "outstanding": ("attempts_outstanding", "Attempts handed to workers and not finished"),
    "sending": ("attempts_sending", "Attempts whose request may be on its way"),
    "unknown": ("attempts_unknown", "Attempts whose outcome the gateway is asked for"),
    "open": ("cycles_open", "Months that are open"),
    "closing_soon": ("cycles_closing_soon", "Open months that close within CLOSING_SOON_HOURS"),
    "held": ("cycles_held", "Open months that a person must look at"),
    "oldest_unopened_seconds": ("oldest_unopened_seconds", "Age of the oldest month not opened"),
    "differences": ("differences_open", "Differences between ledger and book"),
    "refunds": ("refunds_open", "Refunds under way"),
    "notices": ("notices_waiting", "Notices not delivered yet"),
    "dead_notices": ("notices_dead", "Notices given up"),
    "webhooks": ("webhooks_waiting", "Announcements not looked up yet"),
}


class BookCollector(Collector):
    """Reads the book at each scrape; see the module."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._shared = Shared(quick_redis(edge.house.broker))
        self._lock = threading.Lock()
        self._after = self._newest = newest_line(edge.book)
        self._lines: Counter[tuple[str, str]] = Counter()
        self._alarms: Counter[str] = Counter()
        self._won = 0
        self._classes: Counter[int] = Counter()
        self._seconds = 0.0

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            up_to = min(self._newest, self._after + LINES_AT_ONCE)
            found = measure(self._edge.book, self._edge.policy, self._after, up_to)
            self._after, self._newest = up_to, max(found.newest, self._newest)
            self._count(found)
            wanted = _notices_wanted(self._edge.settings)
            return [*_gauges(found), wanted, *self._counters(), *self._of_the_broker()]

    def describe(self) -> Iterable[Metric]:
        return ()

    def _count(self, found: Measured) -> None:
        for one in found.told:
            self._lines[one.kind, one.decline_class] += one.lines
            self._won += one.won
            if one.alarm:
                self._alarms[one.kind] += one.lines
        for some in found.durations:
            self._classes[some.number] += some.attempts
            self._seconds += some.seconds

    def _counters(self) -> Iterator[Metric]:
        lines = CounterMetricFamily(
            "maewol_events", "Lines of the event log", labels=("kind", "decline_class")
        )
        for labels, count in sorted(self._lines.items()):
            lines.add_metric(labels, count)
        yield lines
        alarms = CounterMetricFamily("maewol_alarms", "Lines that are alarms", labels=("kind",))
        for kind, count in sorted(self._alarms.items()):
            alarms.add_metric((kind,), count)
        yield alarms
        yield CounterMetricFamily("maewol_collected_won", "Won collected", value=self._won)
        yield self._histogram()

    def _of_the_broker(self) -> Iterable[Metric]:
        """What all processes share there: how the gateway's answers were, the token, the queues."""
        up = GaugeMetricFamily("maewol_broker_up", "Whether the broker answers")
        try:
            calls, waiting = self._shared.calls(), self._shared.waiting()
            fetched_at = self._shared.token_fetched_at()
        except (RedisError, OSError):
            up.add_metric((), 0)
            return [up]
        up.add_metric((), 1)
        return [up, _queues(waiting), _token(fetched_at), _calls(calls)]

    def _histogram(self) -> Metric:
        buckets, total = [], 0
        for number, end in enumerate((*(str(end) for end in SECONDS), "+Inf")):
            total += self._classes[number]
            buckets.append((end, float(total)))
        return HistogramMetricFamily(
            "maewol_attempt_seconds",
            "From claim to record, look-up and ceiling included",
            buckets=buckets,
            sum_value=self._seconds,
        )


def _gauges(found: Measured) -> Iterator[Metric]:
    for field, (name, text) in _WAITING.items():
        yield GaugeMetricFamily(f"maewol_{name}", text, value=getattr(found.waiting, field))
    yield from _of_the_gateway(found.gateway)
    seen = GaugeMetricFamily(
        "maewol_seen_seconds_ago", "Since a tick or worker was last seen", labels=("name",)
    )
    for name, seconds in found.seen_seconds_ago.items():
        seen.add_metric((name,), seconds)
    yield seen
    # A counter that begins with its first alarm has not risen, so nobody would hear of that one.
    alarms = GaugeMetricFamily(
        "maewol_recent_alarms", "Alarms of the last hour, by the book", labels=("kind",)
    )
    for kind, lines in sorted(found.recent_alarms.items()):
        alarms.add_metric((kind,), lines)
    yield alarms
    if found.reconciled_seconds_ago is not None:
        yield GaugeMetricFamily(
            "maewol_reconciled_seconds_ago",
            "Since the last whole daily reconciliation; since the first enrolment before that",
            value=found.reconciled_seconds_ago,
        )
    about = GaugeMetricFamily("maewol_build_info", "The version", labels=("version",))
    about.add_metric((billing.__version__,), 1)
    yield about


def _notices_wanted(settings: Settings) -> Metric:
    """Without a receiver notices wait for three days and are dropped: nothing is wrong then, and
    the alert that looks at those that wait must know it."""
    return GaugeMetricFamily(
        "maewol_notices_wanted",
        "Whether NOTICE_URL is set",
        value=float(settings.notice_url is not None),
    )


def _of_the_gateway(gateway: Gateway) -> Iterator[Metric]:
    figures: dict[str, tuple[str, float | None]] = {
        "gateway_up": ("Whether the circuit is closed", float(gateway.up)),
        "charging_held": ("Whether all charging is stopped", float(gateway.held)),
        "gateway_failures": ("Requests in a row without a usable answer", gateway.failures),
        "gateway_pace": ("Share of the rate ceiling that is used", gateway.pace),
        "clock_skew_seconds": ("The gateway's clock minus ours", gateway.skew_seconds),
        "approved_seconds_ago": ("Since a charge was approved", gateway.approved_seconds_ago),
        "answered_seconds_ago": ("Since a usable answer", gateway.answered_seconds_ago),
    }
    for name, (text, value) in figures.items():
        # What was never measured is left out: an alert must not take it for zero.
        if value is not None:
            yield GaugeMetricFamily(f"maewol_{name}", text, value=value)


def _queues(waiting: Mapping[str, int]) -> Metric:
    queues = GaugeMetricFamily(
        "maewol_queue_messages", "Messages that no worker has taken yet", labels=("queue",)
    )
    for queue, messages in waiting.items():
        queues.add_metric((queue,), messages)
    return queues


def _token(fetched_at: datetime | None) -> Metric:
    age = GaugeMetricFamily(
        "maewol_token_age_seconds", "Since the access token that all share was fetched"
    )
    if fetched_at is not None:
        # By this host's clock and another's: a little below zero is none.
        age.add_metric((), max(0.0, (clock.host_time() - fetched_at).total_seconds()))
    return age


def _calls(calls: Mapping[tuple[str, str], Calls]) -> Metric:
    family = HistogramMetricFamily(
        "maewol_gateway_call_seconds",
        "Requests to the gateway, by kind and by how they ended",
        labels=("call", "outcome"),
    )
    for labels, found in sorted(calls.items()):
        sums = accumulate(found.classes)
        ends = (*(str(end) for end in CALL_SECONDS), "+Inf")
        family.add_metric(labels, [*zip(ends, map(float, sums), strict=True)], found.seconds)
    return family


@router.get("/metrics", dependencies=[Depends(check_watcher)], response_class=Response)
def metrics(request: Request) -> Response:
    """Figures for Prometheus. No personal data; by API token, or from this machine."""
    registry: CollectorRegistry | None = getattr(request.app.state, "registry", None)
    if registry is None:
        registry = request.app.state.registry = _registry(request.app.state.edge)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def begin(app: FastAPI) -> None:
    """Count what is written from here on. Where the book is away, the first scrape begins."""
    with contextlib.suppress(SQLAlchemyError):
        app.state.registry = _registry(app.state.edge)


def _registry(edge: Edge) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(BookCollector(edge))
    return registry
