"""Who comes into the console, for how long, and whose forms are taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from billing.web.console.door import Room
from billing.web.console.router import PAGES
from billing.web.console.sign_in import ours
from tests.integration.web.conftest import Edge
from tests.integration.web.console_kit import PASSWORD, Operator, Page, an_operator


@pytest.fixture
def locked(make_edge: Callable[..., Edge]) -> Edge:
    return make_edge(console_password=PASSWORD)


@pytest.fixture
def visitor(locked: Edge) -> Iterator[Operator]:
    with an_operator(locked) as operator:
        yield operator


class _Host:
    """The host's clock, moved by a test."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> _Host:
    moved = _Host()
    monkeypatch.setattr("billing.clock.host_time", moved)
    return moved


# -- without a password -------------------------------------------------------------------------


def test_without_a_password_it_answers_on_this_machine_only(edge: Edge) -> None:
    with an_operator(edge) as here:
        assert here.get("/").status_code == 200
    for where in ({"peer": "203.0.113.9"}, {"host": "evil.example"}):
        with an_operator(edge, **where) as stranger:
            refused = stranger.get("/")
            assert refused.status_code == 403
            assert "CONSOLE_PASSWORD" in refused.text
    with an_operator(edge, **{"x-forwarded-for": "203.0.113.9"}) as proxied:
        assert proxied.get("/").status_code == 403


def test_a_stranger_learns_nothing(edge: Edge) -> None:
    with an_operator(edge, peer="203.0.113.9") as stranger:
        text = stranger.get("/subscriptions/1").text
    assert "Charging" not in text
    assert "token" not in text


# -- with one -----------------------------------------------------------------------------------


def test_a_person_signs_in_and_out(visitor: Operator) -> None:
    first = visitor.get("/cycles?show=held")
    assert (first.status_code, first.headers["location"]) == (
        303,
        "/sign-in?next=%2Fcycles%3Fshow%3Dheld",
    )
    assert visitor.sign_in("wrong").status_code == 403
    assert visitor.get("/").status_code == 303

    came_in = visitor.submit(first.headers["location"], "/sign-in", password=PASSWORD)
    assert (came_in.status_code, came_in.headers["location"]) == (303, "/cycles?show=held")
    cookie = came_in.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert visitor.get("/").status_code == 200
    assert visitor.get("/sign-in").headers["location"] == "/"

    assert visitor.submit("/", "/sign-out").status_code == 303
    assert visitor.get("/").status_code == 303


def test_who_is_signed_in_reads_the_description_of_the_api(make_edge: Callable[..., Edge]) -> None:
    """A browser cannot send the token. All else that the token guards stays shut for it."""
    pages = ("/docs", "/openapi.json", "/docs/style.css")
    with an_operator(make_edge(console_password=PASSWORD, api_token="the-token")) as visitor:
        visitor.get("/sign-in")
        assert [visitor.get(path).status_code for path in pages] == [401] * 3
        visitor.sign_in()
        assert [visitor.get(path).status_code for path in pages] == [200] * 3
        assert visitor.get("/v1/cycles").status_code == 401
        visitor.submit("/", "/sign-out")
        assert [visitor.get(path).status_code for path in pages] == [401] * 3


def test_the_cookie_is_secure_where_the_browser_speaks_tls(visitor: Operator) -> None:
    assert "secure" not in visitor.get("/sign-in").headers["set-cookie"].lower()
    behind = visitor.client.get("/sign-in", headers={"x-forwarded-proto": "https"})
    assert "secure" not in behind.headers.get("set-cookie", "").lower()
    visitor.client.cookies.clear()
    behind = visitor.client.get("/sign-in", headers={"x-forwarded-proto": "https"})
    assert "secure" in behind.headers["set-cookie"].lower()


