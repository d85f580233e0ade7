"""Compose, Kubernetes and systemd: valid by their schemas, locked in, and the same in all three."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import pty
import re
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compose_files import loaded, merged
from tests.containers import BIN, COMPOSE, IMAGE, OURS, ROOT, SERVICES, make_secrets

MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
# Who needs no more than the broker, and who is the only one that owns the book.
ONLY_THE_BROKER = {"broker_url", "flower_password"}
ONLY_THE_OWNER = {"database_owner_url"}
THE_OWNERS = ("database_owner_url", "postgres_owner_password")


# -- by their schemas -------------------------------------------------------------------------


def test_compose_fits_the_specification() -> None:
    _valid(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec",
           ROOT / "docker-compose.yml")  # fmt: skip


@pytest.mark.parametrize("file", MANIFESTS, ids=str)
def test_manifests_fit_kubernetes(file: Path) -> None:
    _valid(BIN / "kubernetes-validate", "--strict", file)


def test_the_schemas_can_refuse(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text("services: {web: {image: x, helthcheck: {}}}\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="helthcheck"):
        _valid(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", broken)


def test_systemd_reads_every_unit(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd is not on this machine")
    # Without a space in it, whatever the path of the checkout has.
    (tmp_path / "bin").symlink_to(BIN)
    units = tmp_path / "units"
    units.mkdir()
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/maewol/bin/", f"{tmp_path}/bin/")
        (units / unit.name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [verify, "verify", *units.iterdir()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def _valid(*command: object) -> None:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


# -- Compose ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_every_process_of_ours_is_locked_in(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert name == "migrate" or service["restart"] == "unless-stopped"
    assert name == "migrate" or "healthcheck" in service
    published = [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
    assert published == []


def test_no_secret_is_in_the_file_and_every_image_is_pinned() -> None:
    for service in SERVICES.values():
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?", service["image"])
        for name, value in (service.get("environment") or {}).items():
            if re.search("URL|KEY|SECRET|TOKEN|PASSWORD", name):
                assert name.endswith(("_FILE", "__FILE"))
                assert value.startswith("/run/secrets/")


@pytest.mark.parametrize("name", SERVICES)
def test_no_log_grows_for_ever(name: str) -> None:
    assert set(SERVICES[name]["logging"]["options"]) == {"max-size", "max-file"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_gets_the_secrets_that_it_reads(name: str) -> None:
    service = SERVICES[name]
    read = set(re.findall(r"/run/secrets/(\w+)", str(service) + _initial_scripts(name)))
    # Prometheus reads it in a file of its own.
    read |= {"api_token"} if name == "prometheus" else set()
    assert set(service.get("secrets") or []) == read


def _initial_scripts(name: str) -> str:
    there = [str(mount).split(":")[0] for mount in SERVICES[name].get("volumes", [])]
    return "".join(
        (ROOT / path).read_text(encoding="utf-8") for path in there if path.endswith(".sql")
    )


def test_flower_only_looks_and_only_the_migration_is_the_owner() -> None:
    assert set(SERVICES["flower"]["secrets"]) == ONLY_THE_BROKER
    assert set(SERVICES["migrate"]["secrets"]) == ONLY_THE_OWNER
    owners = [name for name in OURS if "database_owner_url" in SERVICES[name]["secrets"]]
    assert owners == ["migrate"]


def test_the_image_is_made_of_what_is_there_and_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = [line[1:] for line in lines if line.startswith("!")]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (?:--chmod=755 )?((?!--)\S+) ", dockerfile, re.MULTILINE)
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert any(fnmatch.fnmatch(source, one) for one in sent)
    for name, value in IMAGE.items():
        assert f"{name}={value}" in dockerfile


def test_with_the_sandbox_no_two_workers_have_one_name() -> None:
    """Those that share its network share its host's name, too."""
    services = merged(COMPOSE, loaded(ROOT / "deploy/compose.sandbox.yml"))["services"]
    names = []
    for name in ("ticks", "charges"):
        assert services[name]["network_mode"] == "service:sandbox"
        replicas = services[name].get("deploy", {"replicas": 1})["replicas"]
        names += [services[name]["command"][-1]] * replicas
    assert len(names) == len(set(names))


