"""The pictures of docs/console.md, taken anew: `python -m tests.browser.pictures`. A minute."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from billing.embedded import running
from billing.store import schema
from billing.store.session import create_book_engine
from tests.browser.chromium import ARGUMENTS, executable
from tests.browser.shop import a_shop
from tests.lived_in import number_of

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"


def main() -> None:
    """Live through the months, then look at three pages."""
    with tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        path.chmod(0o755)
        with running(path / "data", durable=False) as servers:
            engine = create_book_engine(servers.database_url or "")
            schema.upgrade(engine)
            engine.dispose()
            with a_shop(servers, servers.database_url or "") as shop:
                number = number_of(shop.book, "closing-soon")
                _take(shop.url, f"/subscriptions/{number}")


def _take(url: str, subscription: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(playwright.chromium.executable_path),
            args=[*ARGUMENTS, "--no-sandbox"],
        )
        for name, path, width, height, theme, locale in (
            ("console-today", "/", 1100, 800, "light", "en-GB"),
            ("console-today-ko", "/", 1100, 800, "light", "ko-KR"),
            ("console-subscription", subscription, 1100, 800, "dark", "en-GB"),
            ("console-phone", "/calendar", 390, 800, "light", "ko-KR"),
        ):
            context = browser.new_context(
                viewport={"width": width, "height": height}, locale=locale, color_scheme=theme
            )
            page = context.new_page()
            page.goto(f"{url}{path}")
            page.screenshot(path=FOLDER / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
