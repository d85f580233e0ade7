"""The checkout and its payment window in a real browser: on a PC, on a phone, and every bad end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from billing.domain.calendar import SEOUL
from billing.embedded import Servers
from billing.store import schema, views
from billing.store.session import create_book_engine
from tests.browser.conftest import NewContext
from tests.browser.stage import Stage, staged
from tests.browser.visitor import A_PHONE, CODE_TEXT, Visitor

AT = "2027-01-31T11:00:00+09:00"


@pytest.fixture(scope="module")
def stage(servers: Servers) -> Iterator[Stage]:
    """The edge and the sandbox, shared by the visitors of this file."""
    assert servers.database_url is not None
    assert servers.broker_url is not None
    admin = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE maewol_checkout"))
    url = make_url(servers.database_url).set(database="maewol_checkout")
    address = url.render_as_string(hide_password=False)
    engine = create_book_engine(address)
    schema.upgrade(engine)
    engine.dispose()
    with tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as folder:
        yield from _staged(address, servers.broker_url, Path(folder))
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE maewol_checkout WITH (FORCE)"))
    admin.dispose()


def _staged(address: str, broker_url: str, folder: Path) -> Iterator[Stage]:
    with staged(address, broker_url, folder, at=AT, billing=False) as made:
        yield made


def _amounts(stage: Stage) -> int:
    return len(stage.book.run(lambda tx: views.subscriptions(tx.session, SEOUL)))


def _accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_on_a_pc_by_keyboard_and_back(stage: Stage, new_context: NewContext) -> None:
    before = _amounts(stage)
    visitor = Visitor(new_context(), stage.url)
    page = visitor.page
    visitor.order()
    frame = visitor.frame
    frame.locator("#number").wait_for()
    # Typed without a mouse, from the window's first field on.
    frame.locator("[name=carrier]").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    assert frame.locator("#number").input_value() == "010-1234-5678"
    page.keyboard.press("Tab")
    page.keyboard.type("9001011", delay=5)
    frame.locator("[name=digit]").fill("1")
    frame.locator("#agree_all").focus()
    page.keyboard.press("Space")
    frame.locator("[name=digit]").press("Enter")
    visitor.confirm(frame)
    # The result has the focus, once its script ran: one key leads back.
    frame.locator(".end:has(.sign.good) .primary:focus").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**/checkout/done**")
    # Anchored to the 31st, it is charged early enough to leave days for retries.
    assert "26 February 2027" in page.inner_text("main")
    _accessible(page)
    assert _amounts(stage) == before + 1
    page.reload()
    assert "Thank you" in page.inner_text("h1")
    page.go_back()
    page.locator("#earlier").wait_for()
    page.click("#earlier a")
    page.wait_for_url("**/checkout/done**")
    assert _amounts(stage) == before + 1
    assert visitor.errors == []


def test_on_a_phone_in_korean_the_page_is_left_and_found_again(
    stage: Stage, new_context: NewContext
) -> None:
    before = _amounts(stage)
    dark = new_context(locale="ko-KR", color_scheme="dark", **A_PHONE)
    visitor = Visitor(dark, stage.url)
    page = visitor.page
    page.goto(f"{stage.url}/checkout")
    _accessible(page)
    visitor.order("김매월")
    page.wait_for_url(f"{stage.sandbox}/window/**")
    _accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("label.choice").first.tap()
    page.locator("[name=birth]").fill("000101")
    page.locator("[name=digit]").fill("4")
    page.locator("#agree_all").check()
    page.get_by_role("button", name="인증번호 요청").tap()
    page.locator("#code").wait_for()
    _accessible(page)
    page.locator("#code").fill(page.locator(CODE_TEXT).inner_text())
    page.get_by_role("button", name="9,900원 결제하기").tap()
    page.locator("a[data-back]").wait_for()
    _accessible(page)
    page.locator("a[data-back]").tap()
    page.wait_for_url("**/checkout/done**")
    assert "감사합니다" in page.inner_text("h1")
    _accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "010" not in page.url
    assert _amounts(stage) == before + 1
    assert visitor.errors == []


def test_given_up_then_declined_then_a_success_without_typing_again(
    stage: Stage, new_context: NewContext
) -> None:
    before = _amounts(stage)
    visitor = Visitor(new_context(), stage.url)
    page, frame = visitor.page, visitor.frame
    visitor.order()
    frame.locator("#number").wait_for()
    frame.locator("#number").press("Escape")
    page.locator("#news").get_by_text("[결제포기]").wait_for()
    assert page.locator("iframe").count() == 0
    page.click("#checkout button")
    visitor.pay(now="0024")
    page.locator("#news").get_by_text("[0024]").wait_for()
    page.click("#checkout button")
    visitor.identify(frame)
    for left in (2, 1):
        frame.locator("#code").fill("x")
        frame.get_by_role("button", name="Pay 9,900").click()
        frame.get_by_text(f"Tries left: {left}").wait_for()
    frame.locator("#code").fill("x")
    frame.get_by_role("button", name="Pay 9,900").click()
    frame.locator("[data-back]").click()
    page.locator("#news").get_by_text("[인증실패]").wait_for()
    assert page.input_value("#buyer_name") == "Kim Maewol"
    assert _amounts(stage) == before
    page.click("#checkout button")
    visitor.pay()
    page.wait_for_url("**/checkout/done**")
    assert _amounts(stage) == before + 1
    assert visitor.errors == []


def test_a_payment_that_the_page_never_heard_of_is_not_lost(
    stage: Stage, new_context: NewContext
) -> None:
    before = _amounts(stage)
    visitor = Visitor(new_context(), stage.url)
    visitor.order()
    visitor.pay(now="lost")
    visitor.page.wait_for_url("**/checkout/done**")
    assert _amounts(stage) == before + 1


def test_a_payment_that_the_page_never_heard_of_and_nobody_sees_yet(
    stage: Stage, new_context: NewContext
) -> None:
    """Who has paid is told to look again, not to pay again; and the tab remembers the order."""
    before = _amounts(stage)
    visitor = Visitor(new_context(), stage.url)
    page = visitor.page
    stage.control("faults", {"lookup_lag_seconds": 3600})
    visitor.order()
    visitor.pay(now="lost")
    page.locator("#news").get_by_text("do not pay again").wait_for()
    assert page.input_value("#buyer_name") == "Kim Maewol"
    _accessible(page)
    stage.control("clock", {"advance_seconds": 7200})
    page.locator("#earlier a").click()
    page.wait_for_url("**/checkout/done**")
    stage.control("faults", {})
    assert _amounts(stage) == before + 1


def test_a_phone_that_is_declined_reads_why_and_may_try_again(
    stage: Stage, new_context: NewContext
) -> None:
    visitor = Visitor(new_context(**A_PHONE), stage.url)
    page = visitor.page
    visitor.order()
    page.wait_for_url(f"{stage.sandbox}/window/**")
    visitor.identify(page, now="0031")
    visitor.confirm(page)
    page.locator("a[data-back]").click()
    page.wait_for_url("**/checkout/return**")
    assert "[0031]" in page.inner_text("main")
    _accessible(page)
    page.get_by_role("link", name="Try again").click()
    page.wait_for_url("**/checkout")


def test_the_sdk_complains_as_its_developer_would_want(
    stage: Stage, new_context: NewContext
) -> None:
    visitor = Visitor(new_context(), stage.url)
    page = visitor.page
    page.goto(f"{stage.url}/checkout")
    wrong = [
        ("IMP.request_pay({}, () => {})", "call IMP.init"),
        ("IMP.init('')", "identification code"),
        ("IMP.init('imp1'); IMP.request_pay()", "is an object"),
        ("IMP.init('imp1'); IMP.request_pay({}, 7)", "is a function"),
        ("IMP.certification()", "not in this sandbox"),
    ]
    for call, told in wrong:
        said = page.evaluate(
            f"() => {{ try {{ {call} }} catch (error) {{ return String(error) }} }}"
        )
        assert told in said
    rsp = page.evaluate(
        "() => new Promise((done) => { IMP.init('imp1');"
        " IMP.request_pay({ pay_method: 'card', merchant_uid: 'm' }, done); })"
    )
    assert (rsp["success"], rsp["error_code"]) == (False, "F0001")
    assert "name is missing" in rsp["error_msg"]
    assert any("name is missing" in one for one in visitor.errors)


def test_the_control_room_cancels_a_payment(stage: Stage, new_context: NewContext) -> None:
    visitor = Visitor(new_context(), stage.url)
    visitor.order()
    visitor.pay()
    visitor.page.wait_for_url("**/checkout/done**")
    room = new_context().new_page()
    room.goto(stage.sandbox)
    _accessible(room)
    room.get_by_role("button", name="Cancel the payment").first.click()
    room.get_by_role("status").wait_for()
    assert stage.ledger(limit="1000")[-1]["status"] == "cancelled"
