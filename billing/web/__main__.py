"""`python -m billing.web --host 127.0.0.1 --port 8000`: what `maewol web` runs."""

from __future__ import annotations

import argparse
import socket
import sys

import structlog
import uvicorn

from billing import logs, telemetry
from billing.bootstrap import house
from billing.domain.errors import BillingError, InvalidInput
from billing.settings import Settings
from billing.store import schema
from billing.web.app import create_app
from billing.web.patience import PatientProtocol

_log = structlog.get_logger(__name__)
# Requests of one process at once; more are turned away at once instead of waiting in memory.
MOST_CONNECTIONS = 400
GRACE_SECONDS = 20
# Longer than any request of ours with all its cookies; memory for it is set aside before we know.
LARGEST_HEAD = 16 * 1024


def main(arguments: list[str]) -> None:
    """Serve until a signal; a wrong call or setting is one clear line and exit 2."""
    parser = argparse.ArgumentParser(prog="maewol web")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    asked = parser.parse_args(arguments)
    try:
        serve(asked.host, asked.port)
    except BillingError as error:
        print(f"maewol: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def serve(host: str, port: int) -> None:
    """Serve until a signal. Raises `InvalidSetting`, `InvalidInput` for an address it cannot have,
    `EmbeddedServerError`."""
    settings = Settings.load()
    logs.configure(settings.log_format, settings.log_level)
    telemetry.start(settings, "maewol-web")
    with _listening(host, port) as listening, house(settings) as opened:
        if settings.database_url is None and not schema.fits(opened.engine):
            schema.upgrade(opened.engine)
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(opened),
                # Our own logging, and no line that names a path: paths hold `customer_uid`s.
                log_config=None,
                access_log=False,
                server_header=False,
                # Believed only of the proxies that are named (`create_app`).
                proxy_headers=False,
                limit_concurrency=MOST_CONNECTIONS,
                http=PatientProtocol,
                h11_max_incomplete_event_size=LARGEST_HEAD,
                ws="none",
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        shown = f"[{host}]" if ":" in host else host
        _log.info("listening", url=f"http://{shown}:{listening.getsockname()[1]}")
        server.run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise InvalidInput(
            "--port", f"{host}:{port}", f"cannot be listened on ({error})", "Choose another"
        ) from None


if __name__ == "__main__":
    main(sys.argv[1:])
