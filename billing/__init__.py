"""Maewol's shared core: what a monthly phone-bill charge is, and everything it needs."""

__version__ = "0.1.0"