def test_signing_in_changes_the_visit(visitor: Operator) -> None:
    """So that a cookie that was put into a browser before gives nobody a session."""
    visitor.get("/sign-in")
    planted = dict(visitor.client.cookies)["maewol_console"]
    visitor.sign_in()
    visitor.client.cookies.set("maewol_console", planted, domain="127.0.0.1")
    with_it = visitor.client.get("/", headers={"cookie": f"maewol_console={planted}"})
    assert with_it.status_code == 303


def test_a_cookie_that_was_touched_is_nobodys(visitor: Operator) -> None:
    visitor.sign_in()
    kept = dict(visitor.client.cookies)["maewol_console"]
    visitor.client.cookies.clear()
    for touched in (kept[:-2] + "xx", kept.replace(".", "x."), "", "a.b", "{}", kept * 2):
        answer = visitor.client.get("/", headers={"cookie": f"maewol_console={touched}"})
        assert answer.status_code == 303, touched


def test_a_new_password_ends_every_session(
    make_edge: Callable[..., Edge], visitor: Operator
) -> None:
    visitor.sign_in()
    kept = dict(visitor.client.cookies)["maewol_console"]
    for password, status in ((PASSWORD, 200), ("another", 303)):
        with make_edge(console_password=password).browse() as elsewhere:
            answer = elsewhere.get("/", headers={"cookie": f"maewol_console={kept}"})
            assert answer.status_code == status


def test_a_session_ends_when_nobody_uses_it(visitor: Operator, host: _Host) -> None:
    visitor.sign_in()
    for _ in range(3):
        host.now += timedelta(minutes=50)
        assert visitor.get("/").status_code == 200
    host.now += timedelta(minutes=61)
    assert visitor.get("/").status_code == 303


def test_a_page_that_renews_itself_keeps_no_session_alive(visitor: Operator, host: _Host) -> None:
    visitor.sign_in()
    for _ in range(3):
        host.now += timedelta(minutes=19)
        assert visitor.get("/", **{"x-refresh": "1"}).status_code == 200
    host.now += timedelta(minutes=19)
    assert visitor.get("/", **{"x-refresh": "1"}).status_code == 401


def test_a_session_ends_after_a_working_day(visitor: Operator, host: _Host) -> None:
    visitor.sign_in()
    for _ in range(24):
        host.now += timedelta(minutes=30)
        assert visitor.get("/").status_code == 200
    host.now += timedelta(minutes=1)
    assert visitor.get("/").status_code == 303


def test_guessing_is_slow(locked: Edge) -> None:
    with an_operator(locked, peer="203.0.113.9") as guesser:
        answers = [guesser.sign_in(f"guess {n}").status_code for n in range(9)]
        assert answers == [403] * 8 + [429]
        too_often = guesser.sign_in()
        assert (too_often.status_code, too_often.headers["retry-after"]) == (429, "60")
    with an_operator(locked, peer="198.51.100.7") as owner:
        assert owner.sign_in().status_code == 303


def test_many_guessers_together_are_slow_too(locked: Edge) -> None:
    statuses = []
    for number in range(42):
        with an_operator(locked, peer=f"203.0.113.{number}") as guesser:
            statuses.append(guesser.sign_in("guess").status_code)
    assert statuses == [403] * 40 + [429] * 2


@pytest.mark.parametrize(
    ("guesses_from", "owner_at"),
    [
        # As a proxy that listens for both kinds tells IPv4 addresses.
        ("::ffff:203.0.113.9", "::ffff:198.51.100.7"),
        ("2001:db8:1::9", "2001:db8:2::7"),
    ],
)
def test_whoever_guesses_slows_down_nobody_else(
    locked: Edge, guesses_from: str, owner_at: str
) -> None:
    with an_operator(locked, peer=guesses_from) as guesser:
        assert [guesser.sign_in("guess").status_code for _ in range(9)] == [403] * 8 + [429]
    with an_operator(locked, peer=owner_at) as owner:
        assert owner.sign_in().status_code == 303


