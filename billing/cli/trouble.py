"""What an exception means to the person at the command line: one line, and the exit code."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from billing.domain.errors import BillingError, InvalidInput, Unconfirmed


@dataclass(frozen=True, slots=True)
class Trouble:
    """An expected failure. `details` go into the JSON document; `usage` prints the call's help."""

    text: str
    code: int
    details: dict[str, Any] = field(default_factory=dict)
    usage: Exception | None = None


_NO_TEXT = (
    "an argument is not UTF-8. Set the terminal to UTF-8 and type it again."
    " 인수가 UTF-8이 아닙니다. 터미널을 UTF-8로 설정하고 다시 입력하십시오"
)


def describe(error: Exception) -> Trouble | None:
    """The trouble behind an exception; None for one that nobody expected: a bug, with traceback."""
    match error:
        case InvalidInput() | Unconfirmed():
            details = {"field": error.field, "value": error.value, "remedy": error.remedy}
            return Trouble(str(error), 2 if isinstance(error, InvalidInput) else 1, details)
        case BillingError():
            return Trouble(str(error), 1)
        case UnicodeEncodeError() if "\ud800" <= error.object[error.start] <= "\udfff":
            # How Python keeps the bytes of an argument that are no text in the terminal's encoding.
            return Trouble(_NO_TEXT, 2)
        case OSError():
            return Trouble(f"{error.filename or 'the output'}: {error.strerror or error}", 1)
    # By name, since typer carries a click of its own, and commands without a database load none.
    if hasattr(error, "format_message"):
        return Trouble(error.format_message(), 2, _named(error), usage=error)
    family = type(error).__module__.partition(".")[0]
    if family in ("typer", "click") and type(error).__name__ == "Abort":
        # Ctrl-C or Ctrl-D at a question; all of them are asked before anything is done.
        return Trouble("no answer; nothing was done. 답이 없어 실행하지 않았습니다", 1)
    if family == "sqlalchemy":
        return Trouble(_database(error), 1)
    if family in ("redis", "kombu"):
        # Never the error's own text: it may hold the address with its password.
        return Trouble(
            f"the broker could not be used ({type(error).__name__}). Check MAEWOL_BROKER_URL", 1
        )
    return None


def tell(found: Trouble) -> None:
    """Say it on stderr."""
    if found.usage is not None:
        from typer.rich_utils import rich_format_error

        rich_format_error(found.usage)  # type: ignore[arg-type]
    else:
        print(f"maewol: {found.text}", file=sys.stderr)


def _named(error: Exception) -> dict[str, Any]:
    """Which part of the call is wrong, where the parser says so."""
    options = getattr(getattr(error, "param", None), "opts", None)
    return {"field": options[0]} if options else {}


def _database(error: Exception) -> str:
    from billing.store.trouble import why

    origin = type(getattr(error, "orig", None) or error).__name__
    if origin == "UndefinedTable":
        return "the database has no schema yet. Run: maewol db upgrade"
    return (
        f"the database{_where()} could not be used: {why(error)}."
        " Check MAEWOL_DATABASE_URL; maewol doctor"
    )


def _where() -> str:
    """Which servers the settings name; the private one needs no name."""
    from billing.settings import Settings
    from billing.store.trouble import servers

    try:
        url = Settings.load().database_url
    except InvalidInput:  # changed since the command began
        return ""
    named = servers(url.get_secret_value()) if url else ""
    return f" at {named}" if named else ""
