"""The sandbox as a process: real sockets, real faults, a ledger that survives being killed."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

AT = "2027-02-20T10:00:00+09:00"
TERMS = {"amount": 9_900, "name": "월간 구독"}
PATIENCE = httpx.Timeout(10, read=0.7)


@dataclass
class Server:
    """A running sandbox and a client with a token."""

    process: subprocess.Popen[str]
    url: str
    client: httpx.Client

    def register(self, *uids: str, **more: Any) -> None:
        paid_at = "2027-01-20T11:00:00+09:00"
        wishes = [
            {"customer_uid": uid, "paid_at": paid_at, **TERMS, **more} for uid in uids or ["ada"]
        ]
        assert self.client.post("/sandbox/customers", json=wishes).status_code == 200

    def sign_in(self) -> None:
        pair = {"imp_key": "key", "imp_secret": "secret"}
        token = self.client.post("/users/getToken", json=pair).json()["response"]["access_token"]
        self.client.headers["Authorization"] = f"Bearer {token}"

    def charge(self, order: str, uid: str = "ada") -> httpx.Response:
        body = {"customer_uid": uid, "merchant_uid": order, **TERMS}
        return self.client.post("/subscribe/payments/again", json=body)

    def paid_orders(self) -> list[str]:
        rows: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self.client.get("/sandbox/ledger", params={"limit": 1000, "after": after}).json()
            rows, after = rows + page["payments"], page["next"]
        return [row["merchant_uid"] for row in rows if row["origin"] == "again" and row["paid_at"]]


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "billing.sandbox", "--at", AT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["pid"] == process.pid
        with httpx.Client(base_url=told["url"], timeout=PATIENCE, trust_env=False) as client:
            server = Server(process, told["url"], client)
            server.sign_in()
            yield server
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def breaks(expected: type[Exception]) -> Callable[[Callable[[], httpx.Response]], None]:
    def check(act: Callable[[], httpx.Response]) -> None:
        with pytest.raises(expected):
            act()

    return check


def no_json(act: Callable[[], httpx.Response]) -> None:
    answer = act()
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def status(code: int) -> Callable[[Callable[[], httpx.Response]], None]:
    def check(act: Callable[[], httpx.Response]) -> None:
        assert act().status_code == code

    return check


FAULTS = {
    "timeout": breaks(httpx.ReadTimeout),
    "reset": breaks(httpx.ReadError),
    "cut_body": breaks(httpx.ReadError),
    "http:502": status(502),
    "html": no_json,
    "cut_json": no_json,
}


@pytest.mark.parametrize("charged", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_charge_faults_at_the_socket(server: Server, fault: str, charged: bool) -> None:
    kind, _, argument = fault.partition(":")
    word = f"{kind}_{'after' if charged else 'before'}_charge" + (argument and f":{argument}")
    uid = order = word.replace("_", "-").replace(":", "-")
    server.register(uid, script=[word])
    FAULTS[fault](lambda: server.charge(order, uid))
    assert (order in server.paid_orders()) is charged
    # The next connection works.
    assert server.charge(f"{order}-2"[:40], uid).status_code == 200


@pytest.mark.parametrize("fault", [*FAULTS, "unauthorized", "too_many:3"])
def test_look_up_faults_at_the_socket(server: Server, fault: str) -> None:
    server.register()
    check = {**FAULTS, "unauthorized": status(401), "too_many:3": status(429)}[fault]
    server.client.post("/sandbox/faults", json={"chances": {"lookup": {fault: 1}}})
    try:
        check(lambda: server.client.get("/subscribe/customers/ada"))
    finally:
        assert server.client.post("/sandbox/faults", json={}).status_code == 200
    assert server.client.get("/subscribe/customers/ada").status_code == 200


def test_a_reset_is_a_reset(server: Server) -> None:
    """Not a polite end: the kernel reports ECONNRESET."""
    server.register("rst", script=["reset_before_charge"])
    body = json.dumps({"customer_uid": "rst", "merchant_uid": "rst-1", **TERMS}).encode()
    head = (
        "POST /subscribe/payments/again HTTP/1.1\r\nHost: gateway\r\n"
        f"Authorization: {server.client.headers['Authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with address(server.url) as raw:
        raw.sendall(head.encode() + body)
        with pytest.raises(ConnectionResetError):
            raw.recv(1)


def address(url: str) -> closing[socket.socket]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return closing(socket.create_connection((parts.hostname, parts.port or 0), timeout=5))


SPELLS = {**FAULTS, "unauthorized": status(401), "too_many:3": status(429)}


@pytest.mark.parametrize("fault", SPELLS)
def test_down_for_all_and_back(server: Server, fault: str) -> None:
    """Charges, cancellations and look-ups, known and unknown; nothing is charged."""
    uid = order = "down-" + fault.replace(":", "-")
    server.register(uid)
    server.client.post("/sandbox/faults", json=spell(server, fault))
    try:
        for act in (
            lambda: server.charge(order, uid),
            lambda: server.client.get(f"/payments/findAll/{order}"),
            lambda: server.client.post("/payments/cancel", json={"merchant_uid": order}),
        ):
            SPELLS[fault](act)
        assert order not in server.paid_orders()
    finally:
        assert server.client.post("/sandbox/faults", json={}).status_code == 200
    assert server.charge(order, uid).json()["response"]["status"] == "paid"


def test_slow_for_all(server: Server) -> None:
    server.register("slow")
    server.client.post("/sandbox/faults", json=spell(server, "slow:200"))
    try:
        for act in (
            lambda: server.charge("slow-1", "slow"),
            lambda: server.client.get("/payments/findAll/slow-1"),
        ):
            begun = time.monotonic()
            assert act().json()["code"] == 0
            assert time.monotonic() - begun >= 0.2
    finally:
        server.client.post("/sandbox/faults", json={})


def spell(server: Server, does: str) -> dict[str, object]:
    begins = server.client.get("/sandbox/clock").json()["now"]
    until = "2027-02-21T00:00:00+09:00"
    return {"spells": [{"from": begins, "until": until, "does": does}]}


def test_the_same_seed_and_requests_give_the_same_answers(tmp_path: Path) -> None:
    faults = tmp_path / "faults.toml"
    faults.write_text(
        '[chances.charge]\n"declined:A" = 0.3\nhtml_after_charge = 0.2\nunauthorized = 0.2\n'
        '[chances.lookup]\n"http:503" = 0.3\n'
    )

    def answers(seed: int) -> list[tuple[int, object]]:
        with serving("--seed", str(seed), "--faults", str(faults)) as running:
            told = []
            for number in range(25):
                running.register(f"c-{number}")
                for one in (
                    running.charge(f"m-{number}", f"c-{number}"),
                    running.client.get(f"/payments/findAll/m-{number}"),
                ):
                    told.append((one.status_code, re.sub(r'_at":\d+', '_at":0', one.text)))
            return told

    first = answers(7)
    assert answers(7) == first
    assert answers(8) != first


def test_without_a_seed_no_start_gives_out_the_ids_of_another() -> None:
    def first_id() -> str:
        with serving() as running:
            running.register("ada")
            return str(running.charge("m-1", "ada").json()["response"]["imp_uid"])

    one = first_id()
    time.sleep(1.1)  # the moment of the start, in seconds, is in every id
    assert re.fullmatch(r"imp_[0-9a-f]{8}\d{12}", one)
    assert first_id() != one


def test_latency_on_the_command_line() -> None:
    with serving("--latency-ms", "150") as slow:
        begun = time.monotonic()
        slow.client.get("/subscribe/customers/ada")
        assert 0.15 <= time.monotonic() - begun < 0.65


def test_faults_file_and_credentials(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('[[scripts]]\ncustomers = "*"\ndoes = ["declined:0016"]\n')
    arguments = ["--faults", str(path), "--imp-key", "key", "--imp-secret", "secret"]
    with serving(*arguments) as strict:
        strict.register()
        assert strict.charge("m-1").json()["response"]["status"] == "failed"
        wrong = {"imp_key": "key", "imp_secret": "guess"}
        assert strict.client.post("/users/getToken", json=wrong).status_code == 401


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_well_even_while_somebody_waits_for_no_answer(number: signal.Signals) -> None:
    with serving() as running:
        running.register(script=["timeout_before_charge"])
        ends: list[Exception] = []
        waiting = threading.Thread(target=wait_for_an_answer, args=(running, ends))
        waiting.start()
        while not running.client.get("/sandbox/requests?kind=again").json()["total"]:
            time.sleep(0.01)
        running.process.send_signal(number)
        assert running.process.wait(5) == 0
        assert running.process.communicate() == ("", "")
        waiting.join()
        assert [type(one) for one in ends] == [httpx.ReadError]


def wait_for_an_answer(server: Server, ends: list[Exception]) -> None:
    with httpx.Client(base_url=server.url, timeout=20, trust_env=False) as patient:
        patient.headers.update(server.client.headers)
        try:
            Server(server.process, server.url, patient).charge("m-1")
        except httpx.TransportError as error:
            ends.append(error)


def test_wrong_calls_say_what_is_wrong(tmp_path: Path) -> None:
    damaged = tmp_path / "ledger.db"
    damaged.write_bytes(b"this is no ledger" * 100)
    faults = tmp_path / "faults.toml"
    faults.write_text('[chances.charge]\n"oh" = 0.1\n')
    for arguments, told in (
        (["--data", str(damaged)], "Give the name of a new file"),
        (["--faults", str(faults)], "nothing that a charge can meet"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "billing.sandbox", *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def test_a_file_of_another_version_or_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE payments (precious TEXT)")
    done = subprocess.run(
        [sys.executable, "-m", "billing.sandbox", "--data", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "not a ledger of this version" in done.stderr


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with serving("--data", str(path)):
        second = subprocess.run(
            [sys.executable, "-m", "billing.sandbox", "--data", str(path)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert second.returncode == 2
    assert "Is another sandbox using this file?" in second.stderr


def test_everything_answered_is_still_there_after_kill_9(tmp_path: Path) -> None:
    """Killed in the middle of work, thrice; whatever a client was told, the file holds."""
    path = str(tmp_path / "ledger.db")
    told: set[str] = set()
    for life in range(3):
        with serving("--data", path) as running:
            assert told <= set(running.paid_orders())
            running.register(*(f"c-{life}-{number}" for number in range(300)))
            threads = [
                threading.Thread(target=hammer, args=(running, life, part, told))
                for part in range(4)
            ]
            for thread in threads:
                thread.start()
            before = len(told)
            while len(told) < before + 60:
                time.sleep(0.005)
            running.process.kill()
            for thread in threads:
                thread.join()
    with serving("--data", path) as running:
        held = running.paid_orders()
        assert told <= set(held)
        assert len(held) == len(set(held))
        # In flight when it was killed: booked, perhaps, but told to nobody. One per thread.
        assert len(held) - len(told) <= 3 * 4


def hammer(server: Server, life: int, part: int, told: set[str]) -> None:
    with httpx.Client(base_url=server.url, timeout=5, trust_env=False) as client:
        client.headers.update(server.client.headers)
        own = Server(server.process, server.url, client)
        for number in range(part, 300, 4):
            order = f"m-{life}-{number}"
            try:
                answer = own.charge(order, f"c-{life}-{number}")
            except httpx.TransportError:
                return
            assert answer.json()["response"]["status"] == "paid"
            told.add(order)


def test_keys_scripts_clock_and_requests_survive(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    with serving("--data", path) as running:
        running.register(script=["declined:0016", "declined:0098"])
        assert "0016" in running.charge("m-1").text
        running.client.post("/sandbox/clock", json={"advance_seconds": 86_400})
        before = running.client.get("/sandbox/requests").json()
        running.process.kill()
    again = subprocess.Popen(
        [sys.executable, "-m", "billing.sandbox", "--data", path],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert again.stdout is not None
        url = json.loads(again.stdout.readline())["url"]
        with httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            running = Server(again, url, client)
            assert (
                client.get("/sandbox/requests").json()["requests"][: before["total"]]
                == (before["requests"])
            )
            assert client.get("/sandbox/clock").json()["now"].startswith("2027-02-21T01:")
            running.sign_in()
            assert "0098" in running.charge("m-2").text
            assert running.charge("m-3").json()["response"]["status"] == "paid"
    finally:
        again.terminate()
        assert again.wait(10) == 0
        again.communicate()
