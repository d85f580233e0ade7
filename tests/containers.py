"""Runs the services of docker-compose.yml as local processes: there is no container engine.

Each gets its own command, its own environment and its own secrets, from files that
tools/secrets.sh made, with the paths, ports and names of this machine in place of a container's;
and its own health check says whether it is well. Ours can write where the file gives them a volume
or a tmpfs, and nowhere else (`locked_down`, where this machine can do that).
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from billing.embedded.home import Home
from billing.embedded.programs import valkey_program
from tests import locked_down
from tests.postgres_image import PostgresImage

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("migrate", "beat", "ticks", "charges", "web", "flower", "sandbox")
SERVERS = ("postgres", "valkey")
# As the image sets them.
IMAGE = {
    "MAEWOL_LIVENESS_FILE": "/tmp/alive",  # noqa: S108 - of a container's own
    "MAEWOL_DATA_DIR": "/var/lib/maewol",
    "PYTHONUNBUFFERED": "1",
}
# What somebody adds to the file's `environment`: so that the test need not wait for minutes.
ADDED = {"MAEWOL_CHARGE_CRON": "* * * * *", "MAEWOL_SCAN_CRON": "* * * * * */2"}
ANYWHERE = "0.0.0.0"  # noqa: S104 - of a container's own network

# The client that no wheel has. Without a library: loading one takes longer than any check may on a
# machine that is busy enough. By a shell, since no `#!` may name a path with a space.
_VALKEY_CLI = f"""#!/bin/sh
"exec" "{sys.executable}" "-IS" "$0" "$@"
import os, socket, sys
_, option, user, command = sys.argv
assert (option, command) == ("--user", "ping")
with socket.create_connection(("127.0.0.1", PORT), 5) as way:
    way.sendall(f"AUTH {{user}} {{os.environ['REDISCLI_AUTH']}}\\r\\nPING\\r\\n".encode())
    said = b""
    while said.count(b"\\r\\n") < 2 and (more := way.recv(100)):
        said += more
