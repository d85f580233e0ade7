"""No command takes an empty text for something else than an empty text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from billing.cli import main
from billing.cli.commands import app
from billing.domain.errors import InvalidInput

# Where nothing and an empty text are the same.
MAY_BE_EMPTY = {
    "hold --why",
    "refund --reason",
    "sandbox --notice-url",
    "simulate --only",
    "simulate --without",
    *(
        f"subscription add --{name}"
        for name in (
            *("customer-uid", "amount", "order-name", "initial-paid-at", "last-paid-on"),
            *("initial-merchant-uid", "initial-imp-uid"),
            *("buyer-name", "buyer-email", "buyer-tel", "reference"),
        )
    ),
}


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for word, one in getattr(command, "commands", {}).items():
        yield from commands(one, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name, command


EVERY = [
    pytest.param(command, one, id=f"{name} {one.opts[0]}")
    for name, command in commands(typer.main.get_command(app))
    for one in command.params
    if not getattr(one, "is_flag", False)
]


@pytest.mark.parametrize(("command", "one"), EVERY)
def test_an_empty_value_is_refused_by_its_name(
    command: Any, one: Any, request: pytest.FixtureRequest
) -> None:
    option = one.param_type_name == "option"
    words = [f"{one.opts[0]}="] if option else [""]
    if request.node.callspec.id in MAY_BE_EMPTY:
        taken = command.make_context("maewol", words, resilient_parsing=True)
        assert taken.params[one.name] == ""
        return
    with pytest.raises(InvalidInput) as refused:
        command.make_context("maewol", words)
    assert (refused.value.field, refused.value.value) == (one.opts[0], "")
    assert refused.value.remedy


def test_what_may_be_empty_is_there() -> None:
    assert {case.id for case in EVERY} >= MAY_BE_EMPTY


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["refund", ""], "merchant_uid"),
        (["refund", "mw-1", "--imp-uid", ""], "--imp-uid"),
        (["release", ""], "customer_uid"),
        (["simulate", "--set", "MAX_ATTEMPTS=3", "--set", ""], "--set"),
    ],
)
def test_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    field: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["maewol", *words, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capfd.readouterr()
    assert ended.value.code == 2
    assert told.err.startswith(f"maewol: {field}='': is empty. Give it a value")
    assert told.err.count("\n") == 1
    assert json.loads(told.out)["field"] == field


def test_help_is_given_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["maewol", "refund", "", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "merchant_uid" in capfd.readouterr().out
