"""When the simulated ticks reconcile.

As in production once a day from its slot on, and hourly until a run was whole. A day on which there
is nothing to find is passed over but for one in three weeks: it would ask the gateway some thirty
questions and learn nothing. (Whether there is, the world knows from both sides.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from sqlalchemy import text

from billing.domain.plan import Cron
from billing.sandbox.model import Origin
from billing.settings import Settings

if TYPE_CHECKING:
    from billing.simulation.world import World

_USUAL: Final = str(Settings.model_fields["reconcile_cron"].default)
SLOTS: Final = Cron.parse(_USUAL, field="RECONCILE_CRON", for_each_day=True)
_AGAIN: Final = timedelta(hours=1)
_ON_ANY_ACCOUNT: Final = timedelta(days=21)
_COUNTED: Final = text("SELECT count(paid_imp_uid) FROM cycles")

# Payments that no month counts, those given back, and schedules of the gateway's own.
Odd = tuple[int, int, int]


@dataclass
class LookBack:
    """What was compared so far. `whole`: when each run began that was whole."""

    world: World
    zone: ZoneInfo
    next_at: datetime = field(init=False)
    whole: list[datetime] = field(default_factory=list)
    tried_since: datetime | None = None
    """Since when a run is wanted and none was whole."""
    _known: Odd = (0, 0, 0)
    _seen: Odd = (0, 0, 0)

    def __post_init__(self) -> None:
        self._looked_at = self.world.loop.now()
        self.next_at = SLOTS.after(self._looked_at, self.zone)

    def is_due(self) -> bool:
        """Whether to try now; a wish that is not granted is wished again in an hour."""
        now = self.world.loop.now()
        if now < self.next_at:
            return False
        if self.tried_since is None:
            self._seen = self._odd()
            if self._seen == self._known and now - self._looked_at < _ON_ANY_ACCOUNT:
                self.next_at = SLOTS.after(now, self.zone)
                return False
            self.tried_since = now
        self.next_at = now + _AGAIN
        return True

    def was_whole(self, begun_at: datetime) -> None:
        """A run was: the next is due at the next slot."""
        self.whole.append(begun_at)
        self._looked_at, self._known, self.tried_since = begun_at, self._seen, None
        self.next_at = SLOTS.after(begun_at, self.zone)

    def _odd(self) -> Odd:
        ledger = self.world.sandbox.ledger
        with self.world.engine.begin() as connection:
            counted = int(connection.execute(_COUNTED).scalar_one())
        begun = self.world.begun_at.timestamp()
        taken = sum(
            one.paid_at >= begun and one.origin is not Origin.WINDOW for one in ledger.payments
        )
        given_back = sum(bool(one.cancelled_at) for one in ledger.payments)
        return taken - counted, given_back, len(ledger.schedules)
