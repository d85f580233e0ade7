"""The gateway's webhooks on their way to our edge: lost, doubled, late; and what anybody sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

from billing.portone import webhook
from billing.portone.answer import Unreadable
from billing.sandbox.model import Payment
from billing.sandbox.webhooks import Webhooks
from billing.services.receive_webhook import receive_webhook

if TYPE_CHECKING:
    from billing.simulation.processes import Process
    from billing.simulation.world import World

# How long one is under way, in seconds: as a rule, and when it comes late.
_USUAL: Final = (0.05, 3.0)
_LATE: Final = (60.0, 400_000.0)


class Announcements(Webhooks):
    """Stands where the sandbox has its own sender. Sent once, as the gateway does by default: what
    our edge could not keep is lost."""

    def __init__(self, world: World) -> None:
        super().__init__(world.sandbox)
        self._world = world

    def tell(self, payment: Payment) -> None:
        """Tell of a payment as it is now."""
        self.send(
            {
                "imp_uid": payment.imp_uid,
                "merchant_uid": payment.merchant_uid,
                "status": payment.status.value,
            }
        )

    def send(self, said: Mapping[str, object]) -> None:
        """Send one, whoever sends it."""
        world, nemesis = self._world, self._world.nemesis
        if nemesis.strikes("webhook_lost"):
            return
        for _ in range(2 if nemesis.strikes("webhook_doubled") else 1):
            wait = nemesis.between(*(_LATE if nemesis.strikes("webhook_late") else _USUAL))
            world.loop.later_outside(wait, self._arrives, json.dumps(said).encode())

    def _arrives(self, body: bytes) -> None:
        world = self._world
        if not world.edge.dead and not world.out:
            world.edge.start(_kept(body))


def _kept(body: bytes) -> Callable[[Process], Coroutine[Any, Any, None]]:
    """What `web/webhooks.py` does with a body."""

    async def job(process: Process) -> None:
        try:
            one = webhook.read("application/json", body)
        except Unreadable:
            process.world.tallies["webhook:unreadable"] += 1
            return
        if await asyncio.to_thread(receive_webhook, process.book, one):
            process.world.tallies["webhook:kept"] += 1

    return job
