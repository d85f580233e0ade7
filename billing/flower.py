"""What Flower is given, whoever starts it: `celery -A worker flower` reads this before it begins.

One place, so that the bare command, `maewol up`, Compose, systemd and Kubernetes run the same
Flower: behind a password, looking and not touching, with its history kept (ADR 0011). All of it are
defaults; Flower's own FLOWER_… variables and options go before.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping, Sequence

from billing.domain.errors import InvalidSetting
from billing.loopback import is_loopback
from billing.settings import Settings

USER = "maewol"
# Its history is saved so often, and holds so many tasks: the last days of ticks, in a second.
_SAVED_EVERY_MILLISECONDS = 60_000
_MOST_TASKS = 10_000

_OPEN_API = "FLOWER_UNAUTHENTICATED_API"


def is_flower(arguments: Sequence[str]) -> bool:
    """Whether this is the command line of Flower: `celery -A worker flower …`."""
    return "flower" in arguments[1:]


def prepare(
    settings: Settings, arguments: Sequence[str], environ: MutableMapping[str, str]
) -> None:
    """Put Flower's defaults into its environment. Raises `InvalidSetting` for a Flower that
    everybody could use."""
    if environ.get(_OPEN_API):
        raise InvalidSetting(
            _OPEN_API, environ[_OPEN_API], "opens Flower's API to everybody", "Unset it"
        )
    given = _options(arguments, environ)
    for name in ("basic_auth", "auth"):
        if given.get(name) == "":
            # Of a shell's variable that is not set: Flower lets everybody in, from everywhere.
            raise InvalidSetting(f"--{name}", "", "blank", "Leave it out, or fill it")
    if not given.keys() & {"basic_auth", "auth"}:
        if settings.flower_password is None:
            _only_here(given, environ)
        else:
            password = settings.flower_password.get_secret_value()
            environ["FLOWER_BASIC_AUTH"] = f"{USER}:{password}"
    # A `flowerconfig.py` in its working folder would be run, and have the last word of all this.
    environ.setdefault("FLOWER_CONF", os.devnull)
    environ.setdefault("FLOWER_READ_ONLY", "true")
    # Its lines are our process's, in our format: Tornado's own would come beside ours, as text.
    environ.setdefault("FLOWER_LOGGING", "none")
    environ.setdefault("FLOWER_MAX_TASKS", str(_MOST_TASKS))
    _keep_history(settings, environ)


def _options(arguments: Sequence[str], environ: MutableMapping[str, str]) -> dict[str, str]:
    """What is set of Flower's options, the command line going before."""
    set_there = {
        name.removeprefix("FLOWER_").lower(): value
        for name, value in environ.items()
        if name.startswith("FLOWER_") and value
    }
    pairs = (one.lstrip("-").partition("=") for one in arguments if one.startswith("-"))
    return set_there | {name.replace("-", "_"): value for name, _, value in pairs}


def _only_here(given: dict[str, str], environ: MutableMapping[str, str]) -> None:
    """Without a password for this machine only, as the console; its API stays off then."""
    address = given.get("address") or environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
    if "unix_socket" in given or not is_loopback(address):
        raise InvalidSetting(
            "FLOWER_PASSWORD",
            None,
            "not set, and Flower was to listen for more than this machine",
            "Set MAEWOL_FLOWER_PASSWORD, or leave out the address",
        )


def _keep_history(settings: Settings, environ: MutableMapping[str, str]) -> None:
    """In a folder that nobody else can write: Flower believes what it finds in its file. Where
    there is none, it starts afresh each time."""
    folder = settings.data_dir / "flower"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    environ.setdefault("FLOWER_PERSISTENT", "true")
    environ.setdefault("FLOWER_DB", str(folder / "history"))
    environ.setdefault("FLOWER_STATE_SAVE_INTERVAL", str(_SAVED_EVERY_MILLISECONDS))
