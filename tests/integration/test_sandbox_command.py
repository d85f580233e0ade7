"""`maewol sandbox`: every option reaches the server, and a wrong call says what is wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

COMMAND = [sys.executable, "-m", "billing.cli", "sandbox"]
PAIR = {"imp_key": "key", "imp_secret": "secret"}


@contextmanager
def serving(*options: str) -> Iterator[httpx.Client]:
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
                yield client
        finally:
            process.terminate()
            assert process.wait(20) == 0


def test_all_options_at_once(tmp_path: Path) -> None:
    faults, ledger = tmp_path / "faults.toml", tmp_path / "ledger.db"
    faults.write_text('failed_merchant_uid = "strict"\n')
    with serving(
        *("--host", "127.0.0.1", "--port", "0", "--seed", "7"),
        *("--faults", str(faults), "--data", str(ledger), "--latency-ms", "150"),
        *("--at", "2027-02-20T10:00:00+09:00", "--imp-key", "key", "--imp-secret", "secret"),
    ) as client:
        assert client.get("/sandbox/clock").json()["now"].startswith("2027-02-20T01:00:")
        assert client.get("/sandbox/faults").json()["failed_merchant_uid"] == "strict"
        assert client.get("/sandbox/faults").json()["latency"] == {"charge": 150, "lookup": 150}
        begun = time.monotonic()
        assert client.post("/users/getToken", json=PAIR).status_code == 200
        assert time.monotonic() - begun >= 0.15
        wrong = {**PAIR, "imp_secret": "guess"}
        assert client.post("/users/getToken", json=wrong).status_code == 401
        wrong = {**PAIR, "imp_key": "guess"}
        assert client.post("/users/getToken", json=wrong).status_code == 401
    assert ledger.stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--at", "2027-02-20"], "no moment with its offset"),
        (["--port", "65536"], "--port"),
        (["--seed", "x"], "--seed"),
        (["--latency-ms", "nan"], "--latency-ms nan: out of range. Give 0 to"),
        (["--latency-ms", "-1"], "--latency-ms -1: out of range. Give 0 to"),
        (["--faults", "{folder}/none.toml"], "none.toml: No such file or directory. Give a"),
        (["--faults", "{folder}/faults.toml"], "faults.toml: chances.charge.oh: 'oh' is nothing"),
        (["--notice-url", "shop.example"], "--notice-url 'shop.example' is no address. Give http"),
        (["--data", "{folder}/none/ledger.db"], "Give a file that can be written"),
        (["--port", "{taken}"], "Address already in use. Choose another port"),
    ],
)
def test_wrong_calls(tmp_path: Path, options: list[str], told: str) -> None:
    (tmp_path / "faults.toml").write_text('[chances.charge]\n"oh" = 0.1\n')
    with socket.create_server(("127.0.0.1", 0)) as listener:
        values = {"folder": tmp_path, "taken": listener.getsockname()[1]}
        done = subprocess.run(
            [*COMMAND, *(option.format(**values) for option in options)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (2, "")
    # The box around a usage error breaks lines.
    assert told in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
