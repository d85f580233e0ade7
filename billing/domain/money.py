"""Money: whole Korean won. There is no other currency and never a fraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

CURRENCY = "KRW"

# KG Mobilians takes no phone payment below this (docs/gateway.md §10, "minimum 301 KRW").
MINIMUM_CHARGE = 301


@dataclass(frozen=True, slots=True, order=True)
class Won:
    """A whole, non-negative amount of Korean won.

    Raises `TypeError` for anything but a plain int: a float loses won, and `True` is an int to
    Python but not to a bookkeeper. Raises `ValueError` below zero.
    """

    amount: int

    def __post_init__(self) -> None:
        if type(self.amount) is not int:
            raise TypeError(f"won are whole numbers, not {type(self.amount).__name__}")
        if self.amount < 0:
            raise ValueError(f"an amount of won cannot be negative: {self.amount}")

    def __add__(self, other: Self) -> Won:
        return Won(self.amount + other.amount)

    def __str__(self) -> str:
        return f"{self.amount:,} KRW"


@dataclass(frozen=True, slots=True)
class Sum:
    """So many payments, and the won they come to."""

    count: int = 0
    won: int = 0

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.count + other.count, self.won + other.won)

    def __sub__(self, other: Sum) -> Sum:
        return Sum(self.count - other.count, self.won - other.won)
