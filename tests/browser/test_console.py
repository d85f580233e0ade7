"""An operator at the console, in a real browser: walks through every page, at a desk and by phone,
in both languages and themes, and acts. Nothing may be out of reach, of view or complained about.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from billing.embedded import Servers
from tests.browser.conftest import DESKTOP, PHONE, NewContext
from tests.browser.shop import Shop, a_shop
from tests.builders import query
from tests.conftest import a_database
from tests.lived_in import HOSTILE, number_of

# The months that pass before the first page is opened, on a busy machine.
pytestmark = pytest.mark.timeout(300)

PASSWORD = "correct horse battery staple"
READERS = {
    "desk, English, light": {"viewport": DESKTOP, "locale": "en-GB", "color_scheme": "light"},
    "phone, Korean, dark": {"viewport": PHONE, "locale": "ko-KR", "color_scheme": "dark"},
}


@pytest.fixture(scope="module")
def shop(servers: Servers, _template: str) -> Iterator[Shop]:
    with a_database(servers, _template) as url, a_shop(servers, url) as opened:
        yield opened


class Watched:
    """A page whose every complaint is kept."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._said)
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{self.page.url}: {message.text}")

    def go(self, path: str) -> Page:
        self.page.goto(f"{self.url}{path}")
        return self.page


@pytest.fixture
def watch(shop: Shop, new_context: NewContext) -> Iterator[Any]:
    """Opens a watched page; at the end nobody may have complained."""
    opened: list[Watched] = []

    def make(url: str = shop.url, **options: Any) -> Watched:
        opened.append(Watched(new_context(**options).new_page(), url))
        return opened[-1]

    yield make
    assert [line for one in opened for line in one.complaints] == []


def _pages(shop: Shop) -> list[str]:
    soon, paid = number_of(shop.book, "closing-soon"), number_of(shop.book, "recovered")
    ((merchant_uid, imp_uid),) = query(
        shop.book,
        "SELECT paid_merchant_uid, paid_imp_uid FROM cycles WHERE subscription_id = :id"
        " AND number = 2",
        id=paid,
    )
    return [
        "/",
        "/calendar",
        "/money",
        "/forecast",
        "/subscriptions",
        "/cycles?show=open",
        "/events",
        "/differences",
        "/notices",
        "/system",
        "/system/stop",
        "/system/invariants",
        f"/subscriptions/{soon}",
        f"/subscriptions/{soon}/do/pause",
        f"/subscriptions/{number_of(shop.book, 'twice')}/gateway",
        f"/subscriptions/{paid}/refund?merchant_uid={merchant_uid}&imp_uid={imp_uid}",
        f"/subscriptions/{number_of(shop.book, HOSTILE[0])}",
    ]


@pytest.mark.parametrize("reader", READERS)
def test_every_page_can_be_read_by_everybody(shop: Shop, watch: Any, reader: str) -> None:
    """No complaint of the browser, nothing wider than the screen, nothing that axe finds."""
    options: dict[str, Any] = READERS[reader]
    visitor, axe, problems = watch(**options), Axe(), list[str]()
    for path in _pages(shop):
        page = visitor.go(path)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= options["viewport"]["width"], path
        for details in page.locator("details").all():
            details.evaluate("one => { one.open = true }")
        found = axe.run(page)
        if found.violations_count:
            problems.append(f"{path}: {found.generate_report()}")
        broken = "[...document.images].filter(one => !one.naturalWidth).map(one => one.src)"
        assert page.evaluate(broken) == [], path
        assert page.locator("h1").count() == 1, path
    assert problems == []


def test_the_keyboard_is_enough(shop: Shop, watch: Any) -> None:
    page = watch().go("/")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.goto(f"{shop.url}/subscriptions")
    page.locator("#q").focus()
    page.keyboard.type("paused")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("paused")
    resume = page.get_by_role("link", name="Resume")
    resume.focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_subscription_is_paused_and_resumed(shop: Shop, watch: Any) -> None:
    page = watch(locale="ko-KR").go("/subscriptions?q=customer-003")
    page.get_by_role("link", name="일시 중지").click()
    expect(page.locator(".notice-warning")).to_contain_text("전에 재개하십시오")
    page.get_by_role("button", name="일시 중지하기").click()
    expect(page.get_by_role("status")).to_contain_text("일시 중지했습니다")
    expect(page.locator("h1")).to_contain_text("일시 중지")
    page.get_by_role("link", name="재개").click()
    page.get_by_role("button", name="재개하기").click()
    expect(page.get_by_role("status")).to_contain_text("재개했습니다")
    page.reload()
    expect(page.get_by_role("status")).to_have_count(0)


