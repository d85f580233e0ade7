"""Whether anything may leave from this database: it is the one that the book was last used in, and
the store is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from billing.domain.policy import BillingPolicy
from billing.ports import Watermark
from billing.services.hold import stop
from billing.store import events, health, installation
from billing.store.installation import Identity
from billing.store.session import Book, Transaction


@dataclass(frozen=True, slots=True)
class Newest:
    """The database and its newest event; `is_known` says that events after it are gone, as a person
    knows who released the book."""

    database: str
    number: int
    is_known: bool

    async def tell(self, watermark: Watermark) -> None:
        """Remember it outside of the book. Never raises."""
        note = watermark.begin_anew if self.is_known else watermark.raise_to
        await note(self.database, self.number)


async def look_for_lost(book: Book, policy: BillingPolicy, watermark: Watermark) -> None:
    """Before anything ends in the book, or is told from it: `fenced`, by what was seen of it; and
    be a witness of what it holds now. A disk that was put back has the same identity, and nobody
    may be due in it any more: no claim would look before its months are closed."""
    # Asked first: what is committed in between can only make the book's own number higher.
    seen = await watermark.seen()
    newest = await asyncio.to_thread(book.run, lambda tx: fenced(tx, policy, seen))
    if newest is not None:
        await newest.tell(watermark)


def fenced(tx: Transaction, policy: BillingPolicy, seen: Mapping[str, int]) -> Newest | None:
    """Stop all charging when this is not the database that the book was last used in, or when it
    has fewer events than were seen of it: then it has lost some. Returns its newest event."""
    here = installation.identity(tx.session, policy.store)
    newest = events.newest(tx.session)
    known = 0 if here.database is None else seen.get(here.database, 0)
    lost = why_not_after(tx, known, newest)
    if problem := lost or why_not_from(tx, policy, here):
        stop(tx, problem)
    if lost is not None:
        # Its months do not end, either, before that person has looked: the book is where nobody is.
        # Last, as whoever holds takes the two rows in this order.
        installation.be_nowhere(tx.session)
    if here.database is None:
        return None
    is_known = newest < known and health.hold_reason(tx.session) is None
    return Newest(here.database, newest, is_known)


def why_not_from(tx: Transaction, policy: BillingPolicy, here: Identity) -> str | None:
    """Why nothing may be charged or given back from here, or None."""
    if policy.goes_on_after_failover and installation.failed_over(tx.session, here):
        _after_failover(tx, policy, here)
    return installation.fence(tx.session, here)


def why_not_yet(tx: Transaction, policy: BillingPolicy) -> str | None:
    """The same before anything is to leave. Whether a promoted standby has every commit only
    `fenced` can tell, by what was seen of the events: it has not looked yet."""
    here = installation.identity(tx.session, policy.store)
    if policy.goes_on_after_failover and installation.promoted(tx.session, here):
        return None
    return installation.fence(tx.session, here)


def why_not_after(tx: Transaction, seen: int, newest: int) -> str | None:
    """Why nothing may leave from a book whose `newest` event is older than one that was `seen` of
    it: it has forgotten some. None where it has not, or where a person was told of this very event
    and has looked (a hold that stands is there anyway): outside of the book its number is
    remembered until the first claim after that."""
    if newest >= seen:
        return None
    problem = f"the database went back in time: event {seen} is gone"
    return None if events.was_held_for(tx.session, problem) else problem


def _after_failover(tx: Transaction, policy: BillingPolicy, here: Identity) -> None:
    """A standby with every commit took over. Claims that were under way are made or lost as a
    whole; whatever they sent shows in look-ups before anything starts again."""
    health.wait_out(tx.session, tx.now, policy.over_after)
    told = {"timeline": here.timeline}
    events.add(tx.session, at=tx.now, kind="database.failed_over", data=told, alarm=True)
