"""A setting that was meant and is not read is named; what is somebody else's is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing.settings import Settings, is_secret, misspelt


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CHARGE_PER_SECOND", "CHARGES_PER_SECOND"),
        ("CHARGE_BACTH", "CHARGE_BATCH"),
        ("LEASE_SECOND", "LEASE_SECONDS"),
        ("PORTONE_IMPSECRET_FILE", "PORTONE_IMP_SECRET_FILE"),
        # Only a secret is read from a file.
        ("CHARGE_CRON_FILE", "CHARGE_CRON"),
    ],
)
def test_a_slip_is_named_with_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(f"MAEWOL_{name}", "1")
    assert misspelt() == {f"MAEWOL_{name}": f"MAEWOL_{meant}"}


def test_a_slip_in_the_file_is_found_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    (tmp_path / ".env").write_text("MAEWOL_INCLUDE_SANDBOXES=true\nMAEWOL_CHARGE_BATCH=7\n")
    assert misspelt() == {"MAEWOL_INCLUDE_SANDBOXES": "MAEWOL_INCLUDE_SANDBOX"}


def test_every_setting_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"MAEWOL_{name.upper()}", "1")
        if is_secret(name.upper()):
            monkeypatch.setenv(f"MAEWOL_{name.upper()}_FILE", "1")
    assert misspelt() == {}


@pytest.mark.parametrize(
    "name",
    # What Kubernetes gives each container for a service `maewol-web`; and other people's.
    ["MAEWOL_WEB_PORT", "MAEWOL_WEB_SERVICE_HOST", "MAEWOL_WEB_PORT_8000_TCP", "CHARGE_PER_SECOND"],
)
def test_what_is_no_slip_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert misspelt() == {}
