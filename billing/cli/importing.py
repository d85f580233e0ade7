"""`maewol subscription import`: the file, the progress bar, and the gateway where it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from billing.bootstrap import House, gateway
from billing.cli.output import err
from billing.domain.enrolment import Misfit
from billing.domain.errors import GatewayError
from billing.domain.payment import Payment
from billing.domain.subscription import NewSubscription
from billing.services.enrol import verify_at_gateway
from billing.services.import_subscriptions import ImportReport, import_subscriptions


def run(
    house: House, path: Path, *, dry_run: bool, skip_bad: bool, verify: bool, notify: bool
) -> ImportReport:
    """Import a file with a progress bar on stderr. Raises `GatewayError` when it must be asked."""

    def at_gateway(incoming: Sequence[NewSubscription]) -> Sequence[Misfit | Payment]:
        async def ask() -> list[Misfit | Payment]:
            async with gateway(house.settings, broker_url=house.broker_url) as client:
                return await verify_at_gateway(client, incoming)

        try:
            return anyio.run(ask)
        except GatewayError as error:
            raise type(error)(
                f"the gateway could not be asked about the file ({error}); nothing was written."
                " Check MAEWOL_PORTONE_API_URL, the key and the secret: maewol doctor"
            ) from error

    columns = (SpinnerColumn(), TextColumn("{task.completed} lines"), BarColumn())
    with (
        path.open("rb") as file,
        Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as bar,
    ):
        task = bar.add_task("import", total=None)
        return import_subscriptions(
            house.book,
            house.policy,
            house.installation_key,
            file,
            dry_run=dry_run,
            skip_bad=skip_bad,
            verify=at_gateway if verify else None,
            notify=notify,
            progress=lambda read: bar.update(task, completed=read),
        )
