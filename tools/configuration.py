"""Writes docs/configuration.md and docs/configuration.ko.md from billing/settings.py.

    python tools/configuration.py            writes them
    python tools/configuration.py --check    exit 1 where one is stale

Names, types, defaults and bounds are read from `Settings` itself; what they mean, in both
languages, stands in docs/configuration.toml and nowhere else.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from billing.settings import Settings, is_secret

DOCS = Path(__file__).parent.parent / "docs"

_HEAD = {
    "en": """# Configuration

[한국어](configuration.ko.md)

Every setting, from `billing/settings.py`; this page comes from `tools/configuration.py`. Settings
are read from the environment, then from the file `.env` of the folder in which a process starts.
Every name carries the prefix `MAEWOL_`. A **secret** `X` may also come from a file: `MAEWOL_X_FILE`
names its path. An empty value counts as not set. A wrong one stops the process at start with its
name, its value (secrets masked) and the remedy; `maewol doctor` shows what is in effect.
Nothing reads a misspelt name: `doctor` and the daemons' log ask whether
`MAEWOL_CHARGE_PER_SECOND` was meant to be `MAEWOL_CHARGES_PER_SECOND`.
""",
    "ko": """# 설정

[English](configuration.md)

`billing/settings.py`의 모든 설정입니다. 이 문서는 `tools/configuration.py`가 만듭니다.
설정은 환경 변수에서, 그다음 프로세스를 시작한 폴더의 `.env` 파일에서 읽습니다.
모든 이름 앞에는 `MAEWOL_`이 붙습니다. **비밀값** `X`는 파일로 줄 수도 있습니다.
`MAEWOL_X_FILE`에 경로를 적습니다. 빈 값은 설정하지 않은 것으로 봅니다.
값이 잘못되면 프로세스는 시작할 때 이름, 값(비밀값은 가림), 해결 방법을 알리고 멈춥니다.
적용 중인 값은 `maewol doctor`가 보여 줍니다. 철자가 틀린 이름은 무시됩니다. 예를 들어
`MAEWOL_CHARGE_PER_SECOND`라고 적으면 `doctor`와 데몬의 로그가
`MAEWOL_CHARGES_PER_SECOND`가 아닌지 묻습니다.
""",
}
_COLUMNS = {
    "en": ("setting", "kind", "default", "meaning"),
    "ko": ("설정", "종류", "기본값", "뜻"),
}
_WORDS = {
    "text": ("text", "문자열"),
    "whole": ("whole number", "정수"),
    "number": ("number", "숫자"),
    "switch": ("`true` or `false`", "`true` 또는 `false`"),
    "path": ("path", "경로"),
    "secret": ("**secret**", "**비밀값**"),
    "none": ("none", "없음"),
    "example": ("For example", "예"),
    "more": ("more than {}, ≤ {}", "{} 초과, {} 이하"),
    "form": ("form", "형식"),
    "characters": (" characters", "자"),
}


def documents() -> dict[str, str]:
    """Both pages by the name of their file. Raises `ValueError` for a setting without a text, and
    for a text without a setting."""
    sections = tomllib.loads((DOCS / "configuration.toml").read_text(encoding="utf-8"))
    told = [name for section in sections.values() for name in section if name != "title"]
    known = [name.upper() for name in Settings.model_fields]
    wrong = sorted({*told} ^ {*known}) + sorted({name for name in told if told.count(name) > 1})
    if wrong:
        raise ValueError(f"docs/configuration.toml and billing/settings.py differ in: {wrong}")
    return {
        "configuration.md": _page(sections, "en"),
        "configuration.ko.md": _page(sections, "ko"),
    }


def _page(sections: dict[str, Any], language: str) -> str:
    parts = [_HEAD[language]]
    for section in sections.values():
        lines = [f"## {section['title'][language]}", "", _line(_COLUMNS[language])]
        lines.append("|---|---|---|---|")
        lines += [
            _setting(name, text, language) for name, text in section.items() if name != "title"
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _setting(name: str, text: dict[str, Any], language: str) -> str:
    field = Settings.model_fields[name.lower()]
    example = text.get("example")
    meaning = text[language]
    if example is not None:
        meaning += f" {_word('example', language)}: `{example}`"
    cells = (f"`{name}`", _kind(name, field, language), _default(field, text, language), meaning)
    return _line(cells)


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _kind(name: str, field: FieldInfo, language: str) -> str:
    types = [one for one in get_args(field.annotation) if one is not NoneType]
    kind = types[0] if types and get_origin(field.annotation) is not Literal else field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(kind))
    if is_secret(name):
        return _word("secret", language)
    words = {int: "whole", float: "number", bool: "switch", str: "text", Path: "path"}
    assert kind is not SecretStr, f"{name} is a secret that cannot come from a file"  # noqa: S101
    return ", ".join([_word(words[kind], language), *_bounds(field, language)])


def _bounds(field: FieldInfo, language: str) -> list[str]:
    """What pydantic checks by itself; what depends on other settings stands in the meaning."""
    found = {
        name: getattr(one, name)
        for one in field.metadata
        for name in ("ge", "gt", "le", "min_length", "max_length", "pattern")
        if getattr(one, name, None) is not None
    }
    bounds = []
    if "ge" in found:
        bounds.append(f"{_number(found['ge'])}–{_number(found['le'])}")
    elif "gt" in found:
        bounds.append(_word("more", language).format(f"{found['gt']:g}", _number(found["le"])))
    if "max_length" in found:
        bounds.append(f"{found['min_length']}–{found['max_length']}{_word('characters', language)}")
    if "pattern" in found:
        bounds.append(f"{_word('form', language)} `{found['pattern']}`")
    return bounds


def _number(value: float) -> str:
    return f"{value:,g}" if value < 100_000 else f"{int(value):,}"


def _default(field: FieldInfo, text: dict[str, Any], language: str) -> str:
    if "default" in text:
        found: str = text["default"][language]
        return found
    value = field.default
    if value is None:
        return _word("none", language)
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{shown}`"


def _word(name: str, language: str) -> str:
    return _WORDS[name][language == "ko"]


def main(arguments: list[str]) -> int:
    """Write or compare; returns the exit code."""
    stale = 0
    for name, text in documents().items():
        path = DOCS / name
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"docs/{name} is stale: python tools/configuration.py", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
