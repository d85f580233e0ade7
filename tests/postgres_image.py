"""What the image of PostgreSQL does when it starts on an empty volume, where there is no image.

It makes a cluster for its superuser, whom only a password lets in over the network, makes the
database, runs what lies in `/docker-entrypoint-initdb.d`, and listens.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from billing.embedded.home import Home, prepare_home
from billing.embedded.programs import PostgresPrograms, postgres_programs


class PostgresImage:
    """The programs of a PostgreSQL, and a folder for one cluster until `close`."""

    def __init__(self) -> None:
        # Not in a test's own, which the user that root's servers run as cannot reach.
        self._folder = tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True)
        Path(self._folder.name).chmod(0o755)
        self._home: Home = prepare_home(Path(self._folder.name), lambda _: None)
        self._programs: PostgresPrograms = postgres_programs(self._home, None)
        self._data = self._home.make("cluster") / "data"
        self._sockets = self._home.make("sockets")

    def close(self) -> None:
        self._folder.cleanup()

    def program(self, name: str) -> Path:
        return self._programs.folder / name

    def start(
        self, environment: dict[str, str], scripts: list[Path], port: int, log: Path
    ) -> subprocess.Popen[bytes]:
        """A running server whose cluster the image would have made of `environment`."""
        self._make_cluster(environment, port)
        made = f"CREATE DATABASE {environment['POSTGRES_DB']}"
        self._psql("postgres", environment, port, "-c", made)
        for script in scripts:
            self._psql(environment["POSTGRES_DB"], environment, port, "-f", str(script))
        self._pg_ctl("stop", "-m", "fast")
        return self._serve(port, log)

    def _make_cluster(self, environment: dict[str, str], port: int) -> None:
        password = Path(environment["POSTGRES_PASSWORD_FILE"]).read_text(encoding="ascii")
        given = self._sockets / "given"
        self._home.write(given, password)
        self._run(
            self.program("initdb"),
            f"--pgdata={self._data}",
            f"--username={environment['POSTGRES_USER']}",
            f"--pwfile={given}",
            "--encoding=UTF8",
            "--locale=C",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--no-sync",
        )
        settings = (
            f"listen_addresses = '127.0.0.1'\nport = {port}\nfsync = off\n"
            f"unix_socket_directories = '{self._sockets}'\n"
        )
        conf = self._data / "postgresql.conf"
        self._home.write(conf, conf.read_text(encoding="utf-8") + settings)
        # As the image: until all is made, nobody but on the socket.
        self._pg_ctl("start", "-o", "-c listen_addresses=''", "-l", self._data / "first.log")

    def _psql(self, database: str, environment: dict[str, str], port: int, *arguments: str) -> None:
        where = ["-h", str(self._sockets), "-p", str(port), "-d", database]
        who = ["-U", environment["POSTGRES_USER"]]
        done = subprocess.run(
            [self.program("psql"), "-X", "-v", "ON_ERROR_STOP=1", *where, *who, *arguments],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _pg_ctl(self, *arguments: str | Path) -> None:
        action, *options = arguments
        self._run(self.program("pg_ctl"), action, "-D", self._data, "-w", *options)

    def _run(self, *command: str | Path) -> None:
        done = self._home.run(command, cwd=Path("/"), timeout=120)
        assert done.returncode == 0, done.stdout

    def _serve(self, port: int, log: Path) -> subprocess.Popen[bytes]:
        account = self._home.account
        with log.open("ab") as lines:
            return subprocess.Popen(
                [self.program("postgres"), "-D", self._data],
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=subprocess.STDOUT,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
