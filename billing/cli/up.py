"""`maewol up`: every process of a small installation in one terminal, on one machine."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from celery import Celery

from billing import clock
from billing.bootstrap import House, credentials, house
from billing.broker import IS_AWAY
from billing.cli.supervisor import OnLine, Program, Supervisor, stop_signals
from billing.domain.errors import EmbeddedServerError, InvalidInput
from billing.domain.plan import Cron
from billing.embedded import missing, running
from billing.flower import USER
from billing.settings import PREFIX, Settings
from billing.store import schema
from billing.store.session import MOST_CONNECTIONS, allowed_connections

FLOWER_PORT = 5555
WEB_PORT = 8000
# Flower asks who is there once, when it starts: a worker that is not up yet would be missing.
PATIENCE_SECONDS = 60.0
# How often the private servers are looked at.
LOOK_SECONDS = 2.0
# On top of the longest request: what a worker needs to record its answer and leave.
LEAVING_SECONDS = 15.0
# Longer than any request, and as long as Compose and systemd wait (docs/deploying.md).
HUNG_SECONDS = 360.0
# Flower is asked for its sign of life, and the others are looked at after it.
ANSWER_SECONDS = 2.0
# Beat gives a sign of life at each tick: of so many in a row none came.
HUNG_TICKS = 3
DAY_SECONDS = 86_400


def run(*, workers: int = 1, flower_port: int | None = 0, web_port: int | None = 0) -> int:
    """Run beat, ticks, `workers` charging workers, the HTTP edge and Flower until Ctrl-C; returns
    the exit code. A port of None is chosen, 0 leaves that process out.

    Honours `DATABASE_URL` and `BROKER_URL`; private servers otherwise. Migrates the schema first.
    Raises `InvalidSetting` without gateway credentials, `InvalidInput` for a port in use.
    """
    settings = Settings.load()
    _check(settings, workers)
    flower_port = _port("--flower-port", flower_port, FLOWER_PORT)
    web_port = _port("--web-port", web_port, WEB_PORT)
    with stop_signals() as asked, house(settings, announce=_say) as home:
        schema.upgrade(home.engine, run_role=settings.run_role)
        password, shown = _flower_password(settings)
        with Supervisor(
            env=child_environment(os.environ, home.database_url, home.broker_url),
            cwd=None,
            grace_seconds=settings.portone_timeout_seconds + LEAVING_SECONDS,
            on_line=_printer(settings.log_format),
        ) as supervisor:
            for program in daemons(workers, beat_hangs_after(settings.scan_cron)):
                supervisor.start(program)
            _say(_what_runs(home, workers))
            if (told := crowded(allowed_connections(home.engine), workers)) is not None:
                _say(told)
            if web_port:
                linked = flower_port if settings.flower_url is None else 0
                supervisor.start(web(web_port, linked))
                _say(f"console      http://127.0.0.1:{web_port}  (this machine only)")
            if flower_port and wait_for_worker(home.celery, asked):
                supervisor.start(flower(flower_port, password))
                _say(f"Flower       http://127.0.0.1:{flower_port}  ({USER} / {shown})")
            _look_after_the_servers(settings, asked)
            _say("Stopping: charges in flight are finished and recorded first.")
    _let_go_of_what_nobody_takes()
    return 0


def _look_after_the_servers(settings: Settings, asked: threading.Event) -> None:
    """Start private servers again that have died, at their old addresses, until asked to stop."""
    private = {"database": not settings.database_url, "broker": not settings.broker_url}
    while not asked.wait(LOOK_SECONDS):
        if not any(private.values()) or not (gone := missing(settings.data_dir, **private)):
            continue
        _say(f"The private {' and '.join(gone)} ended. Starting again.")
        try:
            with running(settings.data_dir, **private, announce=_say):
                pass
        except EmbeddedServerError as error:
            _say(f"{error} Trying again.")


def daemons(workers: int, beat_after: float = HUNG_SECONDS) -> Iterator[Program]:
    """Beat, ticks and charging workers: the commands of the contract."""
    yield Program("beat", _celery("scheduler", "beat"), hung_after=beat_after)
    yield _worker("scheduler", "ticks", "ticks")
    for number in range(1, workers + 1):
        yield _worker("worker", "charges", f"charges{number}")


def _worker(app: str, queue: str, name: str) -> Program:
    command = _celery(app, "worker", "-Q", queue, "-n", f"{name}@%h")
    return Program(name, command, hung_after=HUNG_SECONDS)


def beat_hangs_after(scan_cron: str) -> float:
    """How long a beat that is well may be without a tick, in seconds."""
    times = Cron.parse(scan_cron, field="SCAN_CRON").times
    gaps = [later - earlier for earlier, later in pairwise((*times, times[0] + DAY_SECONDS))]
    return max(HUNG_SECONDS, HUNG_TICKS * float(max(gaps)))


def flower(port: int, password: str) -> Program:
    """Flower, on loopback and with a password, which stays out of the list of processes."""
    return Program(
        "flower",
        _celery("worker", "flower", "--address=127.0.0.1", f"--port={port}"),
        env={f"{PREFIX}FLOWER_PASSWORD": password},
        hung_after=HUNG_SECONDS,
        answers=partial(is_well, port),
    )


def is_well(port: int) -> bool:
    """Whether Flower's loop answers within a moment. Nobody else may be asked in its place, so no
    proxy of the environment is."""
    asked = HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        asked.request("GET", "/healthcheck")
        return asked.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        asked.close()


def _flower_password(settings: Settings) -> tuple[str, str]:
    """The password, and what is printed of it."""
    if settings.flower_password is not None:
        return settings.flower_password.get_secret_value(), "FLOWER_PASSWORD"
    made = secrets.token_urlsafe(12)
    return made, f"{made}, new at every start"


def web(port: int, flower_port: int = 0) -> Program:
    """The HTTP edge, on loopback: what reaches it from outside is a proxy's business. The console
    links to Flower on `flower_port`; 0 leaves that to the settings."""
    return Program(
        "web",
        [sys.executable, "-m", "billing.web", "--host", "127.0.0.1", "--port", str(port)],
        env={f"{PREFIX}FLOWER_URL": f"http://127.0.0.1:{flower_port}"} if flower_port else None,
        hung_after=HUNG_SECONDS,
    )


def child_environment(
    environ: Mapping[str, str], database_url: str, broker_url: str
) -> dict[str, str]:
    """Our environment with the servers' addresses, so that every process uses the same ones."""
    # Flower's API without a password lets anyone on the machine send tasks (CVE-2022-30034).
    kept = {name: value for name, value in environ.items() if not name.startswith("FLOWER_")}
    # These name files that would contradict the addresses.
    for name in ("DATABASE_URL_FILE", "BROKER_URL_FILE", "FLOWER_PASSWORD_FILE"):
        kept.pop(PREFIX + name, None)
    return {
        **kept,
        f"{PREFIX}DATABASE_URL": database_url,
        f"{PREFIX}BROKER_URL": broker_url,
        "PYTHONUNBUFFERED": "1",
    }


