"""`maewol …` as people type it, in the test's own process: one of its own costs seconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from rich.console import Console

from billing import logs
from billing.cli import main, output
from billing.embedded import Servers


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def document(self) -> Any:
        """The one JSON document on stdout."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)


Call = Callable[..., Done]


def caller(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    database_url: str,
    servers: Servers,
) -> Call:
    """`maewol …` against this database and broker; keywords are settings of that call."""
    assert servers.broker_url is not None
    monkeypatch.setenv("MAEWOL_DATABASE_URL", database_url)
    monkeypatch.setenv("MAEWOL_BROKER_URL", servers.broker_url)
    # Made when their module is first imported, at the width of then.
    monkeypatch.setattr(output, "out", Console(width=150))
    monkeypatch.setattr(output.err, "width", 200)
    monkeypatch.setattr(logs, "configure", lambda *_: None)

    def run(*words: str, **settings: str) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["maewol", *words])
            for name, value in settings.items():
                patch.setenv(f"MAEWOL_{name}", value)
            with pytest.raises(SystemExit) as ended:
                main()
        told = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, told.out, told.err)

    return run


def document(call: Call, *words: str, code: int = 0) -> Any:
    """What a command prints as JSON, after a look at its exit code."""
    done = call(*words, "--json")
    assert done.code == code, done.err
    return done.document()
