"""What a customer does: fills the checkout form, and walks through the payment window."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import BrowserContext, FrameLocator, Page

from tests.browser.conftest import PHONE

ANDROID = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/126.0 Mobile Safari/537.36"
)
A_PHONE: dict[str, Any] = {
    "viewport": PHONE,
    "user_agent": ANDROID,
    "is_mobile": True,
    "has_touch": True,
}
CODE_TEXT = "#sms_code"

Window = FrameLocator | Page


class Visitor:
    """One customer with one tab; `errors` are what its pages complained of."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page = context.new_page()
        self.url = url
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._heard)

    def order(self, name: str = "Kim Maewol") -> None:
        """Fill the form and press the button."""
        self.page.goto(f"{self.url}/checkout")
        self.page.fill("#buyer_name", name)
        self.page.fill("#buyer_email", "kim@example.com")
        self.page.fill("#buyer_tel", "010-1234-5678")
        self.page.click("#checkout button")

    @property
    def frame(self) -> FrameLocator:
        """The window over the page of a PC."""
        return self.page.frame_locator("iframe")

    def identify(self, window: Window, *, now: str = "", later: str = "") -> None:
        """The window's first page, with what shall happen."""
        window.locator("label.choice").first.click()
        window.locator("#number").fill("010-9876-5432")
        window.locator("[name=birth]").fill("900101")
        window.locator("[name=digit]").fill("1")
        window.locator("#agree_all").check()
        if now or later:
            window.locator("summary").click()
        if now:
            window.locator("#now").select_option(now)
        if later:
            window.locator("#later").select_option(later)
        window.get_by_role("button", name="Send me a code").click()

    def confirm(self, window: Window) -> None:
        """The second page, with the code of the text message."""
        window.locator("#code").fill(window.locator(CODE_TEXT).inner_text())
        window.get_by_role("button", name="Pay 9,900").click()

    def pay(self, *, now: str = "", later: str = "") -> None:
        """Through the window of a PC, and back."""
        self.identify(self.frame, now=now, later=later)
        self.confirm(self.frame)
        self.frame.locator("[data-back]").click()

    def _heard(self, message: Any) -> None:
        # A form that is answered with 4xx is what some of these customers are about.
        if message.type == "error" and "status of 4" not in message.text:
            self.errors.append(message.text)