def test_guessers_elsewhere_do_not_lock_out_who_was_in(locked: Edge) -> None:
    with an_operator(locked, peer="198.51.100.7") as owner:
        assert owner.sign_in().status_code == 303
        for number in range(42):
            with an_operator(locked, peer=f"203.0.113.{number}") as guesser:
                guesser.sign_in("guess")
    with an_operator(locked, peer="198.51.100.7") as owner:
        assert [owner.sign_in("slip").status_code for _ in range(7)] == [403] * 7
        assert owner.sign_in().status_code == 303
    with an_operator(locked, peer="198.51.100.7") as neighbour:
        answers = [neighbour.sign_in(f"guess {n}").status_code for n in range(9)]
        assert answers == [403] * 8 + [429]


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "evil",
        "",
        "/\tx",
        "/a\\b",
        "/한",
    ],
)
def test_nobody_is_led_elsewhere(path: str) -> None:
    assert ours(path) == "/"


def test_every_room_is_locked(visitor: Operator) -> None:
    """No route of the console answers a stranger, whatever the method."""
    rooms = [
        route
        for page in PAGES
        for route in page.router.routes
        if isinstance(route, Room) and route.needs_sign_in
    ]
    assert len(rooms) >= 20
    for route in rooms:
        path = re.sub(r"\{number\}", "1", route.path)
        path = path.replace("{action}", "pause").replace("{switch}", "stop")
        path = path.replace("{chart}", "days")
        for method in route.methods:
            answer = visitor.client.request(method, path)
            expected = 303 if method == "GET" else 401
            assert answer.status_code == expected, (method, path)


# -- forms --------------------------------------------------------------------------------------


def test_a_form_needs_the_token_of_its_own_visit(edge: Edge) -> None:
    with an_operator(edge) as other:
        stolen = other.token()
    with an_operator(edge) as operator:
        good = operator.token()
        for token in ("", "x" * 64, stolen, "é"):
            answer = operator.client.post("/system/stop", data={"token": token, "typed": "stop"})
            assert answer.status_code == 403
        assert operator.client.post("/system/stop").status_code == 415
        assert (
            operator.client.post("/system/stop", data={"token": good, "typed": "stop"}).status_code
            == 303
        )


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
)
def test_a_form_of_a_page_elsewhere_is_refused(edge: Edge, headers: dict[str, str]) -> None:
    with an_operator(edge) as operator:
        answer = operator.submit("/system/stop", headers=headers, typed="stop")
        assert answer.status_code == 403
        assert (
            operator.submit(
                "/system/stop", headers={"origin": "http://127.0.0.1"}, typed="stop"
            ).status_code
            == 303
        )


def test_only_small_forms_are_read(edge: Edge) -> None:
    with an_operator(edge) as operator:
        assert operator.submit("/system/stop", typed="x" * 20_000).status_code == 413
        as_json = operator.client.post("/system/stop", json={"token": operator.token()})
        assert as_json.status_code == 415


def test_a_page_elsewhere_cannot_load_from_here(edge: Edge) -> None:
    with an_operator(edge) as operator:
        elsewhere = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
        assert operator.get("/subscriptions/1/gateway", **elsewhere).status_code == 403
        link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        assert operator.get("/", **link).status_code == 200


def test_language_and_theme_are_remembered(edge: Edge) -> None:
    with an_operator(edge) as operator:
        assert 'lang="en"' in operator.get("/").text
        assert 'lang="ko"' in operator.get("/", **{"accept-language": "ko-KR"}).text
        form = Page(operator.get("/cycles?show=held")).forms["/preferences"]
        assert form["next"] == "/cycles?show=held"
        for choice in ({"language": "ko"}, {"theme": "dark"}):
            answer = operator.client.post("/preferences", data={**form, **choice})
            assert answer.headers["location"] == "/cycles?show=held"
        page = operator.get("/").text
        assert 'lang="ko" data-theme="dark"' in page
        # What was never offered is not kept.
        operator.client.post("/preferences", data={**form, "theme": "<b>", "language": "fr"})
        assert 'lang="ko" data-theme="dark"' in operator.get("/").text
