"""What a process does while it really works, for whoever starts anew one that hangs: it touches a
file, with its number in it, and tells the watchdog of systemd.

A worker does so at each heartbeat that its consumer sends, so not while its loop hangs or while it
has no broker; beat at each tick that the broker took; the HTTP edge while its loop turns.
`deploy/alive.sh`, `WatchdogSec=` and `maewol up` do the rest (docs/deploying.md, Health).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from billing.domain.errors import InvalidSetting

# Often enough for any check in minutes.
_EVERY_SECONDS = 5.0

Show = Callable[[], None]


def shown(file: Path | None, environ: Mapping[str, str]) -> Show | None:
    """What to call while all is well; None where nobody looks. Raises `InvalidSetting` where the
    file cannot be written at the start; later a full disk must not stop a charge."""
    shows = [*_to_file(file), *_to_systemd(environ)]
    if not shows:
        return None

    def show() -> None:
        for one in shows:
            # The check then fails, which is what it is for.
            with contextlib.suppress(OSError):
                one()

    return show


def _to_file(file: Path | None) -> list[Show]:
    if file is None:
        return []
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Neither touched nor emptied: a command that is run beside a process loads its code, too.
        file.open("ab").close()
    except OSError as error:
        raise InvalidSetting(
            "LIVENESS_FILE",
            str(file),
            f"cannot be touched ({type(error).__name__})",
            "Name a file in a folder that this process may write",
        ) from error
    # The number of the process, so that whoever finds the file old can end it.
    return [lambda: _write(file, f"{os.getpid()}\n")]


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="ascii")


def _to_systemd(environ: Mapping[str, str]) -> list[Show]:
    """`sd_notify` for a unit with `WatchdogSec=`: one datagram. Not for a process that such a unit
    only started on its way."""
    address = environ.get("NOTIFY_SOCKET", "")
    asked = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not address or not environ.get("WATCHDOG_USEC") or asked != str(os.getpid()):
        return []
    # A leading @ stands for the zero byte of Linux' abstract addresses.
    where = "\0" + address[1:] if address.startswith("@") else address
    return [lambda: _notify(where)]


def _notify(where: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        # systemd that is too busy to read must not make us hang.
        way.setblocking(False)
        way.sendto(b"WATCHDOG=1", where)


def keep(file: Path | None, environ: Mapping[str, str]) -> None:
    """Show it from now on, whatever kind of Celery process this is. Raises `InvalidSetting`."""
    # Here, since the HTTP edge needs no Celery.
    from celery import signals

    show = shown(file, environ)
    if show is None:
        return

    def listen(**_: object) -> None:
        show()

    # Once before there is a broker, so that one that never comes so far is found, too.
    for begun in (signals.celeryd_init, signals.beat_init):
        begun.connect(listen, weak=False)
    for works in (signals.heartbeat_sent, signals.after_task_publish):
        works.connect(listen, weak=False)


@contextlib.asynccontextmanager
async def kept(show: Show | None) -> AsyncIterator[None]:
    """Show it for as long as this event loop turns."""
    if show is None:
        yield
        return
    showing = asyncio.create_task(_again_and_again(show))
    try:
        yield
    finally:
        showing.cancel()


async def _again_and_again(show: Show) -> None:
    while True:
        show()
        await asyncio.sleep(_EVERY_SECONDS)
