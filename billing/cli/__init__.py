"""`maewol`: the same use cases by hand.

Exit codes: 0 done, 1 the work failed or found something wrong, 2 the call or the settings are
wrong. With `--json` stdout holds one JSON document and nothing else.
"""

from __future__ import annotations

import sys

from billing.cli.commands import app
from billing.domain.errors import BillingError, InvalidSetting


def main() -> None:
    """Run the command line; every expected failure is one clear line on stderr."""
    try:
        app()
    except InvalidSetting as error:
        _fail(str(error), 2)
    except BillingError as error:
        _fail(str(error), 1)
    except Exception as error:
        if not type(error).__module__.startswith("sqlalchemy."):
            raise
        # Never the error's own text: it may hold rows of people's data.
        _fail(_database_problem(error), 1)


def _database_problem(error: Exception) -> str:
    origin = type(getattr(error, "orig", None) or error).__name__
    if origin == "UndefinedTable":
        return "the database has no schema yet. Run: maewol db upgrade"
    return f"the database could not be used ({origin}). Check MAEWOL_DATABASE_URL; maewol doctor"


def _fail(text: str, code: int) -> None:
    print(f"maewol: {text}", file=sys.stderr)
    raise SystemExit(code)
