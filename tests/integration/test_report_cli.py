"""`maewol report` as it is typed: documents, files, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from billing.cli.commands import app
from billing.embedded import Servers


@pytest.fixture
def maewol(database_url: str, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The commands in this process, against this test's database."""
    assert servers.broker_url is not None
    monkeypatch.setenv("MAEWOL_DATABASE_URL", database_url)
    monkeypatch.setenv("MAEWOL_BROKER_URL", servers.broker_url)
    return CliRunner()


def report(maewol: CliRunner, *words: str) -> Result:
    return maewol.invoke(app, ["report", *words])


def test_five_files_and_a_document(maewol: CliRunner, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    done = report(maewol, "--month", "2026-02", "--out", str(out), "--lang", "ko", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    kinds = ("days", "declines", "lost", "charges")
    names = [f"maewol-report-2026-02{rest}" for rest in (".html", *(f"-{k}.csv" for k in kinds))]
    assert document["files"] == [str(out / name) for name in names]
    assert (document["month"], document["over"], len(document["days"])) == ("2026-02", True, 28)
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert {path.stat().st_mode & 0o077 for path in out.iterdir()} == {0}
    assert '<html lang="ko">' in (out / names[0]).read_text(encoding="utf-8")
    again = report(maewol, "--month", "2026-02", "--out", str(out))
    assert again.exit_code == 0
    assert '<html lang="en">' in (out / names[0]).read_text(encoding="utf-8")


def test_without_a_folder_nothing_is_written(
    maewol: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = report(maewol)
    assert done.exit_code == 0, done.output
    assert "collected" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_proofs_that_are_none(maewol: CliRunner, tmp_path: Path) -> None:
    """A file in the place of a proof: told of by the exit code, and the report is there."""
    (tmp_path / "maewol-proof-2026-02-10.txt").write_text("nothing", encoding="utf-8")
    out = tmp_path / "out"
    done = report(maewol, "--month", "2026-02", "--proof", str(tmp_path), "--out", str(out))
    assert done.exit_code == 1
    assert "do not agree" in done.stderr
    assert len(list(out.iterdir())) == 5


@pytest.mark.parametrize(
    "words",
    [("--month", "2026-13"), ("--month", "november"), ("--lang", "fr"), ("--proof", "/nowhere")],
)
def test_a_wrong_call(maewol: CliRunner, words: tuple[str, ...]) -> None:
    assert report(maewol, *words).exit_code == 2
