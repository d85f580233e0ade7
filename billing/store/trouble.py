"""Why the database could not be used, in words of ours.

Never the error's own text: it may hold an address with its password, or rows of people's data.
"""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url

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
    ("permission denied", "its role may not do that"),
    ("must be owner", "its role may not change the schema"),
    ("SSL", "the encrypted connection failed"),
)


def why(error: Exception) -> str:
    """The reason, as far as it is known; else the error's name. With PostgreSQL's own code for it,
    where there is one: its documentation can be searched for that."""
    origin = getattr(error, "orig", None) or error
    state = getattr(origin, "sqlstate", None)
    return _reason(origin) + (f" (SQLSTATE {state})" if state else "")


def _reason(origin: BaseException) -> str:
    text = str(origin)
    for phrase, reason in _KNOWN:
        if phrase in text:
            return reason
    if "database" in text and "does not exist" in text:
        return "there is no database of that name"
    return type(origin).__name__


def servers(address: str | URL) -> str:
    """The hosts and ports of a database's address, and nothing else of it."""
    url = make_url(address)
    named = [one for part in url.normalized_query.get("host", ()) for one in part.split(",")]
    if not named and url.host:
        named = [url.host if url.port is None else f"{url.host}:{url.port}"]
    # An @ that was not written as %40 leaves the end of the password before the host.
    return ", ".join(one.rpartition("@")[2] for one in named)
