"""Where the client will speak at all."""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.errors import InvalidInput, InvalidSetting
from billing.portone.exchange import checked_base_url, segment
from billing.portone.transport import hard_closing_sockets, public_tls, verified_tls


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("https://api.iamport.kr", "https://api.iamport.kr"),
        ("https://api.iamport.kr/", "https://api.iamport.kr"),
        ("https://proxy.example/portone/", "https://proxy.example/portone"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://localhost:8080", "http://localhost:8080"),
    ],
)
def test_https_or_loopback(url: str, checked: str) -> None:
    assert checked_base_url(url) == checked


@pytest.mark.parametrize(
    "url",
    ["http://api.iamport.kr", "http://localhost.example", "http://127.0.0.1.example",
     "http://0.0.0.0", "ftp://api.iamport.kr", "api.iamport.kr", "", "https://",
     "https://key:secret@api.iamport.kr", "https://api.iamport.kr/?x=1", "https://api.iamport.kr#x",
     "https://api.iamport.kr:99999", "https://[::1"],
)  # fmt: skip
def test_everything_else_stops_the_start(url: str) -> None:
    with pytest.raises(InvalidSetting) as raised:
        checked_base_url(url)
    assert "secret" not in str(raised.value)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100))
def test_a_segment_never_leaves_its_place(text: str) -> None:
    if text in (".", ".."):
        with pytest.raises(InvalidInput):
            segment("customer_uid", text)
        return
    quoted = segment("customer_uid", text)
    assert quoted.isascii()
    assert not set(quoted) & set("/?#&=\\ \r\n")


@pytest.mark.parametrize(
    ("text", "quoted"), [("a/b?", "a%2Fb%3F"), ("...", "..."), ("x" * 100, "x" * 100)]
)
def test_a_segment(text: str, quoted: str) -> None:
    assert segment("imp_uid", text) == quoted


@pytest.mark.parametrize("text", ["", ".", "..", "x" * 101, "\ud800"])
def test_no_segment(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        segment("imp_uid", text)
    assert str(refused.value) == "imp_uid='…': cannot be part of an address"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://key@api.example.com", "must not hold credentials"),
        ("https://:secret@api.example.com", "must not hold credentials"),
        ("https://api.example.com:0", "is not the address of a gateway"),
        ("https:///path", "is not the address of a gateway"),
        ("http:///path", "is not the address of a gateway"),
        ("ftp://127.0.0.1", "is not https"),
        ("http://api.example.com", "is not https"),
        ("https://[::1", "is not a URL"),
    ],
)
def test_what_is_wrong_with_an_address(url: str, said: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        checked_base_url(url)
    shown = "…" if said.startswith(("must", "is not a URL")) else url
    assert str(refused.value).startswith(f"MAEWOL_PORTONE_API_URL={shown!r}: {said}")


def test_port_one_and_a_path_are_taken() -> None:
    assert checked_base_url("https://api.example.com:1/X//") == "https://api.example.com:1/X"


@pytest.mark.parametrize(("seconds", "milliseconds"), [(60, 60_000), (0.0015, 1), (0, 1)])
def test_charging_sockets_drop_their_bytes_when_closed(seconds: float, milliseconds: int) -> None:
    address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))
    made = hard_closing_sockets(seconds)(address)
    with made:
        linger = made.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        assert struct.unpack("ii", linger) == (1, 0)
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is not None:
            assert made.getsockopt(socket.IPPROTO_TCP, option) == milliseconds


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the authorities that the package brings; the environment has no say."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    public_tls.cache_clear()
    context = verified_tls(public_tls())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509_ca"] > 50
    assert public_tls() is context


@pytest.mark.parametrize(
    ("names_too", "mode"),
    [(True, ssl.CERT_OPTIONAL), (False, ssl.CERT_REQUIRED), (False, ssl.CERT_NONE)],
)
def test_checking_cannot_be_switched_off(names_too: bool, mode: ssl.VerifyMode) -> None:
    context = ssl.create_default_context()
    context.check_hostname = names_too
    context.verify_mode = mode
    with pytest.raises(ValueError, match="does not check"):
        verified_tls(context)
