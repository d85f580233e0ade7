"""What a call is given: nothing that is empty, where a variable of the shell was not set.

`maewol release "$CUSTOMER"` must not mean whatever an empty text happens to mean, and a folder that
is named so must not be the one that somebody stands in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from billing.domain.errors import InvalidInput

F = TypeVar("F", bound=Callable[..., Any])


class Commands(typer.Typer):
    """Commands that refuse what is empty."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        return super().command(name, **{"cls": _Command, **options})


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises `InvalidInput`. Looked at as it was typed: an empty path would become the folder
        of the caller, and an empty number would be refused without a remedy."""
        typed, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for one in [] if typed.get("help") else self.params:
            value = typed.get(one.name or "")
            empty = value == "" or (isinstance(value, list | tuple) and "" in value)
            # The same as to leave it out, where that means an empty text.
            if empty and one.default != "":
                raise InvalidInput(one.opts[0], "", "is empty", _remedy(one))
        return super().parse_args(ctx, args)


def _remedy(one: Any) -> str:
    said = "Give it a value" if one.required else "Give it a value, or leave it out"
    return f"{said}; perhaps a variable of the shell is not set"
