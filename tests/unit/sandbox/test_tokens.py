"""Access tokens: their life, their sharing, and what they are asked with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.sandbox.kit import Shop, seoul

NOON = int(seoul("2027-02-20 12:00").timestamp())
PAIR = {"imp_key": "key", "imp_secret": "secret"}


def got(shop: Shop, **pair: str) -> dict[str, Any]:
    answer = shop.call("POST", "/users/getToken", json=pair or PAIR, headers={})
    assert answer.status_code == 200
    assert answer.json()["code"] == 0
    return dict(answer.json()["response"])


def test_thirty_minutes_by_the_sandbox_clock() -> None:
    token = got(Shop("2027-02-20 12:00"))
    assert (token["now"], token["expired_at"]) == (NOON, NOON + 1800)


def test_the_same_token_while_it_lives() -> None:
    shop = Shop("2027-02-20 12:00")
    first = got(shop)
    later = got(shop.at("2027-02-20 12:28:59"))
    assert later == {**first, "now": NOON + 1739}


def test_last_minute_prolongs_it() -> None:
    shop = Shop("2027-02-20 12:00")
    first = got(shop)
    later = got(shop.at("2027-02-20 12:29"))
    assert later["access_token"] == first["access_token"]
    assert later["expired_at"] == first["expired_at"] + 300


def test_a_new_one_after_the_end() -> None:
    shop = Shop("2027-02-20 12:00")
    first = got(shop)
    later = got(shop.at("2027-02-20 12:30"))
    assert later["access_token"] != first["access_token"]
    assert later["expired_at"] == NOON + 3600


def test_each_api_key_has_its_own() -> None:
    shop = Shop()
    assert got(shop)["access_token"] != got(shop, imp_key="other", imp_secret="s")["access_token"]


@pytest.mark.parametrize(
    "pair", [{}, {"imp_key": "key"}, {"imp_key": "key", "imp_secret": ""}, {"imp_secret": "s"}]
)
def test_missing_credentials(pair: dict[str, str]) -> None:
    answer = Shop().call("POST", "/users/getToken", json=pair, headers={})
    assert answer.status_code == 401
    assert (answer.json()["code"], answer.json()["response"]) == (-1, None)


def test_fixed_credentials() -> None:
    shop = Shop(**PAIR)
    wrong = shop.call("POST", "/users/getToken", json={**PAIR, "imp_secret": "x"}, headers={})
    assert wrong.status_code == 401
    assert got(shop)["access_token"]


def test_form() -> None:
    answer = Shop().call("POST", "/users/getToken", data=PAIR, headers={})
    assert answer.json()["code"] == 0


@pytest.mark.parametrize("header", ["Bearer {}", "{}"])
def test_with_and_without_bearer(header: str) -> None:
    shop = Shop().register()
    token = got(shop)["access_token"]
    headers = {"Authorization": header.format(token)}
    assert shop.call("GET", "/subscribe/customers/ada", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": ""}, {"Authorization": "Bearer x"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/subscribe/payments/again"),
        ("POST", "/payments/cancel"),
        ("GET", "/payments/findAll/m-1"),
        ("GET", "/subscribe/customers/ada"),
        ("DELETE", "/subscribe/customers/ada"),
    ],
)
def test_nothing_without_a_token(method: str, path: str, headers: dict[str, str]) -> None:
    shop = Shop().register()
    answer = shop.call(method, path, headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {"code": -1, "message": "Unauthorized", "response": None}
    assert len(shop.sandbox.ledger.payments) == 1
    assert shop.sandbox.ledger.key("ada") is not None


def test_expired_and_revoked_tokens() -> None:
    shop = Shop("2027-02-20 12:00").register()
    headers = {"Authorization": f"Bearer {got(shop)['access_token']}"}
    ask = "/subscribe/customers/ada"
    assert shop.at("2027-02-20 12:29:59").call("GET", ask, headers=headers).status_code == 200
    assert shop.at("2027-02-20 12:30").call("GET", ask, headers=headers).status_code == 401
    headers = {"Authorization": f"Bearer {got(shop)['access_token']}"}
    shop.control("POST", "revoke")
    assert shop.call("GET", ask, headers=headers).status_code == 401
