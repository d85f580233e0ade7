"""NOTICE_URL and NOTICE_SECRET: what is taken, and what a person is told otherwise."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from billing.domain.errors import InvalidSetting
from billing.settings import Settings, effective

GOOD = f"whsec_{base64.b64encode(b'k' * 32).decode()}"
NEXT = f"whsec_{base64.b64encode(b'n' * 24).decode()}"


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/hooks?from=phone",
        "https://shop.example:8443/hooks",
        "http://127.0.0.1:8080/hooks",
        "http://localhost/hooks",
        "http://[::1]:9/",
    ],
)
def test_https_or_this_machine(url: str) -> None:
    assert Settings.load(notice_url=url, notice_secret=GOOD).notice_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/hooks",
        "shop.example/hooks",
        "ftp://shop.example/",
        "https://",
        "https://shop.example:port/",
        "https://shop.example:0/",
        "https://shop.example/a b",
        "https://shop.example/\r\nx: y",
        "https://[::1/",
        "http://127.0.0.1.shop.example/",
    ],
)
def test_other_addresses_are_refused_with_a_remedy(url: str) -> None:
    with pytest.raises(InvalidSetting, match="NOTICE_URL") as caught:
        Settings.load(notice_url=url, notice_secret=GOOD)
    assert "https://" in caught.value.remedy


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.load(notice_url="https://me:hush@shop.example/", notice_secret=GOOD)
    assert "hush" not in str(caught.value)


def test_an_address_without_a_secret_is_wrong() -> None:
    with pytest.raises(InvalidSetting, match="NOTICE_SECRET") as caught:
        Settings.load(notice_url="https://shop.example/")
    assert "openssl rand" in caught.value.remedy
    assert Settings.load(notice_secret=GOOD).notice_url is None


def test_two_secrets_while_they_are_changed() -> None:
    assert Settings.load(notice_secret=GOOD).notice_keys == [b"k" * 32]
    assert Settings.load(notice_secret=f"{NEXT} {GOOD}").notice_keys == [b"n" * 24, b"k" * 32]
    assert Settings.load().notice_keys == []


@pytest.mark.parametrize(
    "secret",
    ["a-secret-of-24-bytes-xxx", base64.b64encode(b"k" * 32).decode(), "비밀키여덟글자xyz"],
)
def test_any_other_text_is_the_key_itself(secret: str) -> None:
    assert Settings.load(notice_secret=secret).notice_keys == [secret.encode()]
    both = Settings.load(notice_secret=f"{GOOD} {secret}").notice_keys
    assert both == [b"k" * 32, secret.encode()]


@pytest.mark.parametrize(
    "secret",
    [
        "a-secret-of-23-bytes-xx",
        "a password of twenty-four bytes or more",
        "whsec_====",
        "whsec_not+base64!",
        f"whsec_{base64.b64encode(b'k' * 23).decode()}",
        f"whsec_{base64.b64encode(b'k' * 65).decode()}",
        f"{GOOD} {GOOD} {GOOD}",
        f"{GOOD} other",
        f"{GOOD},{NEXT}",
    ],
)
def test_other_secrets_are_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidSetting, match="NOTICE_SECRET") as caught:
        Settings.load(notice_secret=secret)
    assert str(caught.value).startswith("NOTICE_SECRET='********'")
    assert secret not in str(caught.value).replace(caught.value.remedy, "")
    assert "openssl rand" in caught.value.remedy


def test_a_secret_from_a_file_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "secret"
    kept.write_text(f"{GOOD}\n")
    monkeypatch.setenv("MAEWOL_NOTICE_SECRET_FILE", str(kept))
    settings = Settings.load()
    assert settings.notice_keys == [b"k" * 32]
    assert dict(effective(settings))["NOTICE_SECRET"] == "********"


def test_the_file_of_a_secret_may_be_named_in_the_settings_file_and_the_environment_outdoes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, byte in (("named-in-file", b"f"), ("named-in-environment", b"e")):
        secret = "whsec_" + base64.b64encode(byte * 32).decode()
        (tmp_path / name).write_text(f"{secret}\n")
    (tmp_path / ".env").write_text(f"MAEWOL_NOTICE_SECRET_FILE={tmp_path / 'named-in-file'}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    assert Settings.load().notice_keys == [b"f" * 32]
    monkeypatch.setenv("MAEWOL_NOTICE_SECRET_FILE", str(tmp_path / "named-in-environment"))
    assert Settings.load().notice_keys == [b"e" * 32]