print("PONG" if said == b"+OK\\r\\n+PONG\\r\\n" else said)
"""


def make_secrets(folder: Path) -> Path:
    """The secrets of tools/secrets.sh, in a folder of their own."""
    subprocess.run(
        ["sh", ROOT / "tools/secrets.sh", folder / "secrets"],
        env={"PATH": os.environ["PATH"], "PORTONE_IMP_KEY": "imp", "PORTONE_IMP_SECRET": "sec"},
        check=True,
        capture_output=True,
        timeout=30,
    )
    return folder / "secrets"


class Host:
    """One machine with the services of the file on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets = make_secrets(folder)
        self._ports = quiet_ports(("5432", "6379", "8000", "5555", "8888"))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._postgres = PostgresImage()
        for name in ("database_url", "database_owner_url", "broker_url"):
            file = self.secrets / name
            file.write_text(self._in_our_network(file.read_text(encoding="ascii")), "ascii")
        self._path = f"{self._programs()}:{BIN}:{os.environ['PATH']}"
        self.sandbox = f"http://127.0.0.1:{self._ports['8888']}"

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text(encoding="ascii")

    def start(self, name: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a service, with `more` in its environment."""
        for folder in (self._tmp(name), self.disk(name)):
            folder.mkdir(parents=True, exist_ok=True)
        # A container's /tmp is a new one each time.
        self.alive_file(name).unlink(missing_ok=True)
        log_file = self.folder / name / "log"
        if name == "postgres":
            started = self._start_postgres(log_file)
        else:
            with log_file.open("ab") as log:
                started = subprocess.Popen(
                    self._locked(name, self._here(name, *SERVICES[name]["command"])),
                    cwd=self.disk(name),
                    env=self.environment(name) | more,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        self._running[name] = started
        return started

    def is_well(self, name: str) -> bool:
        """What its health check says; one that takes too long says no."""
        kind, *words = SERVICES[name]["healthcheck"]["test"]
        words = self._here(name, *words)
        try:
            done = subprocess.run(
                self._locked(name, ["sh", "-c", *words] if kind == "CMD-SHELL" else words),
                env=self.environment(name),
                capture_output=True,
                check=False,
                timeout=30,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def wait(self, *names: str, seconds: float = 90) -> None:
        """Until they are well; else, and at once where one has ended, with the end of its log."""
        for name in names:
            until(partial(self._is_well_or_ended, name), partial(self._why, name), seconds)
            assert self.process(name).poll() is None, self._why(name)

    def _is_well_or_ended(self, name: str) -> bool:
        return self.process(name).poll() is not None or self.is_well(name)

    def _why(self, name: str) -> str:
        code = self.process(name).poll()
        is_what = "is not well" if code is None else f"ended with {code}"
        return f"{name} {is_what}. The end of its log:\n{self.log(name)[-4000:]}"

    def typed(self, command: str, **mounted: Path) -> subprocess.CompletedProcess[str]:
        """What `docker compose exec` or `run` of one of our services would run in its container,
        run here with its environment. `mounted`: what is here in place of a mounted path."""
        words = shlex.split(command)
        at = next(at for at, word in enumerate(words) if word in ("exec", "run")) + 1
        mounts: dict[str, str] = {}
        writable: list[str] = []
        while words[at].startswith("-"):
            if words[at] == "-v":
                at += 1
                source, inside = words[at].removesuffix(":ro").split(":")
                mounts[inside] = str(mounted[Path(source).stem])
                if not words[at].endswith(":ro"):
                    writable.append(mounts[inside])
            at += 1
        name, *program = words[at:]
        return subprocess.run(
            self._locked(name, [mounts.get(word, word) for word in program], *writable),
            env=self.environment(name),
            cwd=self.disk(name),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=60,
        )

    def alive_file(self, name: str) -> Path:
        return self._tmp(name) / "alive"

    def disk(self, name: str) -> Path:
        """What `/var/lib/maewol` is to a service, where it starts and is at home: its volume, or
        the image's own folder, which is empty."""
        volume = self._volume(name)
        return self.folder / name / "disk" if volume is None else volume[0]

    def written(self, name: str) -> list[Path]:
        """What a service has written where its container could not keep it."""
        return [] if self._volume(name) else list(self.disk(name).iterdir())

    def _volume(self, name: str) -> tuple[Path, bool] | None:
        """The volume of ours that a service has, and whether it may write there."""
        for mount in SERVICES[name].get("volumes", ()):
            source, inside, *how = mount.split(":")
            if inside == IMAGE["MAEWOL_DATA_DIR"]:
                return self.folder / "volumes" / source, how != ["ro"]
        return None

    def _tmp(self, name: str) -> Path:
        return self.folder / name / "tmp"

    def _locked(self, name: str, words: list[str], *more: str) -> list[str]:
        """The command of a service of ours, on a disk that is read-only but for what it is given
        (`more` too)."""
        if name not in OURS or locked_down.version() < 1:
            return words
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["tmpfs"] == ["/tmp"]  # noqa: S108 - of a container's own
        volume = self._volume(name)
        places = [str(self._tmp(name)), "/dev", *more]
        if volume is not None and volume[1]:
            places.append(str(volume[0]))
        return [sys.executable, locked_down.__file__, *places, "--", *words]

    def log(self, name: str) -> str:
        return (self.folder / name / "log").read_text(encoding="utf-8", errors="replace")

    def process(self, name: str) -> subprocess.Popen[bytes]:
        return self._running[name]

    def stop(self) -> None:
        """As `docker compose down`: all at once, the servers last."""
        later = [one for name, one in self._running.items() if name not in SERVERS]
        for group in (later, [self._running[name] for name in SERVERS if name in self._running]):
            for process in group:
                process.send_signal(signal.SIGCONT)
                # PostgreSQL's image is stopped by INT, which waits for nobody.
                is_postgres = process is self._running.get("postgres")
                process.send_signal(signal.SIGINT if is_postgres else signal.SIGTERM)
            for process in group:
                _ended(process)
        self._postgres.close()

    def environment(self, name: str) -> dict[str, str]:
        """A service's environment, as its container would have it."""
        env = {"PATH": self._path, "HOME": str(self.disk(name)), "LANG": "C.UTF-8"}
        env["TMPDIR"] = str(self._tmp(name))
        if name in OURS:
            env |= IMAGE
        env |= SERVICES[name].get("environment") or {}
        if name in ("beat", "ticks", "charges", "web"):
            env |= {**ADDED, "MAEWOL_PORTONE_API_URL": self.sandbox}
        return dict(zip(env, self._here(name, *env.values()), strict=True))

    def _start_postgres(self, log: Path) -> subprocess.Popen[bytes]:
        scripts = []
        for mount in SERVICES["postgres"]["volumes"]:
            there, _, inside = mount.removesuffix(":ro").partition(":")
            if inside.startswith("/docker-entrypoint-initdb.d/"):
                script = self.folder / "postgres" / Path(inside).name
                text = (ROOT / there).read_text(encoding="utf-8")
                script.write_text(self._moved("postgres", text), encoding="utf-8")
                scripts.append(script)
        port = self._ports["5432"]
        return self._postgres.start(self.environment("postgres"), scripts, port, log)

    def _here(self, name: str, *words: str) -> list[str]:
        """What the file says, as it is on this machine."""
        return [self._moved(name, word.replace("$$", "$")) for word in words]

    def _moved(self, name: str, text: str) -> str:
        """A container's paths, ports and addresses, as they are on this machine."""
        for there, here in {
            "/run/secrets": str(self.secrets),
            IMAGE["MAEWOL_DATA_DIR"]: str(self.disk(name)),
            IMAGE["MAEWOL_LIVENESS_FILE"]: str(self.alive_file(name)),
            ANYWHERE: "127.0.0.1",
        }.items():
            text = text.replace(there, here)
        for port, free in self._ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        return text

    def _in_our_network(self, address: str) -> str:
        """An address of a secret, with this machine's in place of the services' names."""
        here = address.replace("@postgres/", f"@127.0.0.1:{self._ports['5432']}/")
        return here.replace("@valkey:6379/", f"@127.0.0.1:{self._ports['6379']}/")

    def _programs(self) -> Path:
        """What the images bring."""
        folder = self.folder / "programs"
        folder.mkdir()
        (folder / "alive").symlink_to(ROOT / "deploy/alive.sh")
        (folder / "pg_isready").symlink_to(self._postgres.program("pg_isready"))
        (folder / "valkey-server").symlink_to(valkey_program(Home(self.folder)))
        ping = folder / "valkey-cli"
        ping.write_text(_VALKEY_CLI.replace("PORT", str(self._ports["6379"])), encoding="utf-8")
        ping.chmod(0o755)
        return folder


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def until(
    true: Callable[[], bool], otherwise: str | Callable[[], str], seconds: float = 90
) -> None:
    """Wait until something is true, and say otherwise what was not."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(0.5)


def quiet_ports(wanted: tuple[str, ...]) -> dict[str, int]:
    """A free port for each, below those that a system gives away by itself: a server that is down
    for a while finds its own free when it comes back."""
    found: list[int] = []
    for port in random.sample(range(15_000, 32_000), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == len(wanted):
            return dict(zip(wanted, found, strict=True))
    raise AssertionError("no ports are free")
