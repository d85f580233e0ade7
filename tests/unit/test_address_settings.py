"""BROKER_URL and the gateway's addresses: what no client of ours could use stops the process."""

from __future__ import annotations

import pytest

from billing.domain.errors import InvalidSetting
from billing.redis_address import RedisAddress
from billing.settings import Settings


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://127.0.0.1",
        "rediss://:secret@broker.internal:6379/3",
        "sentinel://:secret@one:26379/0;sentinel://two:26379",
    ],
)
def test_a_broker_that_is_taken_can_be_asked_by_every_client(url: str) -> None:
    assert Settings.load(broker_url=url).broker_url
    RedisAddress(url).client()
    RedisAddress(url).quick_client()


@pytest.mark.parametrize(
    "url",
    [
        "redis+socket:///run/valkey/valkey.sock",
        "redis://127.0.0.1:6379/first",
        "sentinel://one:26379/first;sentinel://two:26379/0",
    ],
)
def test_a_broker_that_only_celery_could_read_is_refused(url: str) -> None:
    with pytest.raises(InvalidSetting, match="BROKER_URL"):
        Settings.load(broker_url=url)


@pytest.mark.parametrize("name", ["portone_api_url", "portone_sdk_url"])
@pytest.mark.parametrize(
    "url",
    [
        "https://api.iamport.kr:port",
        "https://api.iamport.kr:99999",
        "https://api iamport.kr",
        " https://api.iamport.kr",
        "https://[::1",
        "http://api.iamport.kr",
        "https://",
    ],
)
def test_an_address_of_the_gateway_that_is_none(name: str, url: str) -> None:
    with pytest.raises(InvalidSetting, match=f"{name.upper()}=.*not an https address"):
        Settings.load(**{name: url})


@pytest.mark.parametrize("end", ["?store=1", "#live"])
def test_what_follows_the_address_of_the_api_is_its_path(end: str) -> None:
    with pytest.raises(InvalidSetting, match="PORTONE_API_URL"):
        Settings.load(portone_api_url=f"https://api.iamport.kr{end}")
    assert Settings.load(portone_sdk_url=f"https://cdn.iamport.kr/v1/iamport.js{end}")


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.load(portone_api_url="https://me:hunter2@api.iamport.kr")
    assert "hunter2" not in str(caught.value)