@pytest.mark.parametrize("above", [None, "deploy/compose.sandbox.yml"])
def test_what_prometheus_asks_has_its_name_in_the_network(above: str | None) -> None:
    """What shares another's network has none of its own there."""
    compose = merged(COMPOSE, loaded(ROOT / above)) if above else COMPOSE
    names: set[str] = set()
    for name, service in compose["services"].items():
        if "network_mode" not in service:
            names |= {name, *service.get("networks", {}).get("default", {}).get("aliases", ())}
    asked = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    targets = [
        target.partition(":")[0]
        for job in asked["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    assert targets
    assert set(targets) <= names


# -- the health check -------------------------------------------------------------------------


def _alive(file: Path, *minutes: str) -> int:
    done = subprocess.run(
        ["sh", ROOT / "deploy/alive.sh", *minutes],
        env={"PATH": os.environ["PATH"], "MAEWOL_LIVENESS_FILE": str(file)},
        check=False,
        capture_output=True,
        timeout=30,
    )
    return done.returncode


def test_what_hangs_for_long_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    with subprocess.Popen(["sleep", "60"]) as process:
        file.write_text(f"{process.pid}\n", encoding="ascii")
        assert _alive(file) == 0
        for minutes, allowed, code in ((4, (), 1), (4, ("5",), 0), (7, ("5",), 1)):
            _touched(file, minutes)
            assert _alive(file, *allowed) == code
            assert process.poll() is None
        assert _alive(file) == 1
        assert process.wait(10) == -9


def test_without_a_file_or_a_number_it_is_unwell_and_nobody_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    assert _alive(file) != 0
    file.touch()
    _touched(file, 7)
    assert _alive(file) != 0


def _touched(file: Path, minutes: float) -> None:
    then = time.time() - minutes * 60
    os.utime(file, (then, then))


# -- Kubernetes and systemd -------------------------------------------------------------------


def _documents() -> list[dict[str, Any]]:
    texts = [file.read_text(encoding="utf-8") for file in MANIFESTS]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def _maps() -> dict[str, dict[str, str]]:
    maps = [one for one in _documents() if one["kind"] == "ConfigMap"]
    return {one["metadata"]["name"]: one["data"] for one in maps}


def _pods() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Every pod's container and the whole of its `spec`, by the container's name."""
    found = {}
    for document in _documents():
        if document["kind"] in ("Deployment", "Job"):
            spec = document["spec"]["template"]["spec"]
            (container,) = spec["containers"]
            found[container["name"]] = (container, spec)
    return found


def _settings_of(name: str) -> dict[str, str]:
    """What a pod's container finds in its environment."""
    container, _ = _pods()[name]
    found: dict[str, str] = {}
    for one in container.get("envFrom", []):
        found |= _maps()[one["configMapRef"]["name"]]
    return found | {one["name"]: one["value"] for one in container.get("env", [])}


@pytest.mark.parametrize("name", [name for name in OURS if name != "sandbox"])
def test_everybody_runs_the_same_commands(name: str) -> None:
    wanted = " ".join(SERVICES[name]["command"])
    container, spec = _pods()[name]
    assert " ".join(container["command"]) == wanted
    assert f"{spec['terminationGracePeriodSeconds']}s" == SERVICES[name]["stop_grace_period"]
    (unit,) = (one for one in UNITS if one.name.startswith(f"maewol-{name}"))
    started = unit.read_text(encoding="utf-8").partition("ExecStart=/opt/maewol/bin/")[2]
    line = started.splitlines()[0].replace("%%h", "%h").replace("%i", "")
    # A container has a network of its own, a host has not.
    line = line.replace(" --address=127.0.0.1", "").replace("--host 127.0.0.1", "--host 0.0.0.0")
    assert line == wanted


@pytest.mark.parametrize("name", [name for name in OURS if name != "sandbox"])
def test_a_pod_gets_the_secrets_that_it_reads(name: str) -> None:
    _, spec = _pods()[name]
    (items,) = [one["secret"]["items"] for one in spec["volumes"] if one["name"] == "secrets"]
    given = {one["key"] for one in items}
    settings = " ".join(_settings_of(name).values())
    assert given == set(re.findall(r"/run/secrets/(\w+)", settings))
    assert given == set(SERVICES[name]["secrets"])


@pytest.mark.parametrize("name", ["ticks", "web"])
def test_proofs_are_kept_beyond_a_pod(name: str) -> None:
    container, spec = _pods()[name]
    volumes = {one["name"]: one for one in spec["volumes"]}
    (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == "/var/lib/maewol"]
    assert volumes[mount["name"]]["persistentVolumeClaim"]["claimName"] == "maewol-files"
    assert _settings_of(name)["MAEWOL_PROOF_DIR"].startswith(mount["mountPath"])
    assert mount.get("readOnly", False) is (name == "web")


def test_units_see_no_more_secrets_than_they_read() -> None:
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8")
        hidden = re.findall(r"^InaccessiblePaths=(.*)$", text, re.MULTILINE)
        match unit.stem.removeprefix("maewol-"):
            case "migrate":
                assert set(re.findall(r"/secrets/(\w+)", text)) == ONLY_THE_OWNER
            case "flower":
                assert "TemporaryFileSystem=/etc/maewol/secrets:ro" in text
                assert set(re.findall(r"/secrets/(\w+)", text)) == ONLY_THE_BROKER
                example = (ROOT / "deploy/systemd/flower.env.example").read_text(encoding="utf-8")
                assert set(re.findall(r"=/etc/maewol/secrets/(\w+)", example)) == ONLY_THE_BROKER
            case _:
                there = (f"-/etc/maewol/secrets/{name}" for name in THE_OWNERS)
                assert hidden == [" ".join(there)]
                assert "EnvironmentFile=/etc/maewol/maewol.env" in text


@pytest.mark.parametrize("name", ["beat", "ticks", "charges@", "web"])
def test_a_unit_that_hangs_is_started_anew(name: str) -> None:
    text = (ROOT / f"deploy/systemd/maewol-{name}.service").read_text(encoding="utf-8")
    assert {"WatchdogSec=6min", "Restart=always"} <= set(text.splitlines())


# -- the secrets ------------------------------------------------------------------------------


def test_secrets_are_made_once(tmp_path: Path) -> None:
    folder = make_secrets(tmp_path)
    before = {file.name: file.read_text(encoding="ascii") for file in folder.iterdir()}
    assert set(before) == set(COMPOSE["secrets"])
    assert len(set(before.values())) == len(before)
    for url, password in (
        ("database_url", "postgres_run_password"),
        ("database_owner_url", "postgres_owner_password"),
        ("broker_url", "redis_password"),
    ):
        assert f":{before[password]}@" in before[url]
    assert folder.stat().st_mode & 0o777 == 0o700
    make_secrets(tmp_path)
    assert {file.name: file.read_text(encoding="ascii") for file in folder.iterdir()} == before


@contextlib.contextmanager
def _at_a_terminal(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The script at a real terminal, which shows what is typed unless it is told not to."""
    ours, theirs = pty.openpty()
    script = ["sh", str(ROOT / "tools/secrets.sh"), str(folder / "secrets")]
    env = {"PATH": os.environ["PATH"]}
    with subprocess.Popen(
        script,
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        # Whoever runs the suite in the background may have it ignored, and a shell keeps to that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        yield process, ours
    os.close(theirs)
    os.close(ours)


def test_what_is_typed_is_not_shown(tmp_path: Path) -> None:
    with _at_a_terminal(tmp_path) as (process, terminal):
        seen = _read(terminal, b"imp_key): ")
        os.write(terminal, b"the-key\n")
        seen += _read(terminal, b"imp_secret): ")
        os.write(terminal, b"the-secret\n")
        seen += _read(terminal, b"keep it out")
        assert process.wait(10) == 0
        assert _shows(terminal)
    assert b"the-" not in seen
    for name, typed in (("portone_imp_key", "the-key"), ("portone_imp_secret", "the-secret")):
        assert (tmp_path / "secrets" / name).read_text(encoding="ascii") == typed


def test_who_breaks_off_has_the_terminal_of_before(tmp_path: Path) -> None:
    with _at_a_terminal(tmp_path) as (process, terminal):
        _read(terminal, b"imp_key): ")
        assert not _shows(terminal)
        # As a person does: a shell that is just about to read may miss the first.
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
        assert process.returncode == 130
        assert _shows(terminal)
    assert not (tmp_path / "secrets/portone_imp_key").exists()


def _read(terminal: int, up_to: bytes) -> bytes:
    seen = b""
    while up_to not in seen:
        seen += os.read(terminal, 1000)
    return seen


def _shows(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
