"""A deploy while charging goes on: the code before the newest migration and the code with it, side
by side over one book that is migrated between them. Two of every process, old and new."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import migrations
from billing.embedded import Servers
from tests.conftest import a_database
from tests.lasting.stage import Addresses, a_stage, ask

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
NEWEST = sorted(Path(migrations.__file__).parent.glob("versions/v*.py"))[-1]


def _git(*arguments: str) -> bytes | None:
    """What git says of this tree; None where it has nothing to say."""
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


@pytest.fixture
def old_code(tmp_path: Path) -> Path:
    """The tree as it was before the newest migration came into it."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top.decode().strip()) != ROOT:
        pytest.skip("an exported tree: it has no history to take the older code from")
    newest = str(NEWEST.relative_to(ROOT))
    came = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", newest) or b""
    before = f"{came.decode().strip()}^" if came.strip() else "HEAD"
    packed = _git("archive", before)
    if packed is None:
        pytest.skip("a shallow clone: the code before the newest migration is not in it")
    into = tmp_path / "old"
    into.mkdir(mode=0o755)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tree:
        tree.extractall(into, filter="data")
    assert not (into / newest).exists()
    return into


def test_old_and_new_code_charge_side_by_side_while_the_book_is_migrated(
    tmp_path: Path, servers: Servers, old_code: Path
) -> None:
    tmp_path.chmod(0o755)
    old = {"PYTHONPATH": str(old_code)}
    with a_database(servers, "template1") as database_url:
        where = Addresses(database_url, str(servers.broker_url))
        _upgrade(old, database_url, tmp_path)
        before = _revision(database_url)
        with a_stage(tmp_path, where, count=45) as stage:
            stage.enrol(15, old_code)
            stage.start("beat1", "ticks1", "charges1", env=old)
            stage.until_charged(3)

            # The migration runs while the old code charges; and it goes on, also when a host that
            # the deploy has not reached starts it anew.
            _upgrade({"PYTHONPATH": str(ROOT)}, database_url, tmp_path)
            assert before < _revision(database_url) == NEWEST.name[1:5]
            stage.start("charges2", env=old)
            stage.stop("charges1")
            stage.enrol(10, old_code)
            stage.until_paid()

            stage.start("beat2", "ticks2", "charges3")
            stage.until_worked("ticks2")
            stage.enrol(10)
            stage.until_paid()
            stage.stop("beat1", "ticks1", "charges2")
            stage.enrol(10)
            stage.until_paid()

            stage.all_is_well()
            assert {name: code for name, code, _ in stage.world.programs.exits} == dict.fromkeys(
                ("beat1", "ticks1", "charges1", "charges2"), 0
            )
        # Some of the cast are charged on the last day of their windows, as operators are told.
        told = ask(database_url, "SELECT DISTINCT kind FROM events WHERE alarm")
        assert set(told) <= {("cycle.closing_soon",)}


def _upgrade(code: dict[str, str], database_url: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "billing.cli", "db", "upgrade", "--json"],
        env={
            **code,
            "MAEWOL_DATABASE_URL": database_url,
            "MAEWOL_BROKER_URL": "redis://127.0.0.1:1/0",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _revision(database_url: str) -> str:
    return str(ask(database_url, "SELECT version_num FROM alembic_version")[0][0])