def test_a_retry_is_told_why_not(shop: Shop, watch: Any) -> None:
    page = watch().go(f"/subscriptions/{number_of(shop.book, 'closing-soon')}")
    page.get_by_role("link", name="Retry at the next slot").click()
    page.get_by_role("button", name="Plan an attempt").click()
    expect(page.get_by_role("status")).to_contain_text("waits already")
    expect(page.get_by_role("status")).to_contain_text("2026-11-20 18:00")


def test_the_gateway_tells_what_became_of_it(shop: Shop, watch: Any) -> None:
    number = number_of(shop.book, "unknown")
    page = watch().go(f"/subscriptions/{number}")
    expect(page.locator(".why")).to_contain_text("asked what became of attempt 1")
    page.get_by_role("link", name="Ask the gateway now").click()
    page.get_by_role("button", name="Ask now").click()
    expect(page.get_by_role("status")).to_contain_text("It was paid")
    page.get_by_role("link", name="Gateway's view").click()
    expect(page.locator("table")).to_contain_text("agree")
    expect(page.locator("table")).not_to_contain_text("differ")


def test_a_second_payment_is_given_back(shop: Shop, watch: Any) -> None:
    page = watch().go(f"/subscriptions/{number_of(shop.book, 'twice')}/gateway")
    row = page.locator("tr", has_text="not in the book")
    row.get_by_role("link", name="Refund").click()
    expect(page.locator(".notice-warning")).to_contain_text("stays paid by another payment")
    page.get_by_label("Reason").fill("paid twice")
    page.get_by_role("button", name="Refund ₩").click()
    expect(page.get_by_role("status")).to_contain_text("given back")


def test_all_charging_stops_and_starts(shop: Shop, watch: Any) -> None:
    page = watch().go("/system")
    page.get_by_role("link", name="Stop all charging").click()
    page.get_by_label("Why").fill("prices are wrong")
    page.get_by_label("Type").fill("stop")
    page.get_by_role("button", name="Stop all charging").click()
    page.goto(f"{shop.url}/money")
    expect(page.locator(".notice-bad")).to_contain_text("prices are wrong")
    page.get_by_role("link", name="Start charging again").click()
    page.get_by_label("Type").fill("start")
    page.get_by_role("button", name="Start charging").click()
    expect(page.locator(".standing")).to_contain_text("Charging is on")


def test_a_buyer_is_shown_once(shop: Shop, watch: Any) -> None:
    page = watch().go(f"/subscriptions/{number_of(shop.book, 'retrying')}")
    expect(page.locator("main")).not_to_contain_text("홍길동")
    page.get_by_role("button", name="Show; this is recorded").click()
    expect(page.locator("main")).to_contain_text("홍길동")
    expect(page.locator(".timeline")).to_contain_text("Buyer data was shown")


def test_today_keeps_itself_up_to_date(shop: Shop, watch: Any) -> None:
    """What changed is exchanged; whoever stands on a link stays there."""
    visitor = watch()
    visitor.page.clock.install()
    page = visitor.go("/")
    link = page.locator("#s-closing ~ * a").first
    link.focus()
    seen = page.locator("footer time").inner_text()
    # The server's own clock, which the page shows to the second.
    time.sleep(1.1)
    page.clock.fast_forward(21_000)
    expect(page.locator("footer time")).not_to_have_text(seen)
    expect(link).to_be_focused()
    switch = page.get_by_role("button", name="Refresh by itself")
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "false")


def test_language_and_theme_are_chosen(shop: Shop, watch: Any) -> None:
    page = watch().go("/cycles?show=held")
    page.get_by_role("button", name="한국어").click()
    assert page.url.endswith("/cycles?show=held")
    expect(page.locator("h1")).to_have_text("회차")
    page.get_by_role("button", name="어둡게").click()
    expect(page.locator("html[data-theme=dark] footer")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"


def test_a_file_is_downloaded(shop: Shop, watch: Any) -> None:
    page = watch().go("/cycles?show=paid")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as CSV").click()
    assert download.value.suggested_filename == "maewol-cycles.csv"


def test_everything_works_without_scripts(shop: Shop, watch: Any) -> None:
    page = watch(java_script_enabled=False).go("/subscriptions?q=customer-007")
    page.get_by_role("link", name="Pause").click()
    page.get_by_role("button", name="Pause it").click()
    expect(page.get_by_role("status")).to_contain_text("Paused.")


def test_a_password_opens_the_door(shop: Shop, watch: Any) -> None:
    with shop.another(console_password=PASSWORD) as url:
        visitor = watch(url)
        page = visitor.go("/cycles?show=held")
        expect(page.locator("h1")).to_have_text("Sign in")
        page.get_by_label("Password of the console").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not the password")
        assert Axe().run(page).violations_count == 0
        # The browser says so of every answer that is not good.
        visitor.complaints = [one for one in visitor.complaints if "403" not in one]
        page.get_by_label("Password of the console").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Cycles")
        page.get_by_role("button", name="Sign out").click()
        page.goto(f"{url}/")
        expect(page.locator("h1")).to_have_text("Sign in")
