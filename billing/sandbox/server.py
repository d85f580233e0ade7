"""The sandbox as an application and as a server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette

from billing.sandbox.clock import SandboxClock
from billing.sandbox.control import control_routes
from billing.sandbox.gateway import Sandbox
from billing.sandbox.http import routes
from billing.sandbox.mood import Latency, Mood, mood_from
from billing.sandbox.room import room_routes
from billing.sandbox.travel import Journey
from billing.sandbox.webhooks import Address, Format, WebhookAddressError, checked_url
from billing.sandbox.window.routes import window_routes
from billing.sandbox.wire import SandboxProtocol

# Longer than any client keeps a connection, so that it is never we who close an idle one.
_KEEP_ALIVE_SECONDS = 120
_GRACE_SECONDS = 5


class CallError(ValueError):
    """An option that is wrong: its name, its value and the remedy."""


def create_app(sandbox: Sandbox) -> Starlette:
    """The ASGI application of a sandbox, to serve or to call in process."""
    journey = Journey(sandbox)
    return Starlette(
        routes=[
            *routes(sandbox),
            *window_routes(sandbox),
            *room_routes(sandbox, journey),
            *control_routes(sandbox, journey),
        ]
    )


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    seed: int | None = None,
    faults: Path | None = None,
    data: Path | None = None,
    latency_ms: float | None = None,
    imp_key: str | None = None,
    imp_secret: str | None = None,
    at: datetime | None = None,
    notice_url: str = "",
    notice_format: Format = "json",
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    With a `seed` the same requests get the same answers at every start. Without one no `imp_uid` is
    given out that an earlier start gave out, as an older book expects of a gateway.
    `port` 0 takes a free one. `faults` is a faults file, `data` the ledger file (None: in memory),
    `latency_ms` a fixed delay of all answers over the file's, `at` the moment (aware) to start the
    clock with, `notice_url` where webhooks go. `announce` gets one line of JSON, `{"url": …,
    "pid": …}`, once requests are taken; it is printed by default. Raises `FaultsError`,
    `LedgerFileError` and `CallError`.
    """
    mood = Mood() if faults is None else mood_from(faults)
    if latency_ms is not None:
        mood = mood.model_copy(update={"latency": _latency(latency_ms)})
    with _listening(host, port) as listener:
        clock = SandboxClock.real()
        sandbox = Sandbox(
            seed=seed or 0,
            clock=clock,
            mood=mood,
            path=data,
            imp_key=imp_key,
            imp_secret=imp_secret,
            mark="" if seed is not None else f"{int(clock.unix()):x}",
        )
        try:
            sandbox.webhooks.address = _address(notice_url, notice_format)
            if at is not None:
                sandbox.clock.set(at)
                sandbox.clock_moved()
            _run(sandbox, listener, announce or _print)
        finally:
            sandbox.close()


def _run(sandbox: Sandbox, listener: socket.socket, announce: Callable[[str], None]) -> None:
    config = uvicorn.Config(
        create_app(sandbox),
        http=SandboxProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        backlog=2048,
    )
    server = _Server(config, lambda: announce(_told(listener)))
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve_until_stopped(listener))


class _Server(uvicorn.Server):
    """uvicorn that says when it is ready, and for which a signal is a way to end well."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def serve_until_stopped(self, listener: socket.socket) -> None:
        """Serve until a signal comes."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not the main thread, as in some tests: signals are the caller's then.
            with contextlib.suppress(RuntimeError, ValueError):
                loop.add_signal_handler(number, self._stop)
        await self.serve(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled by the loop: uvicorn would raise them again after the end."""
        yield

    def _stop(self) -> None:
        self.should_exit = True


def _latency(milliseconds: float) -> Latency:
    try:
        return Latency(charge=milliseconds, lookup=milliseconds)
    except ValidationError:
        remedy = "Give 0 to 3600000 milliseconds"
        raise CallError(f"--latency-ms {milliseconds:g}: out of range. {remedy}") from None


def _address(url: str, how: Format) -> Address:
    try:
        return Address(checked_url(url), how)
    except WebhookAddressError as error:
        raise CallError(f"--notice-url {error}") from None


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]
        remedy = "Choose another port, or 0 for a free one; and a host of this machine"
        raise CallError(f"--host {host} --port {port}: {why}. {remedy}") from None


def _told(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return json.dumps({"url": f"http://{shown}:{port}", "pid": os.getpid()})


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
