"""Alerts, dashboard and runbook speak of metrics that exist, and of each other."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from billing import broker
from tests import promtool
from tests.integration.web.conftest import Edge

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
GROUPS: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/maewol.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_every_metric_that_is_asked_for_is_there(edge: Edge) -> None:
    with edge.browse() as client:
        shown = client.get("/metrics").text
    there = set(re.findall(r"^# TYPE (\w+)", shown, re.MULTILINE)) | RECORDED
    # Left out until they were measured once, or counted once.
    there |= {
        "maewol_clock_skew_seconds",
        "maewol_approved_seconds_ago",
        "maewol_reconciled_seconds_ago",
    }
    asked = set()
    for query in [*QUERIES, *(rule["expr"] for rule in RULES)]:
        asked |= set(re.findall(r"maewol(?::[a-z0-9_]+)+|maewol_[a-z_]+", query))
    known = {re.sub("_(bucket|count)$", "", name) for name in asked}
    assert sorted(known - there) == []


def test_every_tick_that_an_alert_names_is_one() -> None:
    names = re.search(r"maewol\.tick\.\(([a-z|]+)\)", ALERTS.read_text(encoding="utf-8"))
    assert names is not None
    constants = {value for name, value in vars(broker).items() if name.startswith("TICK_")}
    assert {f"maewol.tick.{name}" for name in names[1].split("|")} <= constants


@pytest.mark.parametrize("language", ["", ".ko"])
def test_every_alert_has_its_entry_in_the_runbook(language: str) -> None:
    text = (ROOT / f"docs/runbook{language}.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert entries == [rule["alert"] for rule in RULES if "alert" in rule]


def test_every_alert_is_seen_to_go_off_and_not_to() -> None:
    """What `promtool test rules` is asked: one case of each at least, with the alert as the rules
    have it, and one in which it is quiet."""
    asked = yaml.safe_load((ALERTS.parent / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in asked for case in test["alert_rule_test"]]
    alerts = [rule["alert"] for rule in RULES if "alert" in rule]
    assert [name for name in alerts if not _cases(cases, name, goes_off=True)] == []
    assert [name for name in alerts if not _cases(cases, name, goes_off=False)] == []
    assert {case["alertname"] for case in cases} == set(alerts)


def _cases(cases: list[dict[str, Any]], name: str, *, goes_off: bool) -> list[dict[str, Any]]:
    mine = [case for case in cases if case["alertname"] == name]
    return [case for case in mine if bool(case["exp_alerts"]) is goes_off]


@pytest.mark.parametrize(
    "check", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool_agrees(check: tuple[str, ...]) -> None:
    required = os.environ.get("PROMTOOL") == "required"
    program = promtool.required() if required else promtool.found()
    if program is None:
        # Shown with its reason at the end of every run (`-ra`). Nothing else knows the language.
        pytest.skip(
            f"promtool, which comes with Prometheus, is not here: no `{' '.join(check)}`."
            " PROMTOOL=required fetches it"
        )
    done = subprocess.run(
        [program, *check], cwd=ALERTS.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
