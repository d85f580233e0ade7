"""Cells that no spreadsheet runs, masks, formats, addresses of Flower."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
from flower.utils.search import TaskSearchEngine

from billing.cli import up
from billing.domain.errors import InvalidSetting
from billing.domain.refund import month_before
from billing.presenting.cells import safe
from billing.presenting.formats import Formats
from billing.presenting.texts import Texts
from billing.settings import Settings
from billing.web.console import masks
from billing.web.console.asked import month_asked
from billing.web.console.subscription import flower_link

SEOUL = ZoneInfo("Asia/Seoul")
AT = datetime(2026, 11, 20, 1, 5, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    "cell",
    [
        '=HYPERLINK("http://evil.example")',
        "+82 10",
        "-1",
        "@SUM(A1)",
        "  =1+1",
        "\t=1",
        "\r\n=1",
        "＝1",
        "＋1",
        "\u202e=1",
        "\u200d=1",
        "\u3000\u200c =1",
    ],
)
def test_no_cell_is_a_formula(cell: str) -> None:
    shown = safe(cell)
    assert isinstance(shown, str)
    assert shown.startswith("'")
    assert shown.replace("\u200c", "").replace("\u200d", "").isprintable()


def test_other_cells_are_left_alone() -> None:
    assert [safe(one) for one in ("홍길동", 'a "b", c', 9900, None, date(2026, 11, 20), AT)] == [
        "홍길동",
        'a "b", c',
        9900,
        "",
        "2026-11-20",
        "2026-11-20T01:05:09+00:00",
    ]


def test_buyers_are_masked() -> None:
    assert masks.name("홍길동") == "홍***"
    assert masks.email("gildong@example.com") == "g***@***.com"
    assert masks.email("odd") == "o***"
    assert masks.tel("010-1234-5678") == "***-****-**78"
    assert masks.name(None) is masks.email(None) is masks.tel("" or None) is None


def test_people_read_seoul_and_won() -> None:
    en, ko = (Formats(Texts(language), SEOUL) for language in ("en", "ko"))
    assert (en.won(1234567), ko.won(1234567), en.won(None)) == ("₩1,234,567", "1,234,567원", "–")
    assert str(en.moment(AT)) == (
        '<time datetime="2026-11-20T10:05:09+09:00">2026-11-20 10:05</time>'
    )
    assert en.readable("at 2026-11-20T01:05:09+00:00.") == "at 2026-11-20 10:05."
    assert ko.left(AT + timedelta(hours=13, minutes=52), AT) == "13시간 52분"
    assert en.left(AT - timedelta(hours=1), AT) == "0 s"
    assert en.span(timedelta(days=2, hours=3)) == "2 d 3 h"
    assert en.percent(1, 4) == "25.0%"
    assert en.word("status", "a_new_word") == "a_new_word"


def test_months_that_are_asked_for() -> None:
    today = date(2026, 1, 15)
    assert month_asked("2025-02", today) == date(2025, 2, 1)
    for nonsense in (None, "", "2025", "2025-13", "x-y", "0001-01", "2025-02-30", "99999-01"):
        assert month_asked(nonsense, today) == date(2026, 1, 1)
    assert month_before(date(2026, 1, 1)) == date(2025, 12, 1)
    assert month_before(date(2026, 12, 1)) == date(2026, 11, 1)


class _Task:
    name, state, kwargs = "maewol.charge", "SUCCESS", "{}"

    def __init__(self, uuid: str, ids: list[int]) -> None:
        self.uuid = uuid
        self.args = repr((ids,))


@pytest.mark.parametrize("ids", [[7], [7, 8], [1, 7], [1, 7, 9]])
def test_flower_finds_the_task_of_an_attempt(ids: list[int]) -> None:
    link = flower_link("http://flower", 7)
    assert link is not None
    (name,) = parse_qs(urlsplit(link).query)["name"]
    flower = TaskSearchEngine()
    flower.upsert(_Task("the one", ids))
    flower.upsert(_Task("another", [17, 70, 177]))
    # What Flower's own page makes of the address.
    assert flower.matching_ids(f"name:{name}") == {"the one"}
    assert flower_link(None, 7) is None


def test_the_console_of_one_machine_links_to_its_flower() -> None:
    assert up.web(8000, 5555).env == {"MAEWOL_FLOWER_URL": "http://127.0.0.1:5555"}
    assert up.web(8000).env is None


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("http://127.0.0.1:5555/", True),
        ("https://flower.example/ops", True),
        ("https://user:hunter2@flower.example", False),
        ("javascript:alert(1)", False),
        ("flower.example", False),
        ("https://[", False),
    ],
)
def test_flowers_address_is_one_that_a_browser_can_open(value: str, good: bool) -> None:
    if good:
        assert Settings.load(flower_url=value).flower_url == value.rstrip("/")
    else:
        with pytest.raises(InvalidSetting, match="FLOWER_URL") as refused:
            Settings.load(flower_url=value)
        assert "hunter2" not in str(refused.value)
