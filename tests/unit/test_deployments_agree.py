"""Compose, its overlay for the sandbox, and Kubernetes lock their containers in alike and find the
same ones unwell."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compose_files import loaded, merged
from tests.containers import BIN, COMPOSE, IMAGE, OURS, ROOT, SERVICES

SANDBOX = ROOT / "deploy/compose.sandbox.yml"
PODS = [name for name in OURS if name != "sandbox"]
DAEMONS = ["beat", "ticks", "charges"]
OF_OTHERS = [name for name in SERVICES if name not in OURS]
# What a program of others keeps of root's powers, and why nothing less is known to do.
KEPT = {
    "postgres": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"},
    "valkey": {"DAC_OVERRIDE"},
}
# Seconds that Kubernetes takes where nothing is said, which are too few for a busy machine.
NEVER_SAID = {"timeoutSeconds", "periodSeconds"}


def _pods() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Every pod's container and the whole of its `spec`, by the container's name."""
    found = {}
    for file in sorted((ROOT / "deploy/kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if document["kind"] in ("Deployment", "Job"):
                spec = document["spec"]["template"]["spec"]
                (container,) = spec["containers"]
                found[container["name"]] = (container, spec)
    return found


# -- Kubernetes -------------------------------------------------------------------------------


def test_every_process_of_ours_is_a_pod() -> None:
    assert set(_pods()) == set(PODS)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_locked_in_as_its_container_is_by_compose(name: str) -> None:
    container, spec = _pods()[name]
    service = SERVICES[name]
    of_all, own = spec["securityContext"], container["securityContext"]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert of_all["runAsNonRoot"] is True
    assert f"USER {of_all['runAsUser']}\n" in dockerfile
    assert of_all["fsGroup"] == of_all["runAsUser"], "its secrets are readable for it"
    assert of_all["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["readOnlyRootFilesystem"] is service["read_only"] is True
    assert own["capabilities"] == {"drop": service["cap_drop"]} == {"drop": ["ALL"]}
    assert own["allowPrivilegeEscalation"] is False
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert spec["automountServiceAccountToken"] is False
    assert f"{spec['terminationGracePeriodSeconds']}s" == service["stop_grace_period"]
    assert service["image"] == container["image"]


@pytest.mark.parametrize("name", PODS)
def test_what_a_pod_writes_to_is_small_or_kept(name: str) -> None:
    """Beside the read-only root: a little memory, and volumes where Compose has them."""
    container, spec = _pods()[name]
    volumes = {one["name"]: one for one in spec["volumes"]}
    written = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
    tmp = written.pop("/tmp")  # noqa: S108 - a container's own
    assert tmp["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
    assert SERVICES[name]["tmpfs"] == ["/tmp"]  # noqa: S108
    assert "secret" in written.pop("/run/secrets")
    assert set(written) == {one.split(":")[1] for one in SERVICES[name].get("volumes", [])}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_says_what_it_needs_and_what_it_may_take(name: str) -> None:
    resources = _pods()[name][0]["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert _mebibytes(resources["requests"]["memory"]) <= _mebibytes(resources["limits"]["memory"])
    # A processor that is taken away makes a lease run out; memory without a bound is everybody's.
    assert set(resources["limits"]) == {"memory"}


def _mebibytes(text: str) -> int:
    return int(text.removesuffix("Mi"))


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_is_unwell_after_the_same_time(name: str, tmp_path: Path) -> None:
    container, _ = _pods()[name]
    probe, check = container["livenessProbe"], SERVICES[name]["healthcheck"]
    assert check["test"] == ["CMD", "alive"]
    assert [_seconds(check[key]) for key in ("start_period", "interval", "timeout")] == [
        probe[key] for key in ("initialDelaySeconds", "periodSeconds", "timeoutSeconds")
    ]
    assert check["retries"] == probe["failureThreshold"]
    file = tmp_path / "alive"
    words = [one.replace(IMAGE["MAEWOL_LIVENESS_FILE"], str(file)) for one in _words(probe)]
    with subprocess.Popen(["sleep", "60"]) as process:
        file.write_text(f"{process.pid}\n", encoding="ascii")
        for minutes, well in ((0, True), (2.9, True), (3.1, False), (5.9, False)):
            then = time.time() - minutes * 60
            os.utime(file, (then, then))
            assert [_well(["sh", ROOT / "deploy/alive.sh"], file), _well(words, file)] == [well] * 2
        process.kill()
    file.unlink()
    assert not _well(words, file), "a file that was never written is no sign of life"


def _words(probe: dict[str, Any]) -> list[str]:
    return list(probe["exec"]["command"])


def _well(words: list[Any], file: Path) -> bool:
    env = {"PATH": os.environ["PATH"], "MAEWOL_LIVENESS_FILE": str(file)}
    done = subprocess.run(words, env=env, capture_output=True, check=False, timeout=30)
    return done.returncode == 0


def _seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.mark.parametrize(
    ("name", "ready", "alive"),
    [("web", "/readyz", "/healthz"), ("flower", "/healthcheck", "/healthcheck")],
)
def test_an_edge_is_asked_the_same(name: str, ready: str, alive: str) -> None:
    """Readiness is what Compose asks. Liveness is less: a book that is away is no reason to start
    the edge anew, and `alive`, by which Compose does that, says nothing of the book either."""
    container, _ = _pods()[name]
    check = SERVICES[name]["healthcheck"]
    (port,) = container["ports"]
    probes = {which: container[f"{which}Probe"] for which in ("readiness", "liveness")}
    assert probes["readiness"]["httpGet"] == {"path": ready, "port": port["name"]}
    assert probes["liveness"]["httpGet"] == {"path": alive, "port": port["name"]}
    asked = " ".join(check["test"])
    assert f"http://127.0.0.1:{port['containerPort']}{ready}', timeout=5" in asked
    assert [one["timeoutSeconds"] for one in probes.values()] == [5, 5]
    assert probes["liveness"]["initialDelaySeconds"] == _seconds(check["start_period"])
    assert probes["liveness"]["periodSeconds"] == _seconds(check["interval"])


def test_every_probe_says_its_times() -> None:
    for container, _ in _pods().values():
        for name in ("livenessProbe", "readinessProbe"):
            assert set(container.get(name, NEVER_SAID)) >= NEVER_SAID
        assert container["name"] == "migrate" or "livenessProbe" in container


# -- Compose: the programs of others ----------------------------------------------------------


@pytest.mark.parametrize("name", OF_OTHERS)
def test_a_program_of_others_is_locked_in_as_far_as_it_is_known_to_work(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]  # noqa: S108 - a container's own
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", [])) == KEPT.get(name, set())
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"


def test_postgres_may_make_its_socket() -> None:
    assert "/run/postgresql" in SERVICES["postgres"]["tmpfs"]


# -- Compose: with the sandbox ----------------------------------------------------------------


@pytest.fixture(scope="module")
def with_sandbox() -> dict[str, Any]:
    both: dict[str, Any] = merged(COMPOSE, loaded(SANDBOX))
    return both


@pytest.mark.parametrize("which", ["overlay", "both"])
def test_the_overlay_fits_the_specification(
    which: str, with_sandbox: dict[str, Any], tmp_path: Path
) -> None:
    content = with_sandbox if which == "both" else merged({}, loaded(SANDBOX))
    file = tmp_path / "docker-compose.yml"
    file.write_text(json.dumps(content), encoding="utf-8")
    done = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_whoever_shares_a_network_has_none_of_its_own(with_sandbox: dict[str, Any]) -> None:
    """What Compose and the engine refuse when they start it, which no schema says."""
    services = with_sandbox["services"]
    sharing = {name: one["network_mode"] for name, one in services.items() if "network_mode" in one}
    assert set(sharing) == {"ticks", "charges", "web"}
    for name, mode in sharing.items():
        assert mode.removeprefix("service:") in services
        own = {"ports", "networks", "hostname", "links", "extra_hosts", "dns", "expose"}
        assert [key for key in own if services[name].get(key)] == []


def test_no_port_of_the_host_is_taken_twice_and_none_is_lost(with_sandbox: dict[str, Any]) -> None:
    def published(services: dict[str, Any]) -> list[str]:
        return sorted(port for one in services.values() for port in one.get("ports", []))

    assert published(with_sandbox["services"]) == published(SERVICES)
    assert len(set(published(SERVICES))) == len(published(SERVICES))


def test_everybody_who_speaks_to_the_gateway_speaks_to_the_sandbox(
    with_sandbox: dict[str, Any],
) -> None:
    services = with_sandbox["services"]
    told = {
        name: one["environment"]["MAEWOL_PORTONE_API_URL"]
        for name, one in services.items()
        if "MAEWOL_PORTONE_API_URL" in (one.get("environment") or {})
    }
    speaking = {
        name for name, one in SERVICES.items() if "portone_imp_key" in (one.get("secrets") or [])
    }
    # Beat has the credentials, as whoever checks its settings; it never calls.
    assert set(told) == speaking - {"beat"}
    (port,) = {address.rpartition(":")[2] for address in told.values()}
    command = services["sandbox"]["command"]
    assert command[command.index("--port") + 1] == port
    # Nothing else of theirs is lost by what is laid over it.
    for name in told:
        below, above = SERVICES[name], services[name]
        assert below["environment"].items() <= above["environment"].items()
        assert [above[key] for key in ("command", "healthcheck", "secrets", "depends_on")] == [
            below[key] for key in ("command", "healthcheck", "secrets", "depends_on")
        ]


@pytest.mark.parametrize(
    ("below", "above", "wanted"),
    [
        ("{a: {ports: [1, 2]}}", "{a: {ports: !reset []}}", {"a": {}}),
        ("{a: {ports: [1, 2]}}", "{a: {ports: !override [3]}}", {"a": {"ports": [3]}}),
        ("{a: {ports: [1, 2]}}", "{a: {ports: [2, 3]}}", {"a": {"ports": [1, 2, 3]}}),
        ("{command: [a, b]}", "{command: [c]}", {"command": ["c"]}),
        ("{environment: [A=1, B=2]}", "{environment: {B: 3}}", {"environment": {"A": "1", "B": 3}}),
        ("{volumes: ['x:/a', 'y:/b']}", "{volumes: ['z:/a']}", {"volumes": ["z:/a", "y:/b"]}),
    ],
)
def test_files_are_laid_over_each_other_as_compose_does(
    below: str, above: str, wanted: Any, tmp_path: Path
) -> None:
    for name, text in (("below", below), ("above", above)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert merged(loaded(tmp_path / "below"), loaded(tmp_path / "above")) == wanted
