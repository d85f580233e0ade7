"""Celery and Redis: the way to the workers, and where they keep the access token they share.

Messages are hints, so nothing here needs to survive: no results, no delayed tasks, no retries by
Celery. Retries live in one layer, the plan in the database.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from billing.domain.errors import BrokerUnavailable, InvalidInput
from billing.ports import AccessToken
from billing.redis_address import RedisAddress
from billing.spaced import Spaced

CHARGES_QUEUE = "charges"
TICKS_QUEUE = "ticks"

CHARGE_TASK = "maewol.charge"
INQUIRE_TASK = "maewol.inquire"
NOTIFY_TASK = "maewol.notify"
TICK_OPEN = "maewol.tick.open"
TICK_DISPATCH = "maewol.tick.dispatch"
TICK_INQUIRE = "maewol.tick.inquire"
TICK_CLOSE = "maewol.tick.close"
TICK_SEAL = "maewol.tick.seal"
TICK_CHECK = "maewol.tick.check"
TICK_REFUND = "maewol.tick.refund"
TICK_NOTIFY = "maewol.tick.notify"
TICK_WEBHOOKS = "maewol.tick.webhooks"
TICK_RECONCILE = "maewol.tick.reconcile"
TICK_PRUNE = "maewol.tick.prune"

# Tasks at a time in one process; each waits for the gateway with a batch of charges, and as long as
# the slowest of them. Of a gateway that leaves a few in a hundred hanging nearly every batch waits
# for the deadline: with few places all others would stand still.
CONCURRENCY = 16

_log = structlog.get_logger(__name__)

# Each task that ends makes room for one more: a dispatch for each would cost a tenth of all that a
# busy machine does, and hand out less than a message holds.
_DISPATCH_EVERY_SECONDS = 0.25

# A tick that nobody ran is worth nothing when the next one is there.
_TICK_EXPIRES_SECONDS = 300
# For one of the pool's connections, where others hold all of them. Celery itself waits for ever.
_WAITED_FOR_SECONDS = 5.0
# More than any message of ours carries; a longer list was not made by us.
_MOST_IDS = 500
TOKEN_KEY = "maewol:portone:token"  # noqa: S105 - a key's name
_WATERMARKS = "maewol:highest-event"
_TOKEN_LOCK = "maewol:portone:token:lock"  # noqa: S105
# A fetch that takes longer is given up; then another worker may try.
_SINGLE_FLIGHT_SECONDS = 10


def celery_settings(broker: RedisAddress) -> dict[str, Any]:
    """The settings of both Celery apps; why each is so: docs/adr/0005-celery.md."""
    return {
        "broker_url": broker.url,
        # Without this Celery would believe any certificate.
        "broker_use_ssl": broker.tls() or None,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            # Longer than any task that is not held back; redelivery is harmless, the claim loses.
            "visibility_timeout": 3600,
            # A half-open connection must not leave a worker deaf.
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            # redis-py must not try again by itself: from the new connection of a subscription it
            # reads without a time limit, and the worker is deaf. Celery begins anew.
            "retry_on_timeout": False,
            **broker.sentinel_options(),
        },
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "task_ignore_result": True,
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        # Threads: one process, one event loop with one pool of connections to the gateway.
        "worker_pool": "threads",
        "worker_consumer": "billing.consumer:SturdyConsumer",
        "worker_concurrency": CONCURRENCY,
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "task_create_missing_queues": True,
        "timezone": "UTC",
        "enable_utc": True,
        # The schedule is constant and a missed tick does not matter: nothing to keep in a file.
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": 5,
        "task_routes": {
            CHARGE_TASK: {"queue": CHARGES_QUEUE},
            INQUIRE_TASK: {"queue": CHARGES_QUEUE},
            # Beside the ticks: a slow receiver must not keep charging workers waiting, and one
            # round of seconds at a time holds one of four threads here.
            NOTIFY_TASK: {"queue": TICKS_QUEUE},
            "maewol.tick.*": {"queue": TICKS_QUEUE},
        },
    }


def checked_ids(message: Any) -> list[int]:
    """Anybody who can write to the broker can send a message; only ids get through. Raises
    `InvalidInput`."""
    good = (
        isinstance(message, list)
        and len(message) <= _MOST_IDS
        and all(type(one) is int and 0 < one < 2**63 for one in message)
    )
    if not good:
        raise InvalidInput("ids", type(message).__name__, f"not a list of at most {_MOST_IDS} ids")
    return message  # type: ignore[no-any-return]


# How a broker that is away, or whose every connection is in use, shows in Celery's clients.
IS_AWAY = (KombuError, RedisError, OSError)


class CeleryWorkQueue:
    """Reaches the workers by task name; see `ports.WorkQueue` and `ports.NoticeQueue`."""

    def __init__(self, app: Celery, monotonic: Callable[[], float]) -> None:
        self._app = app
        self._dispatch_soon = Spaced(
            self._ask_for_dispatch, _DISPATCH_EVERY_SECONDS, monotonic, _not_asked
        )

    def charge(self, attempt_ids: Sequence[int]) -> None:
        self._send(CHARGE_TASK, CHARGES_QUEUE, [list(attempt_ids)])

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        self._send(INQUIRE_TASK, CHARGES_QUEUE, [list(attempt_ids)])

    def dispatch_soon(self) -> None:
        self._dispatch_soon()

    def _ask_for_dispatch(self) -> None:
        self._send(TICK_DISPATCH, TICKS_QUEUE, [], expires=_TICK_EXPIRES_SECONDS)

    def charges_waiting(self) -> int:
        return self.waiting(CHARGES_QUEUE)

    def waiting(self, queue: str) -> int:
        """How many messages wait in a queue. Raises `BrokerUnavailable`."""
        try:
            with self._connection() as connection:
                return int(connection.default_channel.client.llen(queue))
        except IS_AWAY as error:
            raise BrokerUnavailable(f"{queue} cannot be seen ({type(error).__name__})") from error

    def notify(self, notice_ids: Sequence[int]) -> None:
        self._send(NOTIFY_TASK, TICKS_QUEUE, [list(notice_ids)], expires=_TICK_EXPIRES_SECONDS)

    def notify_soon(self) -> None:
        self._send(TICK_NOTIFY, TICKS_QUEUE, [], expires=_TICK_EXPIRES_SECONDS)

    def _connection(self) -> AbstractContextManager[Any]:
        held: AbstractContextManager[Any] = self._app.pool.acquire(
            block=True, timeout=_WAITED_FOR_SECONDS
        )
        return held

    def _send(self, task: str, queue: str, arguments: list[Any], **options: Any) -> None:
        try:
            with self._connection() as connection:
                self._app.send_task(
                    task,
                    args=arguments,
                    queue=queue,
                    connection=connection,
                    ignore_result=True,
                    retry=False,
                    **options,
                )
        except IS_AWAY as error:
            raise BrokerUnavailable(f"{task} was not sent ({type(error).__name__})") from error


def _not_asked(error: Exception) -> None:
    # The schedule finds what is due all the same.
    _log.warning("a dispatch was not asked for", error=type(error).__name__)


class RedisTokenStore:
    """The shared token, in Redis until it ends. Redis away means: no shared token."""

    def __init__(self, broker: RedisAddress, now: Callable[[], datetime]) -> None:
        self._now = now
        self._redis = broker.client()

    async def get(self) -> AccessToken | None:
        try:
            kept = await self._redis.get(TOKEN_KEY)
            return None if kept is None else _token(kept)
        except (RedisError, OSError, ValueError, KeyError, TypeError):
            return None

    async def put(self, token: AccessToken) -> None:
        left = token.expires_at - (self._now() + token.clock_offset)
        seconds = int(left.total_seconds())
        if seconds <= 0:
            return
        text = json.dumps(
            {
                "value": token.value,
                "expires_at": token.expires_at.isoformat(),
                "clock_offset": token.clock_offset.total_seconds(),
                "fetched_at": self._now().isoformat(),
            }
        )
        try:
            await self._redis.set(TOKEN_KEY, text, ex=seconds)
        except (RedisError, OSError):
            return

    async def discard(self, value: str) -> None:
        kept = await self.get()
        if kept is not None and kept.value == value:
            try:
                await self._redis.delete(TOKEN_KEY)
            except (RedisError, OSError):
                return

    @asynccontextmanager
    async def single_flight(self) -> AsyncIterator[None]:
        lock = self._redis.lock(
            _TOKEN_LOCK, timeout=_SINGLE_FLIGHT_SECONDS, blocking_timeout=_SINGLE_FLIGHT_SECONDS
        )
        try:
            held = await lock.acquire()
        except (RedisError, OSError):
            held = False
        try:
            yield
        finally:
            if held:
                try:
                    await lock.release()
                except (RedisError, OSError):
                    held = False

    async def aclose(self) -> None:
        await self._redis.aclose()


class RedisWatermark:
    """The highest event number seen of each database, in Redis; see `ports.Watermark`."""

    def __init__(self, broker: RedisAddress) -> None:
        self._redis = broker.client()

    async def seen(self) -> dict[str, int]:
        try:
            rows: Any = await self._redis.zrange(_WATERMARKS, 0, -1, withscores=True)
            return {database.decode(): int(score) for database, score in rows}
        except (RedisError, OSError, ValueError):
            return {}

    async def raise_to(self, database: str, number: int) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._redis.zadd(_WATERMARKS, {database: number}, gt=True)

    async def begin_anew(self, database: str, number: int) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._redis.zadd(_WATERMARKS, {database: number})

    async def aclose(self) -> None:
        await self._redis.aclose()


def token_fetched_at(kept: bytes | str) -> datetime | None:
    """When the token that is kept under `TOKEN_KEY` was fetched; None where that is not known."""
    try:
        return datetime.fromisoformat(json.loads(kept)["fetched_at"])
    except (ValueError, KeyError, TypeError):
        return None


def _token(kept: bytes | str) -> AccessToken:
    row = json.loads(kept)
    return AccessToken(
        value=str(row["value"]),
        expires_at=datetime.fromisoformat(row["expires_at"]),
        clock_offset=timedelta(seconds=float(row["clock_offset"])),
    )
