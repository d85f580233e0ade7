"""`python -m billing.sandbox`: the sandbox without the rest of the product."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from billing.sandbox.clock import moment_of
from billing.sandbox.journal import LedgerFileError
from billing.sandbox.mood import FaultsError
from billing.sandbox.server import CallError, serve


def main() -> int:
    """Serve as the command line says; 2 when the call or a file is wrong."""
    parser = argparse.ArgumentParser(prog="python -m billing.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, help="decides all chance, and ids as well")
    parser.add_argument("--faults", type=Path, help="TOML or JSON: what goes wrong")
    parser.add_argument("--data", type=Path, help="ledger file, kept across restarts")
    parser.add_argument("--latency-ms", type=float, help="a fixed delay of every answer")
    parser.add_argument("--imp-key", help="accept only this REST API key")
    parser.add_argument("--imp-secret", help="accept only this secret")
    parser.add_argument("--at", type=_moment, help="the clock's first moment, with its offset")
    parser.add_argument("--notice-url", default="", help="where webhooks go")
    parser.add_argument("--notice-format", choices=("json", "form"), default="json")
    given = vars(parser.parse_args())
    try:
        serve(**given)
    except (FaultsError, LedgerFileError, CallError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _moment(text: str) -> datetime:
    try:
        return moment_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
