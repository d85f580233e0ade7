"""Buyer data with enough left out that it tells nobody's secret over a shoulder."""

from __future__ import annotations

_STARS = "***"


def name(value: str | None) -> str | None:
    """The first character: 홍길동 becomes 홍***."""
    return value and value[0] + _STARS


def email(value: str | None) -> str | None:
    """The first character and the domain's ending."""
    if not value:
        return value
    local, _, domain = value.partition("@")
    ending = domain.rpartition(".")[2]
    return f"{local[:1]}{_STARS}@{_STARS}.{ending}" if domain else local[:1] + _STARS


def tel(value: str | None) -> str | None:
    """The last two digits."""
    return value and f"{_STARS}-****-**{value[-2:]}"