def wait_for_worker(
    celery: Celery, asked: threading.Event, *, charging: int = 1, patience: float = PATIENCE_SECONDS
) -> bool:
    """Wait until so many charging workers answer; False when asked to stop, or in vain."""
    deadline = clock.monotonic() + patience
    while not asked.is_set() and clock.monotonic() < deadline:
        try:
            answers = celery.control.ping(timeout=0.5)
        except IS_AWAY:
            # The broker is away just now. Workers wait for it, and so must who waits for them:
            # an error here would end them all.
            asked.wait(0.5)
            continue
        names = [name for answer in answers for name in answer]
        if sum(name.startswith("charges") for name in names) >= charging:
            return True
    return False


def _celery(app: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", app, *arguments]


def _check(settings: Settings, workers: int) -> None:
    if workers < 1:
        raise InvalidInput("--workers", workers, "nobody would charge", "Use 1 or more")
    credentials(settings)


def _port(option: str, asked: int | None, usual: int) -> int:
    """The port that was asked for; else the usual one or, since charging must not wait for it, any
    free one. Raises `InvalidInput` for one in use."""
    if asked is None:
        return free_port() if _is_taken(usual) else usual
    if asked and _is_taken(asked):
        raise InvalidInput(option, asked, "in use already", "Choose another, or 0 for none")
    return asked


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _what_runs(home: House, workers: int) -> str:
    settings = home.settings
    own = f"private, in {Path(settings.data_dir)}"
    return "\n".join(
        (
            f"PostgreSQL   {'as set' if settings.database_url else own}",
            f"broker       {'as set' if settings.broker_url else own}",
            f"gateway      {settings.portone_api_url}",
            f"processes    beat, ticks, {workers} charging. Ctrl-C stops them all.",
        )
    )


def crowded(most: int, workers: int) -> str | None:
    """What must be said where PostgreSQL allows fewer connections than so many workers, beat,
    ticks, web and this process may open; None where it allows enough."""
    wanted = MOST_CONNECTIONS * (workers + len(("beat", "ticks", "web", "up")))
    if wanted <= most:
        return None
    return (
        f"PostgreSQL allows {most} connections, and {workers} workers with all else may open"
        f" {wanted}: who gets none waits, and tries again. Start fewer workers, or raise"
        " max_connections."
    )


def _printer(log_format: str) -> OnLine:
    """Prints the processes' lines to stderr, each with the name of its process."""
    lock = threading.Lock()

    def plain(name: str, line: str) -> None:
        with lock:
            _print(f"{name:9}| {line}", sys.stderr)

    def as_json(name: str, line: str) -> None:
        if line.startswith("{"):
            shown = f'{{"process": {json.dumps(name)}, {line[1:]}'
        else:
            shown = json.dumps({"process": name, "event": line}, ensure_ascii=False)
        with lock:
            _print(shown, sys.stderr)

    return as_json if log_format == "json" else plain


def _say(text: str) -> None:
    _print(text, sys.stdout)


def _print(text: str, stream: TextIO) -> None:
    """A line for whoever reads. A full disk or a reader who left is no reason not to charge: the
    line is lost, or told later, and the pipes of the processes go on being read."""
    with contextlib.suppress(OSError):
        print(text, file=stream, flush=True)


def _let_go_of_what_nobody_takes() -> None:
    """Lines that still wait would make the interpreter end with a code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
