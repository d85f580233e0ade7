"""Why the database could not be used, in words of ours.

Never the error's own text: it may hold an address with its password, or rows of people's data.
"""

from __future__ import annotations

# What libpq and PostgreSQL say, and what we make of it. The first that fits.
_KNOWN = (
    ("password authentication failed", "user or password are refused"),
    ("no password supplied", "it wants a password"),
    ("no pg_hba.conf entry", "this host may not log in"),
    ("Connection refused", "nothing listens at that address"),
    ("resolve host", "the host's name is not known"),
    ("translate host name", "the host's name is not known"),
    ("No such file or directory", "no server has a socket there"),
    ("timeout expired", "no answer in time"),
    ("No route to host", "the host cannot be reached"),
    ("too many clients", "it has no connection left"),
    ("remaining connection slots", "it has no connection left"),
    ("starting up", "it is starting up"),
    ("shutting down", "it is shutting down"),
    ("SSL", "the encrypted connection failed"),
)


def why(error: Exception) -> str:
    """The reason, as far as it is known; else the error's name."""
    origin = getattr(error, "orig", None) or error
    text = str(origin)
    for phrase, reason in _KNOWN:
        if phrase in text:
            return reason
    if "database" in text and "does not exist" in text:
        return "there is no database of that name"
    return type(origin).__name__
