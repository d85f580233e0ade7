"""The broker behind Sentinels and behind TLS: a primary that dies, and a certificate that lies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from celery import Celery
from sqlalchemy.engine import make_url

from billing.bootstrap import house, redis_address
from billing.broker import CHARGES_QUEUE, CeleryWorkQueue, RedisWatermark, celery_settings
from billing.domain.errors import BrokerUnavailable, InvalidSetting
from billing.embedded import Servers, running
from billing.redis_address import RedisAddress
from billing.settings import Settings, effective
from tests.lasting.redis_servers import (
    MASTER,
    PASSWORD,
    SENTINEL_PASSWORD,
    Watched,
    cut,
    tls_door,
    watched_by_sentinels,
)
from tests.lasting.stage import Addresses, Stage, a_stage


@contextmanager
def _a_stage_behind_sentinels(
    folder: Path, database_url: str, count: int
) -> Iterator[tuple[Stage, Watched]]:
    folder.chmod(0o755)
    (folder / "redis").mkdir()
    with watched_by_sentinels(folder / "redis") as broker:
        password = folder / "sentinel-password"
        password.write_text(SENTINEL_PASSWORD)
        settings = {"SENTINEL_MASTER": MASTER, "SENTINEL_PASSWORD_FILE": str(password)}
        where = Addresses(database_url, broker.url)
        with a_stage(folder, where, count=count, **settings) as stage:
            yield stage, broker


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_primary_of_the_broker_dies_in_mid_work_and_everybody_is_charged_once(
    tmp_path: Path, database_url: str
) -> None:
    with _a_stage_behind_sentinels(tmp_path, database_url, 40) as (stage, broker):
        stage.enrol(40)
        stage.start("beat1", "ticks1", "charges1", "charges2")
        stage.until_charged(10)
        dead = broker.kill_primary()
        stage.until_paid()
        assert broker.primary() != dead
        stage.all_is_well()
        ours = stage.world.programs
        assert not ours.exits, "nobody had to be started again"
        logs = "".join(ours.log(name).read_text() for name in ours.names())
        assert PASSWORD not in logs
        assert SENTINEL_PASSWORD not in logs


# -- cut connections --------------------------------------------------------------------------


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["pubsub", "normal"])
def test_workers_whose_connections_were_cut_hear_again(
    tmp_path: Path, database_url: str, kind: str
) -> None:
    tmp_path.chmod(0o755)
    with running(tmp_path / "valkey", database=False, durable=False) as own:
        url = str(own.broker_url)
        with a_stage(tmp_path, Addresses(database_url, url), count=20) as stage:
            _charged_though_cut(stage, lambda: cut(redis.Redis.from_url(url), kind))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_behind_sentinels_workers_whose_connections_were_cut_hear_again(
    tmp_path: Path, database_url: str
) -> None:
    with _a_stage_behind_sentinels(tmp_path, database_url, 20) as (stage, broker):
        _charged_though_cut(stage, broker.cut)


def _charged_though_cut(stage: Stage, blow: Callable[[], None]) -> None:
    """The server lives on and can be reached at once. A client that connects anew by itself and
    reads on where it was waits for what nobody will send: Celery must do it."""
    stage.enrol(10)
    stage.start("beat1", "ticks1", "charges1")
    stage.until_charged(3)
    blow()
    stage.enrol(10)
    stage.until_paid()
    stage.all_is_well()
    exits = stage.world.programs.exits
    assert not exits, "nobody had to be started again"
    stage.stop("ticks1", "charges1")
    assert sorted((name, code) for name, code, _ in exits) == [("charges1", 0), ("ticks1", 0)]


# -- TLS --------------------------------------------------------------------------------------


@pytest.fixture
def door(tmp_path: Path, servers: Servers) -> Iterator[tuple[str, Path]]:
    """An address behind TLS, and the certificate that proves it."""
    plain = make_url(str(servers.broker_url))
    with tls_door(tmp_path, int(plain.port or 0)) as (port, authority):
        yield f"rediss://:{plain.password}@127.0.0.1:{port}/0", authority


def _queue(address: RedisAddress) -> CeleryWorkQueue:
    app = Celery("tls")
    app.conf.update(celery_settings(address))
    return CeleryWorkQueue(app, time.monotonic)


def test_celery_and_we_ourselves_reach_the_broker_over_tls(door: tuple[str, Path]) -> None:
    url, authority = door
    address = RedisAddress(url, ca_file=authority)
    queue = _queue(address)
    before = queue.waiting("tls-charges")
    queue._send("maewol.charge", "tls-charges", [[1]])
    assert queue.waiting("tls-charges") == before + 1
    assert CHARGES_QUEUE != "tls-charges"

    async def remember() -> dict[str, int]:
        watermark = RedisWatermark(address)
        await watermark.raise_to("tls/1", 9)
        await watermark.begin_anew("tls/1", 7)
        await watermark.raise_to("tls/1", 6)
        seen = await watermark.seen()
        await watermark.aclose()
        return seen

    assert asyncio.run(remember())["tls/1"] == 7


@pytest.fixture
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery tries a refused connection again and again; without its waits of seconds between."""
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: None)


