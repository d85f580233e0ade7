"""Both ends of the notices: the queue that they wait in, and whoever receives them."""

from __future__ import annotations

from typing import Any

from billing.domain.delivery import Delivered
from billing.domain.notice import Outgoing


class Post:
    """A queue of notices, and a receiver that takes them."""

    def __init__(self) -> None:
        self.due: list[int] = []

    def notify(self, notice_ids: Any) -> None:
        self.due = list(notice_ids)

    def notify_soon(self) -> None:
        """The test says when."""

    async def send(self, notice: Outgoing) -> Delivered:
        return Delivered(200)

    async def aclose(self) -> None:
        """Nothing is open."""
