"""Faults documents, scripts, chances and spells; how faults look without a socket."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from billing.sandbox import (
    FaultsError,
    SandboxConnectionReset,
    SandboxNoAnswer,
    mood,
    mood_from,
)
from billing.sandbox.faults import cancel_fault, charge_fault, lookup_fault, spell_fault
from billing.sandbox.texts import Decline, declines
from tests.unit.sandbox.kit import ADA, Shop, a_customer

EVERY_CHARGE_FAULT = [
    "ok",
    "declined:0031",
    "declined:0060/mismatch",
    "declined:C",
    "timeout_before_charge",
    "timeout_after_charge",
    "reset_before_charge",
    "reset_after_charge",
    "http_before_charge:503",
    "http_after_charge:502",
    "html_before_charge",
    "html_after_charge",
    "cut_json_before_charge",
    "cut_json_after_charge",
    "cut_body_before_charge",
    "cut_body_after_charge",
    "unauthorized",
    "too_many:30",
    "wrong_amount",
    "wrong_merchant_uid",
    "wrong_customer_uid",
    "ready",
    "late_paid:60",
    "slow:100",
]


@pytest.mark.parametrize("word", EVERY_CHARGE_FAULT)
def test_words_are_read_and_written_the_same(word: str) -> None:
    assert str(charge_fault(word)) == word


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("timeout", "nothing that a charge can meet; known: "),
        ("declined", "no decline ''"),
        ("declined:9999", "no decline '9999'"),
        ("declined:0060/x", "no decline '0060/x'"),
        ("declined:H", "no decline 'H'"),
        ("ok:1", "takes no argument"),
        ("slow", "write slow:NUMBER"),
        ("too_many:soon", "write too_many:NUMBER"),
        ("http_after_charge:200", "write http_after_charge:STATUS"),
    ],
)
def test_words_that_are_wrong(word: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        charge_fault(word)


def test_words_of_cancellations() -> None:
    for word in (
        "http_after_cancel:502",
        "reset_before_cancel",
        "too_many:3",
        "ok",
        "refused:0043",
    ):
        assert str(cancel_fault(word)) == word
    for word in ("reset_after_charge", "declined:0016"):
        with pytest.raises(ValueError, match="nothing that a cancellation can meet"):
            cancel_fault(word)
    for word in ("refused", "refused:0016", "refused:A"):
        with pytest.raises(ValueError, match="no cancellation is refused with"):
            cancel_fault(word)


def test_what_only_look_ups_or_only_charges_meet() -> None:
    for parse, word in (
        (charge_fault, "hidden"),
        (lookup_fault, "declined:C"),
        (spell_fault, "ok"),
    ):
        with pytest.raises(ValueError, match="is nothing that"):
            parse(word)


def test_every_class_has_texts() -> None:
    assert {one.klass for one in declines()} == set("ABCDEFG")
    assert len({(one.code, one.name) for one in declines()}) == len(declines())


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"chance": {}}, "chance: Extra inputs are not permitted"),
        ({"chances": {"charge": {"timeout": 0.1}}}, "chances.charge.timeout"),
        ({"chances": {"charge": {"ready": 1.1}}}, "chances.charge.ready"),
        ({"chances": {"charge": {"ready": 0.6, "html_after_charge": 0.6}}}, "more than 1"),
        ({"scripts": [{"customers": "*", "does": ["oh"]}]}, "scripts.0.does.0"),
        ({"spells": [{"from": "2027-02-20T10:00:00", "until": "x", "does": "reset"}]}, "spells.0"),
        ({"carrier": {"window": "wide"}}, "carrier.window"),
        ({"latency": {"charge": -1}}, "latency.charge"),
        ({"latency": {"charge": 1e308}}, "latency.charge"),
        ({"chances": {"cancel": {"ready": 0.1}}}, "chances.cancel.ready"),
        ([], "document"),
        ("x", "document"),
    ],
)
def test_documents_that_are_wrong(document: object, told: str) -> None:
    with pytest.raises(FaultsError) as caught:
        mood(document)
    assert told in str(caught.value)


def test_files(tmp_path: Path) -> None:
    document = {"chances": {"charge": {"http_after_charge:502": 0.5}}}
    toml, as_json = tmp_path / "faults.toml", tmp_path / "faults.json"
    toml.write_text('[chances.charge]\n"http_after_charge:502" = 0.5\n')
    as_json.write_text(json.dumps(document))
    assert mood_from(toml) == mood_from(as_json) == mood(document)
    toml.write_text(
        "[[spells]]\nfrom = 2027-02-20T10:00:00+09:00\nuntil = 2027-02-20T11:00:00+09:00\n"
        'does = "reset"\n'
    )
    assert mood_from(toml).spells[0].does == "reset"


@pytest.mark.parametrize("text", ["[chances", "nonsense = 1"])
def test_files_that_are_wrong_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(text)
    for wrong in (path, tmp_path / "absent.toml"):
        with pytest.raises(FaultsError, match=str(wrong)):
            mood_from(wrong)


@pytest.mark.parametrize("klass", "ABCDEFG")
def test_every_class_is_declined_in_the_carriers_words(klass: str) -> None:
    texts = {f"[{one.code}] {one.text}": one.code for one in declines() if one.klass == klass}
    shop = Shop(faults={"carrier": {"failures_per_day": 0}})
    shop.register(a_customer(script=[f"declined:{klass}"] * 40))
    told = {shop.said(f"m-{number}") for number in range(40)}
    # All of the class turn up by and by, and none of another.
    assert told <= set(texts)
    assert len(told) >= min(len(texts), 3)
    assert outcomes(shop)[0][1].partition(":")[2] in texts.values()


@pytest.mark.parametrize("one", declines(), ids=lambda one: f"{one.code}/{one.name}")
def test_every_text_can_be_asked_for(one: Decline) -> None:
    what = f"{one.code}/{one.name}" if one.name else one.code
    shop = Shop().register(a_customer(script=[f"declined:{what}"]))
    payment = shop.payment()
    assert (payment["status"], payment["fail_reason"]) == ("failed", f"[{one.code}] {one.text}")


def outcomes(shop: Shop) -> list[tuple[str, str]]:
    return [(one.fault, one.outcome) for one in shop.sandbox.ledger.requests if one.kind == "again"]


def test_script_of_a_pattern_of_customers() -> None:
    script = {"customers": "limit-*", "does": ["declined:0031", "html_after_charge", "ok"]}
    shop = Shop(faults={"scripts": [script]})
    shop.register(a_customer(uid="limit-1"), a_customer(uid="other"))
    for number in range(4):
        shop.charge(f"m-{number}", "limit-1")
    assert outcomes(shop) == [
        ("declined:0031", "declined:0031"),
        ("html_after_charge", "paid"),
        ("", "declined:0039"),
        ("", "declined:0039"),
    ]
    assert shop.said("m-9", "other") == "paid"


def test_script_of_one_customer_set_later() -> None:
    shop = Shop().register()
    shop.payment("m-1")
    shop.control("POST", f"customers/{ADA}", {"script": ["declined:0016", "unauthorized"]})
    shop.charge("m-2")
    shop.charge("m-3")
    shop.charge("m-1")
    assert [outcome for _, outcome in outcomes(shop)] == [
        "paid",
        "declined:0016",
        "turned_away",
        "refused:already_paid",
    ]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", ["timeout", "reset", "http", "html", "cut_json", "cut_body"])
def test_lost_answers_and_the_book(fault: str, when: str) -> None:
    """Without a socket, what happens to a connection is raised for the transport to translate."""
    word = f"{fault}_{when}_charge" + (":502" if fault == "http" else "")
    shop = Shop().register(a_customer(script=[word]))
    match fault:
        case "timeout":
            with pytest.raises(SandboxNoAnswer):
                shop.charge()
        case "reset" | "cut_body":
            with pytest.raises(SandboxConnectionReset):
                shop.charge()
        case "http":
            assert shop.charge().status_code == 502
        case _:
            answer = shop.charge()
            assert answer.status_code == 200
            with pytest.raises(json.JSONDecodeError):
                answer.json()
    assert len(shop.sandbox.ledger.payments) == (2 if when == "after" else 1)
    assert outcomes(shop) == [(word, "paid" if when == "after" else "lost")]


def test_turned_away_at_the_door() -> None:
    shop = Shop().register(a_customer(script=["unauthorized", "too_many:17"]))
    assert shop.charge().status_code == 401
    answer = shop.charge()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "17")
    assert shop.payment()["status"] == "paid"


@pytest.mark.parametrize("field", ["amount", "merchant_uid", "customer_uid"])
def test_wrong_echo(field: str) -> None:
    shop = Shop().register(a_customer(script=[f"wrong_{field}"]))
    right = {"amount": 9_900, "merchant_uid": "m-1", "customer_uid": ADA}
    echoed = shop.payment()
    assert {name: echoed[name] == value for name, value in right.items()} == {
        name: name != field for name in right
    }
    booked = shop.found("/payments/findAll/m-1")["list"][0]
    assert {name: booked[name] for name in right} == right


def test_answered_as_ready_and_yet_paid() -> None:
    shop = Shop().register(a_customer(script=["ready"]))
    echoed = shop.payment()
    assert (echoed["status"], echoed["paid_at"]) == ("ready", 0)
    assert shop.found("/payments/find/m-1")["status"] == "paid"


def test_failed_and_paid_after_all() -> None:
    shop = Shop().register(a_customer(script=["late_paid:60"]))
    assert shop.payment()["status"] == "failed"
    assert shop.at("2027-02-20 10:00:59").found("/payments/find/m-1")["status"] == "failed"
    late = shop.at("2027-02-20 10:01").found("/payments/find/m-1")
    assert (late["status"], late["failed_at"], late["fail_reason"]) == ("paid", 0, None)
    assert late["paid_at"] == late["started_at"] + 60


def test_slow() -> None:
    shop = Shop().register(a_customer(script=["slow:3000"]))
    assert shop.said() == "paid"
    assert shop.naps == [3.0]


def a_spell(does: str) -> dict[str, Any]:
    begins, until = "2027-02-20T10:00:00+09:00", "2027-02-20T11:00:00+09:00"
    return {"spells": [{"from": begins, "until": until, "does": does}]}


def test_down_for_all_and_back() -> None:
    shop = Shop("2027-02-20 09:59", faults=a_spell("http:503")).register()
    assert shop.ask(f"/subscribe/customers/{ADA}").status_code == 200
    shop.at("2027-02-20 10:00")
    assert shop.ask(f"/subscribe/customers/{ADA}").status_code == 503
    assert shop.call("POST", "/users/getToken", json={}, headers={}).status_code == 503
    assert shop.call("POST", "/payments/cancel", json={"imp_uid": "x"}).status_code == 503
    assert shop.charge().status_code == 503
    assert len(shop.sandbox.ledger.payments) == 1
    assert shop.at("2027-02-20 11:00").said() == "paid"


def test_slow_for_all() -> None:
    shop = Shop(faults=a_spell("slow:2000")).register()
    shop.ask(f"/subscribe/customers/{ADA}")
    shop.charge()
    assert shop.naps == [2.0, 2.0]


@pytest.mark.parametrize(
    ("word", "status"), [("http:500", 500), ("unauthorized", 401), ("too_many:1", 429)]
)
def test_look_ups_by_chance(word: str, status: int) -> None:
    shop = Shop(faults={"chances": {"lookup": {word: 1}}}).register()
    assert shop.ask(f"/subscribe/customers/{ADA}").status_code == status


def test_hidden_look_ups() -> None:
    shop = Shop(faults={"chances": {"lookup": {"hidden": 1}}}).register()
    shop.payment()
    assert shop.ask("/payments/findAll/m-1").json()["response"] is None


CHANCES = {
    "chances": {
        "charge": {"declined:A": 0.2, "html_after_charge": 0.2, "unauthorized": 0.2},
        "lookup": {"http:503": 0.3},
    },
    "latency": {"charge": [1, 100]},
    "lookup_lag_seconds": 90,
}


def story(seed: int, order: list[int]) -> dict[str, Any]:
    shop = Shop(faults=CHANCES, seed=seed)
    shop.register(*(a_customer(uid=f"c-{number}") for number in order))
    for number in order:
        shop.charge(f"m-{number}", f"c-{number}")
    return {
        one.customer_uid: (one.fault, one.outcome)
        for one in shop.sandbox.ledger.requests
        if one.kind == "again"
    }


def test_same_seed_same_decisions_in_any_order() -> None:
    forth = list(range(60))
    assert story(7, forth) == story(7, forth) == story(7, forth[::-1])
    assert story(7, forth) != story(8, forth)
    assert len(set(story(7, forth).values())) > 4


def test_whole_answers_are_the_same_for_the_same_seed() -> None:
    def answers(seed: int) -> list[str]:
        shop = Shop(faults=CHANCES, seed=seed).register()
        asked = [shop.ask(f"/subscribe/customers/{ADA}") for _ in range(20)]
        return [f"{one.status_code} {one.text}" for one in [*asked, shop.charge()]]

    assert answers(1) == answers(1)


def test_shares_are_kept() -> None:
    shop = Shop(faults={"chances": {"charge": {"unauthorized": 0.25}}})
    statuses = [shop.charge(f"m-{number}").status_code for number in range(400)]
    assert 70 <= statuses.count(401) <= 130
