"""The network between some of the workers and their servers is cut, and healed a minute later."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from billing.embedded import running
from tests.lasting.partition import a_network
from tests.lasting.stage import Addresses, a_stage, until

# Longer than a lease and what follows it, and than a minute, after which what was handed out and
# lost is handed out again.
CUT_SECONDS = 80.0
# More than are charged meanwhile, at three a second.
COUNT = 400


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["all", "database", "broker", "gateway"])
def test_workers_beyond_a_network_that_is_cut(tmp_path: Path, database_url: str, what: str) -> None:
    tmp_path.chmod(0o755)
    with (
        a_network() as network,
        running(tmp_path / "valkey", database=False, durable=False) as own,
        a_stage(
            tmp_path, Addresses(database_url, str(own.broker_url)), count=COUNT, rate=3
        ) as stage,
        network.doors(stage, database_url, str(own.broker_url)) as beyond,
    ):
        everybody = ("charges1", "charges2", "charges3")
        stage.enrol(COUNT)
        stage.start("beat1", "ticks1", "charges1")
        for name in everybody[1:]:
            network.start(stage, name, beyond)
        stage.until_worked(*everybody)
        stage.until_charged(20)

        network.cut(what)
        before = sum(stage.paid_at_gateway().values())
        time.sleep(CUT_SECONDS)
        during = sum(stage.paid_at_gateway().values()) - before
        # One of three goes on, or all of them, until each has met what is cut.
        assert during > CUT_SECONDS * 3 / 3, stage.told()
        network.heal(what)

        done = {name: len(stage.world.programs.work[name]) for name in everybody}
        until(
            lambda: all(len(stage.world.programs.work[name]) > done[name] for name in everybody),
            stage.told,
        )
        # What is left is charged at three a second; each wait is of 50 s.
        stage.until_charged(COUNT - 100)
        stage.until_charged(COUNT)
        stage.until_paid()
        stage.all_is_well()
        assert not stage.world.programs.exits, "nobody had to be started again"
