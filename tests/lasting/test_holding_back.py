"""A charging worker that does not reach the book, before a queue on which others could work."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from celery import Celery

from billing.broker import CHARGES_QUEUE, CONCURRENCY, CeleryWorkQueue, celery_settings
from billing.embedded import running
from billing.redis_address import RedisAddress
from tests.doors import Door, through, to_database
from tests.lasting.stage import Addresses, a_stage, until

MESSAGES = 300
# One that nobody has.
NOBODYS = 10**9
# What may have failed before the first failure was known, what waits, and what was fetched ahead.
TAKEN = 3 * CONCURRENCY


@pytest.mark.timeout(120)
def test_a_worker_that_does_not_reach_the_book_leaves_the_work_to_others(
    tmp_path: Path, database_url: str
) -> None:
    tmp_path.chmod(0o755)
    with (
        running(tmp_path / "valkey", database=False, durable=False) as own,
        Door(to_database(database_url)).serving() as door,
        a_stage(tmp_path, Addresses(database_url, str(own.broker_url)), count=1) as stage,
    ):
        app = Celery("others")
        app.conf.update(celery_settings(RedisAddress(str(own.broker_url))))
        queue = CeleryWorkQueue(app, time.monotonic)
        names = ("charges1", "charges2", "charges3")
        logs = [stage.world.programs.log(name) for name in names]

        def until_all_say(words: str) -> None:
            until(lambda: all(words in log.read_text() for log in logs), stage.told)

        door.is_open = False
        behind_it = {"MAEWOL_DATABASE_URL": through(database_url, door)}
        stage.start(*names, env=behind_it)
        until_all_say("ready.")
        for _ in range(MESSAGES):
            queue.charge([NOBODYS])
        until_all_say("no more work")
        time.sleep(5)
        assert queue.waiting(CHARGES_QUEUE) >= MESSAGES - len(names) * TAKEN

        # Who is to leave is not kept by it, by a signal or without one.
        exits = stage.world.programs.exits
        stage.stop("charges2")
        assert [(name, code) for name, code, _ in exits] == [("charges2", 0)]
        app.control.broadcast("shutdown", destination=[f"charges3@{socket.gethostname()}"])
        until(lambda: len(exits) == 2, stage.told)
        assert exits[1][:2] == ("charges3", 0)

        door.is_open = True
        stage.until_worked("charges1")
        until(lambda: queue.waiting(CHARGES_QUEUE) == 0, stage.told)
