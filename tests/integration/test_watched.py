"""A whole installation is watched: what Flower, metrics, logs, traces and error reports tell of one
morning's charges, and that none of them tells who the customers are."""

from __future__ import annotations

import json
import re
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from billing.broker import CHARGE_TASK, CHARGES_QUEUE
from billing.cli import up
from billing.embedded import Servers
from tests.builders import a_foreign_gateway, query
from tests.conftest import a_database
from tests.receivers import Receivers, receivers
from tests.watched import PRIVATE, Installation, watched

CUSTOMERS = 12


@pytest.fixture(scope="module")
def received() -> Iterator[Receivers]:
    with receivers() as running:
        yield running


@pytest.fixture(scope="module")
def house(servers: Servers, _template: str, received: Receivers) -> Iterator[Installation]:
    """Twelve customers were charged; then a message came that no worker of ours would send."""
    # A database of the broker's own: what other tests left in its queues is not ours.
    broker_url = f"{(servers.broker_url or '').rpartition('/')[0]}/9"
    with (
        tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as folder,
        a_database(servers, _template) as database_url,
        a_foreign_gateway() as gateway,
        watched(Path(folder), database_url, broker_url, gateway.url, received) as made,
    ):
        made.enrol(*range(CUSTOMERS))
        made.wait(lambda: made.paid() == CUSTOMERS, "not all were charged")
        with Celery("stranger", broker=broker_url) as stranger:
            stranger.send_task(CHARGE_TASK, args=["garbage"], queue=CHARGES_QUEUE)
        made.wait(lambda: received.envelopes, "nothing was reported")
        yield made


def test_flower_asks_for_the_password(house: Installation) -> None:
    for path in ("/", "/tasks", "/broker", "/api/tasks", "/api/workers"):
        assert house.flower(path, user=None).status == 401
        assert house.flower(path, user="maewol:another-password").status == 401
        assert house.flower(path).status == 200
    # Open, for a probe and for Prometheus: names of workers and tasks, and figures.
    assert house.flower("/healthcheck", user=None).status == 200
    assert house.flower("/metrics", user=None).status == 200


def test_flower_answers_maewol_up_unless_it_hangs(house: Installation) -> None:
    assert up.is_well(house.flower_port)
    flower = house.processes["flower"]
    flower.send_signal(signal.SIGSTOP)
    try:
        assert not up.is_well(house.flower_port)
    finally:
        flower.send_signal(signal.SIGCONT)
    assert not up.is_well(up.free_port())


def test_flower_looks_and_does_not_touch(house: Installation) -> None:
    worker = next(iter(house.flower("/api/workers").json()))
    for path in (f"/api/worker/shutdown/{worker}", f"/api/task/send-task/{CHARGE_TASK}"):
        assert house.flower(path, method="POST").status == 403
    assert house.processes["charges"].poll() is None


def test_flower_sees_every_worker_and_counts_every_task(house: Installation) -> None:
    workers = house.flower("/api/workers?refresh=1").json()
    host = socket.gethostname()
    assert set(workers) == {f"{name}@{host}" for name in ("ticks", "charges")}
    tasks = house.tasks().values()
    assert {task["name"] for task in tasks} >= {CHARGE_TASK, "maewol.tick.open"}
    assert all(task["name"].startswith("maewol.") for task in tasks)
    done = [one for one in tasks if one["name"] == CHARGE_TASK and one["state"] == "SUCCESS"]
    counts = [json.loads(task["result"].replace("'", '"')) for task in done]
    assert sum(one.get("approved", 0) for one in counts) == CUSTOMERS
    ids = [one for task in done for one in _ids(task["args"])]
    assert sorted(set(ids)) == sorted(
        one for (one,) in query(house.book, "SELECT id FROM attempts ORDER BY id")
    )


def _ids(arguments: str) -> list[int]:
    """Ids and nothing else: a list of a list of numbers."""
    (found,) = json.loads(arguments)
    assert all(type(one) is int for one in found)
    return list(found)


