"""Everything the use cases must know that a merchant can set, in the domain's own words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from billing.domain.declines import DeclineTable
from billing.domain.pace import Ceiling
from billing.domain.plan import PlanPolicy

# After an answer there must be time left in the lease to write it down.
RECORD_BUDGET = timedelta(seconds=10)
# A message that was sent and had no effect for so long was lost.
LOST_AFTER = timedelta(seconds=60)
# So long may what is dispatched take to go out under the ceiling.
DRAINED_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class BillingPolicy:
    """The limits of charging. Durations are measured by the database's clock."""

    plan: PlanPolicy
    declines: DeclineTable
    merchant_uid_prefix: str = "mw"
    deadline: timedelta = timedelta(seconds=60)
    lease: timedelta = timedelta(seconds=120)
    settle: timedelta = timedelta(seconds=120)
    visibility: timedelta = timedelta(seconds=30)
    closing_soon: timedelta = timedelta(hours=24)
    max_outstanding: int = 2000
    charge_batch: int = 50
    charges_per_second: float = 50
    # How many charges go out at once while none was approved lately (`brake`); 0 is all.
    canaries: int = 5
    # Whether a promoted standby has every commit, so that no person need look (docs/failover.md).
    goes_on_after_failover: bool = False
    # A fingerprint of the store that is charged for; None without credentials.
    store: str | None = None
    # Whether payments are made in the gateway's test mode; one of the other kind is refused.
    sandbox: bool = False

    @property
    def ceiling(self) -> Ceiling:
        """How many charges may go out, over all workers."""
        return Ceiling(self.charges_per_second, self.canaries)

    @property
    def startable(self) -> timedelta:
        """How long after its claim a charge may start: early enough for the answer to be written
        down within the lease.

        Under the shortest leases that would leave no time at all; then a third of the lease. An
        answer that comes after its end is asked about needlessly, and is believed all the same:
        what `settle` counts from is that nothing starts after the lease, and nothing does.
        """
        return max(self.lease - self.deadline - RECORD_BUDGET, self.lease / 3)

    @property
    def over_after(self) -> timedelta:
        """By then after its claim, whatever was sent has ended and shows in look-ups."""
        return self.startable + self.deadline + self.visibility

    @property
    def dispatch_again_after(self) -> timedelta:
        """A dispatched attempt that nobody claimed by now was lost on the way.

        Longer than a full queue takes to drain, or every attempt in it would be sent twice.
        """
        drain = self.outstanding / self.charges_per_second if self.charges_per_second else 0
        return max(self.ask_again_after, timedelta(seconds=1.5 * drain))

    @property
    def outstanding(self) -> int:
        """How many attempts may be dispatched and not finished: no more than the ceiling lets
        through in a minute.

        A message keeps its place in the broker's queue. Under a low ceiling a full one would take
        an hour, and what closes soon, or was with a worker that died, would wait behind it.
        """
        if not self.charges_per_second:
            return self.max_outstanding
        in_time = self.charges_per_second * (DRAINED_WITHIN / timedelta(seconds=1))
        return min(self.max_outstanding, math.ceil(in_time))

    def lost_after(self, *, drained: bool) -> timedelta:
        """How long after its dispatch an attempt that nobody claimed counts as lost. `drained` when
        no message waits: then it is with a worker, or lost with whatever the broker held."""
        return self.ask_again_after if drained else self.dispatch_again_after

    @property
    def ask_again_after(self) -> timedelta:
        """A question whose message or answer was lost is asked again after this.

        Whoever chose a short lease wants to recover from a lost worker in that time; recovering
        from a lost message then takes no longer.
        """
        return min(LOST_AFTER, self.lease)
