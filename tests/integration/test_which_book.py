"""Which book a command works on, and that none is made by a command that acts on one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from billing.embedded import is_made
from tests.builders import plain
from tests.called import Call, document

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def nowhere(call: Call, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A shell without the daemons' settings, and a data folder that nobody has used."""
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    folder.chmod(0o711)  # as root the servers run as another user, who must pass
    for name in ("DATABASE_URL", "BROKER_URL"):
        monkeypatch.delenv(f"MAEWOL_{name}")
    monkeypatch.setenv("MAEWOL_DATA_DIR", str(folder / "data"))
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "words",
    [
        ["hold"],
        ["release"],
        ["release", "somebody"],
        ["why", "somebody"],
        ["subscription", "pause", "somebody"],
        ["subscription", "cancel", "somebody"],
        ["refund", "mw-1"],
        ["reconcile", "--from", "2026-11-01", "--to", "2026-11-02"],
        ["prune"],
        ["notices"],
    ],
    ids=" ".join,
)
def test_who_acts_on_a_book_makes_none(call: Call, nowhere: Path, words: list[str]) -> None:
    done = call(*words, "--json")
    assert done.code == 1
    assert "MAEWOL_DATABASE_URL is not set" in done.document()["error"]
    assert not nowhere.exists()


def test_a_book_is_made_by_what_is_put_into_one_and_no_broker_is_started(
    call: Call, nowhere: Path
) -> None:
    assert document(call, "status")["book"] == f"the private database in {nowhere}"
    assert is_made(nowhere)
    assert not (nowhere / "valkey").exists()
    held = call("hold", "--json")
    assert held.document() == {"hold": "held by hand", "book": f"the private database in {nowhere}"}


def test_a_set_database_is_named_without_its_password(
    call: Call, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(database_url)
    secret = url.set(password="let-nobody-see").render_as_string(hide_password=False)
    monkeypatch.setenv("MAEWOL_DATABASE_URL", secret)
    monkeypatch.delenv("MAEWOL_BROKER_URL")
    done = call("hold", "--json")
    assert done.document()["book"].startswith(f"database {url.database} on ")
    assert "let-nobody-see" not in done.out + done.err


def test_a_hold_in_a_book_that_nobody_works_on_says_so(call: Call, database_url: str) -> None:
    assert "goes on charging" in call("hold").err
    with psycopg.connect(plain(database_url)) as connection:
        connection.execute("INSERT INTO heartbeats VALUES ('maewol.tick.dispatch', now())")
    assert "goes on charging" not in call("hold").err
    with psycopg.connect(plain(database_url)) as connection:
        connection.execute("UPDATE heartbeats SET at = at - interval '1 hour'")
    assert "goes on charging" in call("hold").err
