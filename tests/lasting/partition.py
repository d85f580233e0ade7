"""A network between daemons and their servers that can be cut: what is sent is lost without a word.

Daemons run in a network namespace of their own, behind a second one, the router. Root's business.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest
from sqlalchemy.engine import make_url

from tests.chaos.programs import Program
from tests.doors import Door, through, to_database, to_tcp
from tests.lasting.stage import Stage, daemon

# Of the range that is kept for measuring networks (RFC 2544): nobody's.
_NEAR, _FAR = "198.18.1", "198.18.2"
_HOSTS = {"database": f"{_NEAR}.1", "broker": f"{_NEAR}.2", "gateway": f"{_NEAR}.3"}


@dataclass(frozen=True)
class Network:
    """Made by `a_network`."""

    servers_side: str
    router: str
    daemons_side: str

    def cut(self, what: str) -> None:
        """`all`: nothing arrives, in either direction. One server: nothing arrives at it."""
        if what == "all":
            _ip("netns", "exec", self.router, "sysctl", "-qw", "net.ipv4.ip_forward=0")
        else:
            _ip("-n", self.router, "route", "add", "blackhole", _HOSTS[what])

    def heal(self, what: str) -> None:
        """As it was before."""
        if what == "all":
            _ip("netns", "exec", self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        else:
            _ip("-n", self.router, "route", "del", "blackhole", _HOSTS[what])

    @contextmanager
    def doors(self, stage: Stage, database_url: str, broker_url: str) -> Iterator[dict[str, str]]:
        """Ways to the servers across this network: settings for `start`."""
        broker, gateway = make_url(broker_url), make_url(stage.world.url)
        with (
            Door(to_database(database_url), _HOSTS["database"]).serving() as first,
            Door(to_tcp("127.0.0.1", int(broker.port or 0)), _HOSTS["broker"]).serving() as second,
            Door(to_tcp("127.0.0.1", int(gateway.port or 0)), _HOSTS["gateway"]).serving() as third,
        ):
            # Plain http is for a gateway on the daemon's own machine only, and so is its door.
            own = (str(third.port), _HOSTS["gateway"], str(third.port))
            command = ["ip", "netns", "exec", self.daemons_side, sys.executable, "-m"]
            with subprocess.Popen([*command, "tests.doors", *own], env=stage.world.env) as last:
                try:
                    yield {
                        "MAEWOL_DATABASE_URL": through(database_url, first, _HOSTS["database"]),
                        "MAEWOL_BROKER_URL": broker.set(
                            host=_HOSTS["broker"], port=second.port
                        ).render_as_string(hide_password=False),
                        "MAEWOL_PORTONE_API_URL": f"http://127.0.0.1:{third.port}",
                    }
                finally:
                    last.kill()

    def start(self, stage: Stage, name: str, env: Mapping[str, str]) -> None:
        """Start a daemon on the other side."""
        made = daemon(name, {**stage.settings, **env})
        command = ["ip", "netns", "exec", self.daemons_side, *made.command]
        stage.world.programs.start(Program(made.name, command, made.works, env=made.env))


@contextmanager
def a_network() -> Iterator[Network]:
    """Three namespaces in a row, this process in the first. Skips where they cannot be made."""
    if os.geteuid() != 0 or None in (shutil.which("ip"), shutil.which("sysctl")):
        pytest.skip("a network that can be cut needs root and the commands `ip` and `sysctl`")
    mark = f"mw{os.getpid() % 100_000}"
    made = Network(f"{mark}s", f"{mark}r", f"{mark}d")
    near, far = f"{mark}a", f"{mark}b"
    try:
        try:
            for namespace in (made.router, made.daemons_side):
                _ip("netns", "add", namespace)
            _ip("link", "add", made.servers_side, "type", "veth", "peer", near)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace: {error.stderr}")
        _ip("link", "set", near, "netns", made.router)
        for address in _HOSTS.values():
            _ip("addr", "add", f"{address}/24", "dev", made.servers_side)
        _ip("link", "set", made.servers_side, "up")
        _ip("-n", made.router, "link", "add", far, "type", "veth", "peer", "eth0",
            "netns", made.daemons_side)  # fmt: skip
        for link, address in ((near, f"{_NEAR}.254"), (far, f"{_FAR}.254")):
            _ip("-n", made.router, "addr", "add", f"{address}/24", "dev", link)
            _ip("-n", made.router, "link", "set", link, "up")
        _ip("-n", made.daemons_side, "addr", "add", f"{_FAR}.1/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            _ip("-n", made.daemons_side, "link", "set", link, "up")
        _ip("-n", made.daemons_side, "route", "add", "default", "via", f"{_FAR}.254")
        _ip("route", "add", f"{_FAR}.0/24", "via", f"{_NEAR}.254")
        made.heal("all")
        yield made
    finally:
        for what in ("router", "daemons_side"):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", getattr(made, what))
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", made.servers_side)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
