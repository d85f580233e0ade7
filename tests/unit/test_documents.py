"""Documents that people rely on: links lead somewhere, and the two languages say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from billing.settings import Settings

ROOT = Path(__file__).parents[2]
PAIRS = [
    ("README.md", "README.ko.md"),
    ("docs/operating.md", "docs/operating.ko.md"),
    ("docs/notices.md", "docs/notices.ko.md"),
    ("docs/checkout.md", "docs/checkout.ko.md"),
    ("docs/deploying.md", "docs/deploying.ko.md"),
    ("docs/runbook.md", "docs/runbook.ko.md"),
    ("docs/console.md", "docs/console.ko.md"),
    ("docs/watching.md", "docs/watching.ko.md"),
    ("docs/quickstart.md", "docs/quickstart.ko.md"),
    ("docs/concepts.md", "docs/concepts.ko.md"),
    ("docs/configuration.md", "docs/configuration.ko.md"),
    ("docs/upgrading.md", "docs/upgrading.ko.md"),
    ("docs/security.md", "docs/security.ko.md"),
    ("docs/faq.md", "docs/faq.ko.md"),
    ("docs/api.md", "docs/api.ko.md"),
    ("docs/backup.md", "docs/backup.ko.md"),
    ("docs/failover.md", "docs/failover.ko.md"),
    ("docs/rolling.md", "docs/rolling.ko.md"),
    ("docs/capacity.md", "docs/capacity.ko.md"),
]
_LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
_CODE = re.compile(r"`([^`\n]+)`")


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(document.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (document.parent / link).exists(), link


@pytest.mark.parametrize(("english", "korean"), PAIRS)
def test_both_languages_name_the_same_things(english: str, korean: str) -> None:
    """Commands, settings, columns and events: whatever stands in code type, and the headings."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in (english, korean)]
    assert len(re.findall(r"^## ", texts[0], re.M)) == len(re.findall(r"^## ", texts[1], re.M))
    named = [{word for span in _CODE.findall(text) for word in words(span)} for text in texts]
    assert named[0] == named[1]


def words(span: str) -> list[str]:
    """The words of a code span that are names: of commands, settings, columns, events."""
    return re.findall(r"[A-Za-z][A-Za-z_.-]+", re.sub(r"--why \"[^\"]*\"", "--why", span))


def test_what_the_code_cites_can_be_opened() -> None:
    """Pages, and the sections of the one that is cited by section."""
    sections = re.findall(r"^## (\d+)\.", (ROOT / "docs/gateway.md").read_text("utf-8"), re.M)
    cited: set[str] = set()
    for folder in ("billing", "scheduler", "worker", "migrations", "tests", "benchmarks", "tools"):
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            for page in re.findall(r"(?<![\w/.-])(?:docs/(?:adr/)?)?[\w-]+\.md\b", text):
                assert (ROOT / page).exists() or (ROOT / "docs" / page).exists(), page
            for named in re.findall(r"docs/gateway\.md((?:,?\s§\d+)+)", text):
                cited |= set(re.findall(r"\d+", named))
    assert len(cited) > 8
    assert cited <= set(sections)


def test_the_settings_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| `MAEWOL_…` |") :]
    table = table[: table.index("\n\n")]
    names = re.findall(r"`([A-Z_]{6,})`", table)
    assert len(names) >= 10
    assert {name.lower() for name in names} <= set(Settings.model_fields)
