"""Whether anything may leave from this database: it is the one that the book was last used in, and
the store is the same."""

from __future__ import annotations

from collections.abc import Mapping

from billing.domain.policy import BillingPolicy
from billing.store import events, health, installation
from billing.store.installation import Identity
from billing.store.session import Transaction


def why_not_from(tx: Transaction, policy: BillingPolicy, here: Identity) -> str | None:
    """Why nothing may be charged or given back from here, or None."""
    if policy.goes_on_after_failover and installation.failed_over(tx.session, here):
        _after_failover(tx, policy, here)
    return installation.fence(tx.session, here)


def why_not_yet(tx: Transaction, policy: BillingPolicy) -> str | None:
    """The same before anything is to leave. Whether a promoted standby has every commit only a
    claim can tell, by what was seen of the events: nothing may be written before it has looked."""
    return _not_yet(tx, policy, installation.identity(tx.session, policy.store))


def _not_yet(tx: Transaction, policy: BillingPolicy, here: Identity) -> str | None:
    if policy.goes_on_after_failover and installation.promoted(tx.session, here):
        return None
    return installation.fence(tx.session, here)


def why_not_now(tx: Transaction, policy: BillingPolicy, seen: Mapping[str, int]) -> str | None:
    """`why_not_yet`, and whether the book has forgotten events that were `seen` of its database."""
    here = installation.identity(tx.session, policy.store)
    known = 0 if here.database is None else seen.get(here.database, 0)
    if known and (problem := why_not_after(tx, known, events.newest(tx.session))):
        return problem
    return _not_yet(tx, policy, here)


def why_not_after(tx: Transaction, seen: int, newest: int) -> str | None:
    """Why nothing may leave from a book whose `newest` event is older than one that was `seen` of
    it: it has forgotten some. None where it has not, or where a person was told of this very event
    and has looked (a hold that stands is there anyway): outside of the book its number is
    remembered until there are as many events again, and would undo every release until then.

    Its months do not end, either, before that person has looked: the book is where nobody is."""
    if newest >= seen:
        return None
    problem = f"the database went back in time: event {seen} is gone"
    if events.was_held_for(tx.session, problem):
        return None
    installation.be_nowhere(tx.session)
    return problem


def _after_failover(tx: Transaction, policy: BillingPolicy, here: Identity) -> None:
    """A standby with every commit took over. Claims that were under way are made or lost as a
    whole; whatever they sent shows in look-ups before anything starts again."""
    health.wait_out(tx.session, tx.now, policy.over_after)
    told = {"timeline": here.timeline}
    events.add(tx.session, at=tx.now, kind="database.failed_over", data=told, alarm=True)