def test_flower_has_figures_for_prometheus(house: Installation) -> None:
    seen = {
        (sample.labels["worker"], sample.labels["type"])
        for family in text_string_to_metric_families(house.flower("/metrics", user=None).text)
        for sample in family.samples
        if sample.name == "flower_events_total" and sample.labels["task"] == CHARGE_TASK
    }
    assert "task-succeeded" in {kind for _, kind in seen}
    assert {worker.partition("@")[0] for worker, _ in seen} == {"charges"}


def test_nobody_is_named_in_flower(house: Installation) -> None:
    pages = list(house.everything_flower_shows())
    assert len(pages) > 20
    assert [word for word in PRIVATE for page in pages if word in page] == []
    assert [word for word in PRIVATE if json.dumps(word)[1:-1] in "".join(pages)] == []


def test_metrics_count_the_calls_of_all_workers(house: Installation) -> None:
    house.wait(lambda: _calls(house).get(("charge", "2xx")) == CUSTOMERS, "the calls are missing")
    calls = _calls(house)
    # Nothing was paid before: that is what a look-up before a charge finds.
    assert calls["lookup", "404"] >= CUSTOMERS
    assert calls["token", "2xx"] >= 1
    figures = _samples(house)
    assert figures["maewol_broker_up", ()] == 1
    assert 0 <= figures["maewol_token_age_seconds", ()] < 1800
    assert ("maewol_queue_messages", ("charges",)) in figures
    assert not [word for word in PRIVATE if word in house.metrics()]


def _samples(house: Installation) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(house.metrics())
        for sample in family.samples
    }


def _calls(house: Installation) -> dict[tuple[str, ...], float]:
    name = "maewol_gateway_call_seconds_count"
    return {labels: value for (found, labels), value in _samples(house).items() if found == name}


def test_logs_join_from_the_tick_to_the_record(house: Installation) -> None:
    house.wait(lambda: len(_trails(house, "succeeded")) >= 3, "the lines are missing")
    (one,) = query(
        house.book,
        "SELECT attempt_id, data ->> 'correlation' FROM events"
        " WHERE kind = 'attempt.sending' ORDER BY id LIMIT 1",
    )
    attempt, correlation = one
    trail = [line for line in house.lines() if line.get("correlation") == correlation]
    assert {line["message"] for line in trail if line["event"] == "sent"} >= {
        "maewol.tick.dispatch",
        CHARGE_TASK,
    }
    tick = next(line for line in trail if "maewol.tick.dispatch succeeded" in line["event"])
    assert tick["counts"]["dispatched"] >= 1
    claimed = next(line for line in trail if attempt in line.get("attempts", ()))
    of_the_task = [line for line in trail if line.get("task") == claimed["task"]]
    assert tick["task"] != claimed["task"]
    recorded = [line for line in of_the_task if line["event"] == "recorded"]
    done = next(line for line in of_the_task if f"{CHARGE_TASK} succeeded" in line["event"])
    approved = sum(line["counts"].get("approved", 0) for line in recorded)
    assert approved == done["counts"]["approved"] == len(claimed["attempts"])
    assert done["seconds"] >= 0


def _trails(house: Installation, word: str) -> set[str]:
    return {line["correlation"] for line in house.lines() if word in line["event"]}


def test_every_line_of_a_task_is_on_a_trail(house: Installation) -> None:
    lines = [line for line in house.lines() if "task" in line]
    assert len(lines) > 20
    assert [line for line in lines if not re.fullmatch("[0-9a-f]{16}", line["correlation"])] == []
    failed = next(line for line in lines if line["level"] == "error")
    assert failed["logger"] == "celery.app.trace"


def test_nobody_is_named_in_the_logs(house: Installation) -> None:
    assert [word for word in PRIVATE if word in house.logged()] == []
    assert [word for word in PRIVATE if json.dumps(word)[1:-1] in house.logged()] == []


