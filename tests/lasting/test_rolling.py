"""A deploy while charging goes on: older code and this code, side by side over one book that is
migrated between them. Two of every process, old and new. Older code is the code before the newest
migration, and the oldest that the newest schema says it serves."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

import migrations
from billing.embedded import Servers
from tests.conftest import a_database
from tests.lasting.stage import Addresses, a_stage, ask

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
VERSIONS = sorted(Path(migrations.__file__).parent.glob("versions/v*.py"))
NEWEST = VERSIONS[-1]
# `works_with`: code of that revision is the code before the next one's file came.
SERVED = re.findall(r'^works_with = "(\d{4})"$', NEWEST.read_text(encoding="utf-8"), re.M)[0]
OLDEST = next(path for path in VERSIONS if path.name[1:5] > SERVED)


def _git(*arguments: str) -> bytes | None:
    """What git says of this tree; None where it has nothing to say."""
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _trees() -> list[Any]:
    """The newest pair is run in every suite, what lies further apart by `make drills`."""
    return [
        pytest.param(
            path,
            id=f"before-{path.name[1:5]}",
            marks=[] if path == NEWEST else [pytest.mark.long],
        )
        for path in sorted({OLDEST, NEWEST})
    ]


@pytest.fixture(params=_trees())
def old_code(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The tree as it was before a migration came into it."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top.decode().strip()) != ROOT:
        pytest.skip("an exported tree: it has no history to take the older code from")
    migration = str(request.param.relative_to(ROOT))
    came = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", migration) or b""
    before = f"{came.decode().strip()}^" if came.strip() else "HEAD"
    packed = _git("archive", before)
    if packed is None:
        pytest.skip(f"a shallow clone: the code before {migration} is not in it")
    into = tmp_path / "old"
    into.mkdir(mode=0o755)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tree:
        tree.extractall(into, filter="data")
    assert not (into / migration).exists()
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


# One change in three releases, as docs/rolling.md has it: what each migration says and does.
EXPAND = """works_with = "{before}"
def upgrade():
    op.execute("ALTER TABLE cycles ADD COLUMN planted text")
"""
MIGRATE = """works_with = "{before}"
def upgrade():
    # The code of this release writes both, and its tick fills what is old.
    op.execute("ALTER TABLE cycles ADD CONSTRAINT ck_planted CHECK (planted IS NULL OR "
               "planted = status) NOT VALID")
"""
CONTRACT = """works_with = "{before}"
contracts = "nobody reads it any more"
def upgrade():
    op.execute("ALTER TABLE cycles DROP COLUMN planted")
"""


@pytest.mark.long
def test_a_change_in_three_releases_serves_whom_it_says_and_refuses_the_rest(
    tmp_path: Path, servers: Servers
) -> None:
    """Four releases of this code, of which each knows one migration more; a worker of each is
    started beside the book of each."""
    tmp_path.chmod(0o755)
    now = NEWEST.name[1:5]
    one, two, three = (f"{int(now) + step:04d}" for step in (1, 2, 3))
    trees = [_tree(tmp_path / "release0")]
    for revision, before, steps, served in (
        (one, now, EXPAND, now),
        (two, one, MIGRATE, now),
        (three, two, CONTRACT, two),
    ):
        trees.append(_tree(tmp_path / f"release{len(trees)}", trees[-1]))
        (trees[-1] / f"migrations/versions/v{revision}_planted.py").write_text(
            f'from alembic import op\nrevision = "{revision}"\ndown_revision = "{before}"\n'
            + steps.format(before=served),
            encoding="utf-8",
        )
    with a_database(servers, "template1") as database_url:
        # What each release says beside the book that each of them has migrated.
        beside = []
        for tree in trees:
            _upgrade({"PYTHONPATH": str(tree)}, database_url, tmp_path)
            beside.append(_said(trees, database_url, tmp_path))
    newer_is_needed, not_migrated = "a newer version", "maewol db upgrade"
    assert beside == [
        ["", not_migrated, not_migrated, not_migrated],
        ["", "", not_migrated, not_migrated],
        ["", "", "", not_migrated],
        [newer_is_needed, newer_is_needed, "", ""],
    ]


def _tree(into: Path, of: Path = ROOT) -> Path:
    """A release: the packages that are installed, at another place."""
    for package in ("billing", "scheduler", "worker", "migrations"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(of / package, into / package, ignore=ignored)
    return into


def _said(trees: list[Path], database_url: str, folder: Path) -> list[str]:
    """What a worker of each release says when it starts: nothing, or which remedy it names."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", "import worker"],
            env=_environment({"PYTHONPATH": str(tree)}, database_url),
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        for tree in trees
    ]
    return [_remedy(one.communicate(timeout=120)[1], one.returncode) for one in started]


def _remedy(said: str, code: int) -> str:
    named = [one for one in ("a newer version", "maewol db upgrade") if one in said]
    assert code == (2 if named else 0), said
    return named[0] if named else ""


def _upgrade(code: dict[str, str], database_url: str, folder: Path) -> None:
    done = _maewol(code, database_url, folder, "db", "upgrade")
    assert done.returncode == 0, done.stderr


def _environment(code: dict[str, str], database_url: str) -> dict[str, str]:
    return {
        **code,
        "MAEWOL_DATABASE_URL": database_url,
        "MAEWOL_BROKER_URL": "redis://127.0.0.1:1/0",
    }


def _maewol(
    code: dict[str, str], database_url: str, folder: Path, *words: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "billing.cli", *words, "--json"],
        env=_environment(code, database_url),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def _revision(database_url: str) -> str:
    return str(ask(database_url, "SELECT version_num FROM alembic_version")[0][0])
