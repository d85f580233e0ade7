"""Every address of this machine in a document is one where something of ours answers, and answers
that path: the ports are those of docker-compose.yml and of the programs themselves."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer.main
from starlette.routing import BaseRoute, Match

from billing.bootstrap import house
from billing.cli import up
from billing.cli.commands import app
from billing.sandbox import Sandbox
from billing.sandbox import create_app as create_sandbox
from billing.settings import Settings
from billing.web.app import create_app
from tests.containers import ROOT, SERVICES

DOCUMENTS = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/**/*.md")])
_ADDRESS = re.compile(
    r"(?<![\w.@-])(?:http://)?(?:127\.0\.0\.1|localhost|\[::1\]):\d+[^\s`'\"<|)]*"
)

# Ports of this machine at which nothing of ours answers, and whose they are.
OTHERS = {
    9: "nobody's: what is sent there is lost, which sandbox.md shows",
    4318: "a collector of OpenTelemetry, by its own default",
}


@cache
def published() -> dict[int, str]:
    """Which service answers at a port of the host, by the Compose file."""
    found = {}
    for name, service in SERVICES.items():
        for one in service.get("ports", []):
            address, outside, inside = one.split(":")
            assert (address, outside) == ("127.0.0.1", inside)
            found[int(outside)] = name
    return found


@cache
def routes(service: str) -> list[BaseRoute] | None:
    """What a service of ours answers; None for a program of others."""
    match service:
        case "web":
            nowhere = {
                "database_url": "postgresql://127.0.0.1:1/x",
                "broker_url": "redis://127.0.0.1:1",
            }
            with house(Settings(**nowhere)) as opened:  # type: ignore[arg-type]
                return create_app(opened).routes
        case "sandbox":
            return create_sandbox(Sandbox()).routes
    return None


def problem(address: str) -> str | None:
    """What is wrong with an address of this machine; None when nothing is."""
    url = urlsplit(address if "://" in address else f"http://{address}")
    assert url.port is not None
    if url.port in OTHERS:
        return None
    service = published().get(url.port)
    if service is None:
        return f"nothing answers at port {url.port}"
    known = routes(service)
    path = url.path.rstrip(".,;:/") or "/"
    if known is None or path == "/" or "…" in path:
        return None
    scope = {"type": "http", "path": path, "method": "GET", "headers": [], "root_path": ""}
    found = any(route.matches(scope)[0] is not Match.NONE for route in known)
    return None if found else f"{service} does not answer {path}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_address_of_this_machine_answers(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    wrong = [(one, found) for one in _ADDRESS.findall(text) if (found := problem(one)) is not None]
    assert wrong == []


@pytest.mark.parametrize("name", ["web", "sandbox"])
def test_compose_and_the_programs_own_ports_are_the_same(name: str) -> None:
    """A reader without Docker starts `maewol web`, and reads the same pages."""
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    (own,) = [one.default for one in command.params if one.name == "port"]
    (of_compose,) = [port for port, service in published().items() if service == name]
    assert {"web": up.WEB_PORT}.get(name, of_compose) == of_compose
    words = SERVICES[name]["command"]
    assert words[words.index("--port") + 1] == str(of_compose)
    assert own in (0, None, of_compose)


def test_flower_has_one_port_everywhere() -> None:
    assert published()[up.FLOWER_PORT] == "flower"
    assert f"--port={up.FLOWER_PORT}" in SERVICES["flower"]["command"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_port_that_is_given_to_a_program_is_its_port(document: Path) -> None:
    """Wherever a page starts one: what it says next is read by the same ports."""
    text = document.read_text(encoding="utf-8")
    for name, port in re.findall(r"maewol (web|sandbox)\b[^`\n]*--port[= ](\d+)", text):
        assert published().get(int(port)) == name


@pytest.mark.parametrize(
    "line",
    [
        "`curl 127.0.0.1:8080/readyz` says which it is",
        "$ curl -s http://127.0.0.1:8000/sandbox/verdict",
        "http://localhost:8888/readyz",
        "Grafana answers on `127.0.0.1:3001`, for the user",
        "http://[::1]:8000/healthy.",
    ],
)
def test_a_mistake_is_found(line: str) -> None:
    assert [found for one in _ADDRESS.findall(line) if (found := problem(one)) is not None]
