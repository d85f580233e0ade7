"""One daemon process: its settings, its house, its event loop and its gateway client, each built
once and kept for as long as the process lives."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import resource
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TypeVar

import structlog
from anyio.from_thread import BlockingPortal, start_blocking_portal
from celery import Celery, signals
from sqlalchemy.exc import SQLAlchemyError

from billing import carrying, clock, flower, holding_back, liveness, logs, quiet, telemetry
from billing.bootstrap import (
    House,
    credentials,
    gateway,
    house,
    notifier,
    only_broker,
    quick_redis,
)
from billing.broker import RedisWatermark, celery_settings
from billing.domain.errors import BillingError, InvalidSetting, SchemaMismatch
from billing.meter import CallCounter, sharing
from billing.notifier import HttpNotifier
from billing.portone.client import PortOneClient
from billing.settings import Settings, misspelt
from billing.store import schema

_log = structlog.get_logger(__name__)
T = TypeVar("T")

_OPEN_FILES = 16_384


class Daemon:
    """What the tasks of a worker process share.

    The pool is made of threads, so nothing here crosses a fork, and one event loop with one pool
    of connections serves all of them.
    """

    def __init__(self, name: str) -> None:
        self._exits = contextlib.ExitStack()
        self._lock = threading.Lock()
        atexit.register(self._exits.close)
        self.settings = Settings.load()
        self.house: House = self._exits.enter_context(house(self.settings))
        self.app: Celery = self.house.celery
        self.app.main = name

    @cached_property
    def _portal(self) -> BlockingPortal:
        # uvloop: half the price of a request (docs/adr/0003-http-transport.md).
        started = start_blocking_portal("asyncio", {"use_uvloop": True})
        return self._exits.enter_context(started)

    @cached_property
    def _gateway(self) -> PortOneClient:
        calls, broker_url = CallCounter(), self.house.broker_url
        # Both or none: without credentials each tick comes here again, and would leave a thread.
        with contextlib.ExitStack() as entered:
            # Entered first, left last: what the last request took is still told.
            entered.enter_context(sharing(calls, quick_redis(self.house.broker)))
            client = gateway(self.settings, broker_url=broker_url, meter=calls)
            made = entered.enter_context(self._portal.wrap_async_context_manager(client))
            self._exits.enter_context(entered.pop_all())
        return made

    @cached_property
    def watermark(self) -> RedisWatermark:
        """Lives in the event loop that `run` uses."""
        made = RedisWatermark(self.house.broker)
        self._exits.callback(self._portal.call, made.aclose)
        return made

    def run(self, use_case: Callable[[PortOneClient], Awaitable[T]]) -> T:
        """Run an asynchronous use case with the gateway, from a task's thread."""
        with self._lock:
            client, portal = self._gateway, self._portal
        return portal.call(use_case, client)

    def remember(self, use_case: Callable[[RedisWatermark], Awaitable[T]]) -> T:
        """Run an asynchronous use case with what was seen of the book."""
        with self._lock:
            watermark, portal = self.watermark, self._portal
        return portal.call(use_case, watermark)

    @cached_property
    def _notifier(self) -> HttpNotifier:
        client = notifier(self.settings)
        return self._exits.enter_context(self._portal.wrap_async_context_manager(client))

    def notify(self, use_case: Callable[[HttpNotifier], Awaitable[T]]) -> T:
        """Run an asynchronous use case with the way to the merchant's own system."""
        with self._lock:
            client, portal = self._notifier, self._portal
        return portal.call(use_case, client)


def start(name: str) -> Daemon:
    """Build the process's daemon; a wrong setting ends the process with one clear line."""
    try:
        _allow_many_connections()
        daemon = Daemon(name)
        _check_schema(daemon.house)
        liveness.keep(daemon.settings.liveness_file, os.environ)
        # First, so that a wait is not told as a task's own time.
        holding_back.install(daemon.house.book)
        # The trail first: a span tells of it.
        carrying.install(clock.monotonic)
        telemetry.start(daemon.settings, name)
        _prepare_flower(daemon.settings)
    except BillingError as error:
        raise _ended(error) from None
    _listen_to_celery(daemon.app, daemon.settings)
    signals.worker_ready.connect(_keep_what_is_loaded, weak=False)
    return daemon


def start_watching(name: str) -> Celery:
    """The app that Flower looks through: the broker and nothing else, so that who looks holds
    neither the book nor the gateway's credentials. A wrong setting ends the process as in `start`.
    """
    exits = contextlib.ExitStack()
    atexit.register(exits.close)
    try:
        settings = Settings.load()
        broker = exits.enter_context(only_broker(settings))
        telemetry.start(settings, name)
        _prepare_flower(settings)
    except BillingError as error:
        raise _ended(error) from None
    app = Celery(name)
    app.conf.update(celery_settings(broker))
    _listen_to_celery(app, settings)
    return app


def _prepare_flower(settings: Settings) -> None:
    if flower.is_flower(sys.argv):
        flower.prepare(settings, sys.argv, os.environ)
        # It never asks Celery for a log.
        _log_as_set(settings)


def _listen_to_celery(app: Celery, settings: Settings) -> None:
    quiet.celery(app, as_records=settings.log_format == "json")
    # Before a worker warns of anything, as of running as root.
    signals.celeryd_init.connect(lambda **_: _configure_logs(settings), weak=False)
    signals.setup_logging.connect(lambda **_: _log_as_set(settings), weak=False)


def _configure_logs(settings: Settings) -> None:
    logs.configure(settings.log_format, settings.log_level)


def _log_as_set(settings: Settings) -> None:
    _configure_logs(settings)
    for name, meant in misspelt().items():
        _log.warning("nothing reads this setting", setting=name, did_you_mean=meant)


def for_charging(daemon: Daemon) -> None:
    """End a process with one clear line that was started to charge and has no credentials."""
    try:
        credentials(daemon.settings)
    except InvalidSetting as error:
        raise _ended(error) from None


def _allow_many_connections() -> None:
    """Some systems give a process 1,024 open files unless it asks for more, which it may. A gateway
    that leaves everything hanging fills that, and then nothing else can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    # A system that promises more than it gives is no reason not to start.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _ended(error: BillingError) -> SystemExit:
    print(f"maewol: {error}", file=sys.stderr)
    return SystemExit(2)


def _keep_what_is_loaded(**_: object) -> None:
    """What a worker has loaded by now stays for ever. Searching it for garbage again and again took
    6 % of all processor time, in pauses that every charge under way had to wait for."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _check_schema(house: House) -> None:
    """Raises `SchemaMismatch`. A database that is away just now is no reason not to start; one of
    our own is migrated here."""
    try:
        if schema.fits(house.engine):
            return
        if house.settings.database_url is None:
            schema.upgrade(house.engine)
            return
        there = schema.current(house.engine)
    except SQLAlchemyError:
        return
    if there is not None and there > schema.wanted():
        raise SchemaMismatch(
            f"the database's schema is {there}, which serves this version ({schema.wanted()}) no"
            " longer. Start a newer version"
        )
    raise SchemaMismatch(
        f"the database's schema is {there or 'empty'}, and this version needs {schema.wanted()}."
        " Run `maewol db upgrade` first"
    )
