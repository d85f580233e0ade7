"""A real browser, shared by the tests of one file.

Playwright's loop runs in the thread of the tests for as long as the browser lives, so nothing in
this folder may call `asyncio.run` there: servers run as processes or in threads of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Error,
    Playwright,
    expect,
    sync_playwright,
)

from tests.browser.chromium import ARGUMENTS, NoBrowser, check_driver, executable

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

# Milliseconds before a page is taken to be broken: far more than a loaded machine needs.
PATIENCE = 30_000

NewContext = Callable[..., BrowserContext]


# A module at a time: the loop must be gone before other tests come to this process.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium. Who can install none goes without, but for BROWSER_TESTS=required."""
    expect.set_options(timeout=PATIENCE)
    with ExitStack() as stack:
        try:
            check_driver()
            playwright = stack.enter_context(sync_playwright())
            started = _launched(playwright)
        except NoBrowser as reason:
            if os.environ.get("BROWSER_TESTS") == "required":
                raise
            pytest.skip(str(reason))
        yield started
        started.close()


def _launched(playwright: Playwright) -> Browser:
    arguments = list(ARGUMENTS)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # Chromium has no sandbox for root; it opens pages of this machine only.
        arguments.append("--no-sandbox")
    program = executable(playwright.chromium.executable_path)
    try:
        return playwright.chromium.launch(executable_path=program, args=arguments)
    except Error as error:
        raise NoBrowser(f"{program} does not start: {error.message}") from error


@pytest.fixture
def new_context(browser: Browser) -> Iterator[NewContext]:
    """Makes a fresh visitor: `new_context(locale="ko-KR", viewport=PHONE)`."""
    opened: list[BrowserContext] = []

    def make(**options: object) -> BrowserContext:
        settings = {"viewport": DESKTOP, "locale": "en-GB", **options}
        context = browser.new_context(**settings)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        opened.append(context)
        return context

    yield make
    for context in opened:
        context.close()
