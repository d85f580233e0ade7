"""A private PostgreSQL and a private Valkey for one machine that has neither.

    with running(data_dir) as servers:
        ...  # servers.database_url, servers.broker_url

Any number of processes of one machine may share a data folder. The first starts the servers, later
ones join, the last to leave stops them; a process that is killed counts as having left. Where the
servers were killed, the next `running()` starts them again, on the same addresses.

Reading order: `running` here, then `membership` (who is using the servers), `postgres`, `valkey`,
`home` (folders, and whom the servers run as), `programs` (where the servers come from).
Decision and figures: docs/adr/0001-embedded-servers.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from billing.domain.errors import EmbeddedServerError
from billing.embedded import postgres, valkey
from billing.embedded.home import Home, find_home, prepare_home
from billing.embedded.membership import Membership

__all__ = ["EmbeddedServerError", "Servers", "is_made", "missing", "running", "stop_abandoned"]


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the private servers listen; None for one that was not asked for.

    `broker_url` carries Valkey's password, so the repr leaves it out.
    """

    database_url: str | None
    broker_url: str | None = field(repr=False)


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


@contextmanager
def running(
    data_dir: Path,
    *,
    database: bool = True,
    broker: bool = True,
    durable: bool = True,
    announce: Callable[[str], None] = _to_stderr,
) -> Iterator[Servers]:
    """Hold the private servers of `data_dir` up for the length of the block.

    `announce` is told, before it happens, whatever a person should know: a first set-up, and as
    root which system user the servers run as. `durable=False` starts servers that forget on a
    power cut, for simulations and tests; whoever starts them decides for all who join.
    The folder serves one machine (or one container) at a time and wants a local file system.
    Raises `EmbeddedServerError`, with the remedy, when a server cannot be had.
    """
    membership = Membership.of(data_dir)
    with _in_words(membership.data_dir), membership.joining(stop=_stop_all):
        home = prepare_home(membership.data_dir, announce)
        servers = Servers(
            database_url=postgres.ensure(home, durable, announce) if database else None,
            broker_url=valkey.ensure(home, durable, announce) if broker else None,
        )
    try:
        yield servers
    finally:
        with _in_words(membership.data_dir):
            membership.leave(stop=_stop_all)


@contextmanager
def _in_words(data_dir: Path) -> Iterator[None]:
    """A full disk, a lack of processes or of files: whoever keeps the servers up tries again."""
    try:
        yield
    except (OSError, psycopg.Error) as error:
        raise EmbeddedServerError(
            f"The private servers of {data_dir} cannot be started or left ({str(error).strip()})."
        ) from error


def is_made(data_dir: Path) -> bool:
    """Whether a data folder has a private PostgreSQL already, running or not."""
    return postgres.is_made(find_home(data_dir.expanduser().resolve()))


def missing(data_dir: Path, *, database: bool = True, broker: bool = True) -> list[str]:
    """Those of the wanted servers of a data folder that do not run: names, for people. A look at
    process ids: it waits for nobody."""
    home = find_home(data_dir.expanduser().resolve())
    wanted = (("PostgreSQL", database, postgres.is_running), ("Valkey", broker, valkey.is_running))
    return [name for name, is_wanted, is_running in wanted if is_wanted and not is_running(home)]


def stop_abandoned(data_dir: Path) -> bool:
    """Stop the servers of a folder that nobody uses. False when somebody does."""
    return Membership.of(data_dir).without_users(_stop_all)


def _stop_all(data_dir: Path) -> None:
    home: Home = find_home(data_dir)
    try:
        valkey.stop(home)
    finally:
        postgres.stop(home)
