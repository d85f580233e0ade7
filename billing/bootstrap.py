"""The composition root: builds every adapter, once, and takes it down again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr
from sqlalchemy import Engine, make_url

from billing import clock
from billing.domain.declines import DeclineTable
from billing.domain.errors import InvalidSetting
from billing.domain.policy import BillingPolicy
from billing.ports import CallMeter, TokenStore
from billing.settings import PREFIX, Settings
from billing.store.session import Book, create_book_engine
from billing.store.trouble import servers

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

    from billing.broker import CeleryWorkQueue
    from billing.notifier import HttpNotifier
    from billing.portone.client import PortOneClient
    from billing.redis_address import RedisAddress


@dataclass(frozen=True)
class House:
    """Everything a command, a tick or a task needs that lives longer than one call. The broker and
    Celery come with the first that asks for them: most commands send no message."""

    settings: Settings
    policy: BillingPolicy
    engine: Engine
    book: Book
    database_url: str = field(repr=False)
    announce: Callable[[str], None] = field(repr=False)
    closing: contextlib.ExitStack = field(repr=False)

    @property
    def where(self) -> str:
        """Which book this is, for people: without user and password."""
        if self.settings.database_url is None:
            return f"the private database in {self.settings.data_dir}"
        name = make_url(self.database_url).database
        return f"database {name} on {servers(self.database_url) or 'this machine'}"

    @functools.cached_property
    def broker_url(self) -> str:
        """Where the broker is, as set; else a private one, started or joined by whoever asks first.
        Raises `EmbeddedServerError`."""
        return self.closing.enter_context(_broker(self.settings, self.announce))

    @functools.cached_property
    def celery(self) -> Celery:
        """The app that reaches the broker."""
        from celery import Celery

        from billing.broker import celery_settings

        made = Celery("maewol")
        made.conf.update(celery_settings(self.broker))
        self.closing.callback(made.close)
        return made

    @functools.cached_property
    def queue(self) -> CeleryWorkQueue:
        """The way to the workers."""
        from billing.broker import CeleryWorkQueue

        return CeleryWorkQueue(self.celery, clock.monotonic)

    @property
    def broker(self) -> RedisAddress:
        """How the broker is reached."""
        return redis_address(self.settings, self.broker_url)

    def installation_key(self) -> bytes:
        """The key for a book that has none yet (see `derive_installation_key`)."""
        return derive_installation_key(self.settings)


@contextlib.contextmanager
def _database(settings: Settings, announce: Callable[[str], None]) -> Iterator[str]:
    """The address of the database that is set, or of a private one, started here or joined."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    from billing.embedded import running

    with running(settings.data_dir, broker=False, announce=announce) as private:
        yield _given(private.database_url)


@contextlib.contextmanager
def _broker(settings: Settings, announce: Callable[[str], None]) -> Iterator[str]:
    """The same of the broker."""
    if settings.broker_url is not None:
        yield settings.broker_url.get_secret_value()
        return
    from billing.embedded import running

    with running(settings.data_dir, database=False, announce=announce) as private:
        yield _given(private.broker_url)


@contextlib.contextmanager
def only_broker(settings: Settings) -> Iterator[RedisAddress]:
    """The broker without a book: all that Flower needs, and is given in production. Raises
    `EmbeddedServerError`."""
    with _broker(settings, lambda _: None) as broker_url:
        yield redis_address(settings, broker_url)


def has_a_book(settings: Settings) -> bool:
    """Whether there is a book to open; False where opening would make a new private one."""
    if settings.database_url is not None:
        return True
    from billing.embedded import is_made

    return is_made(settings.data_dir)


@contextlib.contextmanager
def house(
    settings: Settings | None = None, announce: Callable[[str], None] = lambda _: None
) -> Iterator[House]:
    """Build everything but the gateway client. Raises `InvalidSetting`, `EmbeddedServerError`."""
    settings = settings or Settings.load()
    policy = billing_policy(settings)
    with _database(settings, announce) as database_url, contextlib.ExitStack() as closing:
        engine = create_book_engine(database_url)
        book = Book(engine, clock.database_time)
        closing.callback(book.close)
        yield House(
            settings=settings,
            policy=policy,
            engine=engine,
            book=book,
            database_url=database_url,
            announce=announce,
            closing=closing,
        )


def quick_redis(broker: RedisAddress) -> Redis:
    """A client of the broker's server, for any thread. It tries once, for two seconds: whoever asks
    can do without the answer."""
    return broker.quick_client()


def credentials(settings: Settings) -> tuple[str, str]:
    """Key and secret of the store's REST API. Raises `InvalidSetting` where one is not set."""
    return (
        _credential("PORTONE_IMP_KEY", settings.portone_imp_key),
        _credential("PORTONE_IMP_SECRET", settings.portone_imp_secret),
    )


def _credential(name: str, value: SecretStr | None) -> str:
    if value is None:
        raise InvalidSetting(
            name, None, "not set", f"Set {PREFIX}{name} to the store's REST API credential"
        )
    return value.get_secret_value()