def test_a_trace_goes_from_the_tick_to_the_record(house: Installation, received: Receivers) -> None:
    wanted = {CHARGE_TASK, "claim", "gateway", "record"}

    def whole() -> list[str]:
        found = received.spans()
        ticks = [span for span in found if span.name == "maewol.tick.dispatch"]
        names = {span.trace: set[str]() for span in ticks}
        for span in found:
            names.get(span.trace, set()).add(span.name)
        return [trace for trace, seen in names.items() if seen >= wanted]

    house.wait(whole, "no trace is whole")
    spans = {span.id: span for span in received.spans() if span.trace == whole()[0]}
    charge = next(span for span in spans.values() if span.attributes.get("call") == "charge")
    task = spans[charge.parent]
    assert (task.name, spans[task.parent].name) == (CHARGE_TASK, "maewol.tick.dispatch")
    assert (task.service, spans[task.parent].service) == ("maewol-worker", "maewol-scheduler")
    assert charge.attributes == {"call": "charge", "http.response.status_code": 200}
    assert set(task.attributes) == {"correlation", "task"}
    _tell_nothing(received.traces)


def test_errors_are_reported_without_what_they_were_about(
    house: Installation, received: Receivers
) -> None:
    report = received.reports()[0]
    (raised,) = report["exception"]["values"]
    assert raised["type"] == "InvalidInput"
    frames = raised["stacktrace"]["frames"]
    assert frames[-1]["function"] == "checked_ids"
    assert not [frame for frame in frames if "vars" in frame]
    assert "value" not in raised
    assert set(report) <= {
        *("event_id", "timestamp", "platform", "level", "logger", "release", "environment"),
        *("sdk", "tags", "logentry", "exception"),
    }
    assert re.fullmatch("[0-9a-f]{16}", report["tags"]["correlation"])
    assert [line for line in house.lines() if line.get("task") == report["tags"]["task"]]
    _tell_nothing(received.envelopes)


def _tell_nothing(bodies: list[bytes]) -> None:
    whole: Any = b"\n".join(bodies)
    words = [*PRIVATE, *(json.dumps(word)[1:-1] for word in PRIVATE), "garbage"]
    assert [word for word in words if word.encode() in whole] == []


# -- and last, what is done to Flower ---------------------------------------------------------


def test_flower_remembers_after_a_restart_and_is_not_needed(house: Installation) -> None:
    house.wait(
        lambda: [one for one in house.tasks().values() if one["state"] == "FAILURE"],
        "the failed task is missing",
    )
    before = set(house.tasks())
    assert house.stop("flower") == 0
    house.start_flower()
    assert set(house.tasks()) >= before

    house.processes["flower"].kill()
    house.processes.pop("flower").wait()
    house.enrol(CUSTOMERS, CUSTOMERS + 1)
    house.wait(lambda: house.paid() == CUSTOMERS + 2, "charges wait for Flower")


def test_whatever_a_process_prints_is_one_line_of_json_a_record(house: Installation) -> None:
    """From its first line to its last; Flower also when it is to tell all it can."""
    if "flower" in house.processes:
        house.stop("flower")
    house.start_flower(MAEWOL_LOG_LEVEL="DEBUG", FLOWER_LOGGING="info", FLOWER_DEBUG="true")
    assert house.flower("/no/such/page").status == 404
    assert house.flower("/api/tasks", user="maewol:another-password").status == 401
    names = list(house.processes)
    assert set(names) == {"ticks", "charges", "web", "beat", "flower"}
    for name in names:
        house.stop(name)
    logs = (house.log(name).read_text(encoding="utf-8") for name in names)
    plain = [line for log in logs for line in log.splitlines() if not _is_a_record(line)]
    assert plain == []
    said = {(line["logger"], line["event"]) for line in house.lines()}
    assert ("celery.apps.worker", "worker: Warm shutdown (MainProcess)") in said
    assert ("flower.command", f"Visit me at http://127.0.0.1:{house.flower_port}") in said
    assert [event for name, event in said if name == "tornado.access" and "/no/such/page" in event]
    # Keys of Flower's own are as good as its password.
    assert not [event for _, event in said if "cookie_secret" in event]
    assert [word for word in PRIVATE if word in house.logged()] == []


def _is_a_record(line: str) -> bool:
    try:
        return {"event", "level", "logger", "timestamp"} <= json.loads(line).keys()
    except (ValueError, AttributeError):
        return False
