"""Lays one Compose file over another, as the Compose specification says ("Merge")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

# Replaced as a whole: a longer command is another command.
_WHOLE = frozenset({"command", "entrypoint", "test"})
# A list of `NAME=value` or a mapping, which are the same.
_PAIRS = frozenset({"environment", "labels", "extra_hosts", "args", "sysctls"})


class Reset:
    """`!reset`: what the files before said is taken away."""


class Override:
    """`!override`: takes the place of what the files before said."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Loader(yaml.SafeLoader):
    """Knows the two tags of Compose."""


def _value(loader: Any, node: yaml.Node) -> Any:
    match node:
        case yaml.SequenceNode():
            return loader.construct_sequence(node, deep=True)
        case yaml.MappingNode():
            return loader.construct_mapping(node, deep=True)
    return loader.construct_scalar(node)


_Loader.add_constructor("!reset", lambda *_: Reset())
_Loader.add_constructor("!override", lambda loader, node: Override(_value(loader, node)))


def loaded(path: Path) -> Any:
    """A Compose file, its tags included."""
    return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe one


def merged(below: Any, above: Any) -> Any:
    """What Compose reads of `-f below -f above`."""
    return _merge("", below, above)


def _merge(name: str, below: Any, above: Any) -> Any:
    if isinstance(above, Override):
        return above.value
    if name in _PAIRS:
        below, above = _pairs(below), _pairs(above)
    if name == "depends_on" and isinstance(below, dict) != isinstance(above, dict):
        below, above = _conditions(below), _conditions(above)
    match below, above:
        case dict(), dict():
            names = [*below, *(one for one in above if one not in below)]
            both = {one: _either(one, below, above) for one in names}
            return {one: value for one, value in both.items() if not isinstance(value, Reset)}
        case list(), list() if name not in _WHOLE:
            return _united(name, [*below, *above])
    return above


def _either(name: str, below: dict[str, Any], above: dict[str, Any]) -> Any:
    if name not in above:
        return below[name]
    if name in below:
        return _merge(name, below[name], above[name])
    # Nothing is below it, but a tag may stand within.
    nothing: dict[str, Any] | None = {} if isinstance(above[name], dict) else None
    return _merge(name, nothing, above[name])


def _pairs(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return {one.partition("=")[0]: one.partition("=")[2] for one in value}


def _conditions(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return {one: {"condition": "service_started"} for one in value}


def _united(name: str, entries: list[Any]) -> list[Any]:
    """All of them; of those that mean the same thing the last. A volume is known by its path in the
    container, a port by all that it says."""
    kept = {_known_by(name, entry): entry for entry in entries}
    return list(kept.values())


def _known_by(name: str, entry: Any) -> str:
    if name == "volumes":
        return str(entry["target"] if isinstance(entry, dict) else entry.split(":")[1])
    return str(entry)