@contextlib.asynccontextmanager
async def gateway(
    settings: Settings,
    tokens: TokenStore | None = None,
    broker_url: str | None = None,
    meter: CallMeter | None = None,
) -> AsyncIterator[PortOneClient]:
    """A client of the gateway, for one event loop. Raises `InvalidSetting` without credentials."""
    key, secret = credentials(settings)
    # Here, since most commands never speak to the gateway and need not wait for its libraries.
    from billing.broker import CONCURRENCY, RedisTokenStore
    from billing.portone.client import LOOKUP_SECONDS, SHORTEST_LOOKUP_SECONDS, PortOneClient

    charge_timeout = settings.portone_timeout_seconds
    shared = tokens or RedisTokenStore(redis_address(settings, _given(broker_url)), clock.host_time)
    client = PortOneClient(
        settings.portone_api_url,
        key,
        secret,
        tokens=shared,
        now=clock.host_time,
        monotonic=clock.monotonic,
        charge_timeout=charge_timeout,
        # Where charges are not waited for long, their leases may be short; and a look-up that hangs
        # must not outlive them.
        lookup_timeout=min(LOOKUP_SECONDS, max(SHORTEST_LOOKUP_SECONDS, charge_timeout)),
        include_sandbox=settings.include_sandbox,
        # Every charge of every task of a process may be on its way at once.
        max_connections=max(100, settings.charge_batch * CONCURRENCY),
        meter=meter,
    )
    try:
        yield client
    finally:
        await client.aclose()
        if isinstance(shared, RedisTokenStore):
            await shared.aclose()


@contextlib.asynccontextmanager
async def notifier(settings: Settings) -> AsyncIterator[HttpNotifier]:
    """The way to the merchant's own system, for one event loop. Raises `InvalidSetting` when it is
    not set."""
    if settings.notice_url is None:
        raise InvalidSetting(
            "NOTICE_URL", None, "not set", "Set it to the address that receives notices"
        )
    # Here, since most commands send no notice and need not wait for its libraries.
    from billing.notifier import HttpNotifier

    made = HttpNotifier(settings.notice_url, settings.notice_keys, now=clock.host_time)
    try:
        yield made
    finally:
        await made.aclose()


def redis_address(settings: Settings, broker_url: str) -> RedisAddress:
    """The broker's address with all that the settings say of it."""
    from billing.redis_address import RedisAddress

    password = settings.sentinel_password
    return RedisAddress(
        broker_url,
        master=settings.sentinel_master,
        sentinel_password=None if password is None else password.get_secret_value(),
        ca_file=settings.broker_ca_file,
    )


def billing_policy(settings: Settings) -> BillingPolicy:
    """The domain's view of the settings. Raises `InvalidSetting`."""
    return BillingPolicy(
        plan=settings.plan,
        declines=decline_table(settings.declines_file),
        merchant_uid_prefix=settings.merchant_uid_prefix,
        deadline=settings.charge_deadline,
        lease=settings.lease,
        settle=settings.settle,
        visibility=settings.visibility,
        closing_soon=settings.closing_soon,
        max_outstanding=settings.max_outstanding,
        charge_batch=settings.charge_batch,
        charges_per_second=settings.charges_per_second,
        canaries=settings.canary_charges,
        goes_on_after_failover=settings.database_failover == "go_on",
        store=store_fingerprint(settings),
        sandbox=settings.include_sandbox,
    )


def store_fingerprint(settings: Settings) -> str | None:
    """Tells stores apart without telling which; None without credentials."""
    if settings.portone_imp_key is None:
        return None
    imp_key = settings.portone_imp_key.get_secret_value()
    return hmac.new(b"maewol store", imp_key.encode(), hashlib.sha256).hexdigest()[:16]


def decline_table(path: Path | None) -> DeclineTable:
    """The built-in table of declines, or the operator's own. Raises `InvalidSetting`."""
    if path is None:
        return _built_in_declines()
    try:
        # As settings: Windows' editors may begin it with a mark.
        return DeclineTable.parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(
            "DECLINES_FILE",
            str(path),
            f"cannot be read ({type(error).__name__})",
            "Check the path, or unset it for the built-in table",
        ) from error


@functools.cache
def _built_in_declines() -> DeclineTable:
    text = files("billing.domain").joinpath("declines.toml").read_text(encoding="utf-8")
    return DeclineTable.parse(text)


def derive_installation_key(settings: Settings) -> bytes:
    """The key of an empty book: as set; or made from the store's credentials, so that a re-imported
    book makes the same `merchant_uid`s; or random where there are none yet."""
    if settings.installation_key is not None:
        return hashlib.sha256(settings.installation_key.get_secret_value().encode()).digest()
    if settings.portone_imp_key is None or settings.portone_imp_secret is None:
        return secrets.token_bytes(32)
    credentials = "\0".join(
        value.get_secret_value()
        for value in (settings.portone_imp_key, settings.portone_imp_secret)
    )
    return hmac.new(b"maewol installation", credentials.encode(), hashlib.sha256).digest()


def _given(url: str | None) -> str:
    if url is None:
        raise AssertionError("a server that was asked for has an address")
    return url
