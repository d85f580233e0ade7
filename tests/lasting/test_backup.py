"""The drill of docs/backup.md, with its own commands: dump, lose the machine, restore, catch up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from billing.domain.calendar import SEOUL
from billing.embedded import Servers
from billing.store import schema
from billing.store.session import create_book_engine
from tests.lasting.clusters import Cluster, a_folder, a_primary
from tests.lasting.stage import Addresses, a_stage, ask, paid_in_book, until

pytestmark = pytest.mark.timeout(600)

DOCS = Path(__file__).parents[2] / "docs" / "backup.md"
DAEMONS = ("beat1", "ticks1", "charges1")


def commands(part: str) -> list[str]:
    """The command lines of one part of the document."""
    found = re.search(
        rf"<!-- drill: {part} -->\s*```console\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S
    )
    assert found is not None, part
    lines = [line.strip().removeprefix("$ ") for line in found[1].splitlines()]
    return [line for line in lines if line]


def run(part: str, folder: Path, env: dict[str, str]) -> list[int]:
    """Run one part as an operator does, with the dates of today; the exit codes."""
    today = datetime.now(SEOUL).date()
    codes = []
    for line in commands(part):
        spans = line.replace("2026-11-01", str(today.replace(day=1)))
        done = subprocess.run(
            ["/bin/sh", "-c", spans.replace("2026-11-30", str(today))],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        print(line, done.returncode, done.stdout[-800:], done.stderr[-800:])
        codes.append(done.returncode)
    return codes


def _environment(base: dict[str, str], cluster: Cluster) -> dict[str, str]:
    programs = f"{Path(sys.executable).parent}:{cluster.program('pg_dump').parent}"
    plain = cluster.url.replace("postgresql+psycopg", "postgresql")
    return {
        **base,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "MAEWOL_DATABASE_URL": cluster.url,
        "BOOK": plain,
        "NEW": plain,
    }


def test_a_book_that_was_restored_holds_catches_up_and_charges_nobody_twice(
    servers: Servers,
) -> None:
    with a_folder() as folder, a_primary(folder / "a") as lost, a_primary(folder / "b") as new:
        engine = create_book_engine(lost.url)
        schema.upgrade(engine)
        engine.dispose()
        where = Addresses(lost.url, str(servers.broker_url))
        with a_stage(folder, where, count=40, rate=3) as stage:
            stage.enrol(40)
            stage.start(*DAEMONS)
            stage.until_charged(6)
            assert run("dump", folder, _environment(stage.world.env, lost)) == [0, 0]
            in_the_dump = len(stage.paid_at_gateway())
            stage.until_charged(in_the_dump + 10)
            lost.kill()
            stage.stop(*DAEMONS)
            charged = stage.paid_at_gateway()
            assert len(charged) < len(stage.cast)

            env = _environment(stage.world.env, new)
            assert run("restore", folder, env) == [0, 0]
            assert paid_in_book(new.url) < len(charged)
            stage.world.env.update(env)
            stage.start(*DAEMONS, env={"MAEWOL_DATABASE_URL": new.url})
            until(
                lambda: ask(new.url, "SELECT hold_reason FROM installation") != [(None,)],
                stage.told,
            )
            held = ask(new.url, "SELECT hold_reason FROM installation")
            assert held == [("this book was moved or restored to another database",)]
            assert stage.paid_at_gateway() == charged

            assert run("catch up", folder, env) == [1, 0]
            assert paid_in_book(new.url) == len(charged)
            assert stage.paid_at_gateway() == charged
            assert run("release", folder, env) == [0]
            stage.until_paid(new.url)
            stage.all_is_well()
            # And nothing is left to say: both sides are equal.
            assert run("catch up", folder, env) == [0, 0]