@pytest.mark.usefixtures("in_no_time")
def test_a_certificate_that_nobody_vouches_for_is_not_believed(door: tuple[str, Path]) -> None:
    """Celery by itself would believe any: it must be told."""
    url, _ = door
    queue = _queue(RedisAddress(url))
    with pytest.raises(BrokerUnavailable):
        queue.charge([1])

    async def ask() -> dict[str, int]:
        watermark = RedisWatermark(RedisAddress(url))
        await watermark.raise_to("nobody/1", 1)
        return await watermark.seen()

    assert asyncio.run(ask()) == {}


@pytest.mark.usefixtures("in_no_time")
def test_a_certificate_of_another_host_is_not_believed(door: tuple[str, Path]) -> None:
    url, authority = door
    queue = _queue(RedisAddress(url.replace("127.0.0.1", "localhost"), ca_file=authority))
    with pytest.raises(BrokerUnavailable):
        queue.charge([1])


def test_the_settings_reach_celery_and_the_tokens(door: tuple[str, Path]) -> None:
    url, authority = door
    with house(
        Settings.load(
            broker_url=url,
            broker_ca_file=authority,
            data_dir=authority.parent,
            database_url="postgresql://nobody@127.0.0.1/none",
        )
    ) as built:
        assert built.queue.waiting("tls-nothing") == 0
        assert redis_address(built.settings, url).tls()["ssl_ca_certs"] == str(authority)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_worker_works_over_tls(door: tuple[str, Path], tmp_path: Path, database_url: str) -> None:
    url, authority = door
    tmp_path.chmod(0o755)
    where = Addresses(database_url, url)
    with a_stage(tmp_path, where, count=10, BROKER_CA_FILE=str(authority)) as stage:
        stage.enrol(10)
        stage.start("beat1", "ticks1", "charges1")
        stage.until_paid()
        stage.all_is_well()


# -- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "rediss://:s3cret@broker:6380/0",
        "redis://:s3cret@broker:6379/0",
        "sentinel://:s3cret@one:26379/0;sentinel://:s3cret@two:26379/0",
    ],
)
def test_addresses_are_taken_and_their_passwords_masked(url: str) -> None:
    settings = Settings.load(broker_url=url, sentinel_password="s3cret")
    shown = dict(effective(settings))
    assert shown["BROKER_URL"] == shown["SENTINEL_PASSWORD"] == "********"
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in repr(RedisAddress(url, sentinel_password="s3cret"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("broker_url", "rediss://:s3cret@broker:6380/0?ssl_cert_reqs=none"),
        ("broker_url", "redis://:s3cret@one:6379/0;redis://:s3cret@two:6379/0"),
        ("broker_url", "sentinel://:s3cret@one:26379/0;redis://:s3cret@two:6379/0"),
        ("broker_url", "sentinel://:s3cret@one:port/0"),
        ("broker_ca_file", "/nowhere/ca.pem"),
        ("sentinel_master", "my master"),
    ],
)
def test_what_would_not_work_or_not_verify_is_refused_without_the_secret(
    setting: str, value: str
) -> None:
    with pytest.raises(InvalidSetting, match=setting.upper()) as refused:
        Settings.load(**{setting: value})
    assert "s3cret" not in str(refused.value)
