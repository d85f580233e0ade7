"""What a process does while it works, and what it leaves alone."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import signals

from billing import liveness
from billing.domain.errors import InvalidSetting

OLD = time.time() - 600


class Systemd:
    """The socket that systemd hands to a unit, and what came through it."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0"))
        self._socket.setblocking(False)

    def heard(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self._socket.recv(100))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


def unit(address: str, **more: str) -> dict[str, str]:
    """What a unit with `WatchdogSec=` finds in its environment."""
    ours = {"WATCHDOG_USEC": "360000000", "WATCHDOG_PID": str(os.getpid())}
    return {"NOTIFY_SOCKET": address, **ours, **more}


@pytest.fixture(params=["a file", "an abstract name"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "a file" else f"@{tmp_path}"


@pytest.fixture
def systemd(address: str) -> Iterator[Systemd]:
    made = Systemd(address)
    yield made
    made.close()


def test_the_file_holds_the_number_and_grows_young(tmp_path: Path) -> None:
    file = tmp_path / "new" / "alive"
    show = liveness.shown(file, {})
    assert show is not None
    assert file.read_bytes() == b"", "there, so that a check finds something, and nothing yet in it"
    os.utime(file, (OLD, OLD))
    show()
    assert int(file.read_text(encoding="ascii")) == os.getpid()
    assert file.stat().st_mtime > OLD + 300


def test_a_command_beside_the_process_leaves_its_file_alone(tmp_path: Path) -> None:
    """`celery inspect` in the container of a worker that hangs must not make it look well."""
    file = tmp_path / "alive"
    file.write_text("4711\n", encoding="ascii")
    os.utime(file, (OLD, OLD))
    liveness.shown(file, {})
    assert file.read_text(encoding="ascii") == "4711\n"
    assert file.stat().st_mtime == OLD


def test_a_file_that_cannot_be_is_refused_at_the_start_only(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="LIVENESS_FILE"):
        liveness.shown(tmp_path, {})
    folder = tmp_path / "folder"
    show = liveness.shown(folder / "alive", {})
    assert show is not None
    (folder / "alive").unlink()
    folder.rmdir()
    show()


def test_systemd_is_told(systemd: Systemd, address: str) -> None:
    show = liveness.shown(None, unit(address))
    assert show is not None
    assert systemd.heard() == []
    show()
    show()
    assert systemd.heard() == [b"WATCHDOG=1"] * 2
    systemd.close()
    show()


@pytest.mark.parametrize(
    "environ",
    [{}, {"NOTIFY_SOCKET": "/none"}, {"WATCHDOG_USEC": "1"}, unit("/none", WATCHDOG_PID="1")],
    ids=["nobody", "no watchdog", "no socket", "somebody else's"],
)
def test_where_nobody_looks_nothing_is_done(environ: dict[str, str]) -> None:
    assert liveness.shown(None, environ) is None


def test_a_systemd_that_does_not_read_does_not_hold_us_up(systemd: Systemd, address: str) -> None:
    show = liveness.shown(None, unit(address))
    assert show is not None
    for _ in range(2000):
        show()
    assert 0 < len(systemd.heard()) < 2000


@pytest.mark.parametrize("signal", ["celeryd_init", "beat_init", "heartbeat_sent",
                                    "after_task_publish"])  # fmt: skip
def test_each_kind_of_celery_process_shows_it(
    signal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listened = getattr(signals, signal)
    # What this test adds goes with it.
    monkeypatch.setattr(listened, "receivers", list(listened.receivers or []))
    file = tmp_path / "alive"
    liveness.keep(file, {})
    os.utime(file, (OLD, OLD))
    listened.send(sender=None)
    assert int(file.read_text(encoding="ascii")) == os.getpid()


def test_an_event_loop_shows_it_while_it_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "_EVERY_SECONDS", 0.01)
    shows = 0

    def show() -> None:
        nonlocal shows
        shows += 1

    async def serve() -> int:
        async with liveness.kept(show):
            await asyncio.sleep(0.2)
            turning = shows
            time.sleep(0.2)
            assert shows == turning
        await asyncio.sleep(0.05)
        return turning

    assert asyncio.run(serve()) == shows > 3
    asyncio.run(_nobody())


async def _nobody() -> None:
    async with liveness.kept(None):
        pass
