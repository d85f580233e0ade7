"""The carrier's words, and what follows from each."""

from __future__ import annotations

import unicodedata
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.domain.declines import MAX_MESSAGE, DeclineClass, DeclineTable
from billing.domain.errors import InvalidInput

BUILT_IN = resources.files("billing.domain").joinpath("declines.toml").read_text(encoding="utf-8")
TABLE = DeclineTable.parse(BUILT_IN)

AGAIN_SOON = DeclineClass.AGAIN_SOON
NOT_TODAY = DeclineClass.NOT_TODAY
NOT_THIS_MONTH = DeclineClass.NOT_THIS_MONTH
CUSTOMER_MUST_ACT = DeclineClass.CUSTOMER_MUST_ACT
REGISTER_ANEW = DeclineClass.REGISTER_ANEW
OPERATOR = DeclineClass.OPERATOR
ALREADY_PAID = DeclineClass.ALREADY_PAID
MISMATCH = DeclineClass.MISMATCH
CHAIN_BROKEN = DeclineClass.CHAIN_BROKEN
UNRECOGNIZED = DeclineClass.UNRECOGNIZED


def classify(message: str | None) -> DeclineClass:
    return TABLE.classify(message).decline_class


# The gateway's table (design notes, section 9), typed once more by hand.
CODES = {
    AGAIN_SOON: "0095 0098 0099 9901 9902 9903 0052",
    NOT_TODAY: "0039 0057 0054",
    NOT_THIS_MONTH: "0031 0053 0056",
    CUSTOMER_MUST_ACT: "0016 0013 0019 0024 0025 0036 0032 0035 0037 0038 0048 0058 0059",
    REGISTER_ANEW: "0011 0014 0015 0017 0018 0020 0023 0033 0034 0040 0047",
    OPERATOR: "0071 0072 0081 0097 9000 9001 9100 9205 9206",
    ALREADY_PAID: "0051 F1002 0001",
    MISMATCH: "0060",
    UNRECOGNIZED: "0096 8999 9207 9900 9904 0000",
}


@pytest.mark.parametrize(
    ("code", "kind"), [(code, kind) for kind, codes in CODES.items() for code in codes.split()]
)
def test_every_code_alone(code: str, kind: DeclineClass) -> None:
    found = TABLE.classify(f"[{code}] …")
    assert (found.decline_class, found.code) == (kind, code)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0098 시스템 오류... 잠시 후", AGAIN_SOON),
        ("0099 사용자가 많아 지연", AGAIN_SOON),
        ("0096 거래 데이터 확인이 지연", AGAIN_SOON),
        ("0096 중복결제 시도... 잠시 후", AGAIN_SOON),
        ("0039 1회 결제 유효시간내 결제내역이 있습니다", AGAIN_SOON),
        ("0052 현재 결제처리중", AGAIN_SOON),
        ("0039 반복적인 실패로 당일 결제가 불가합니다. 익일", NOT_TODAY),
        ("0057 일 한도 초과", NOT_TODAY),
        ("0054 신규가입 및 명의변경 후 3일 이내 불가", NOT_TODAY),
        ("0031 당월 한도 초과... 익월", NOT_THIS_MONTH),
        ("0057 당월 한도 초과", NOT_THIS_MONTH),
        ("0057 월 한도 초과", NOT_THIS_MONTH),
        ("0016 미납/체납", CUSTOMER_MUST_ACT),
        ("0036 (월자동)결제 차단", CUSTOMER_MUST_ACT),
        ("0058 자동결제 사용 불가 사이트", CUSTOMER_MUST_ACT),
        ("0014 해지", REGISTER_ANEW),
        ("0023 번호이동", REGISTER_ANEW),
        ("0060 등록된 자동결제 거래정보가 존재하지 않습니다", CHAIN_BROKEN),
        ("0060 전월 등록된 월자동결제 이력이 없어 처리 불가합니다", CHAIN_BROKEN),
        ("0060 전월에 등록된 자동결제 거래정보 불일치로 처리 불가합니다", MISMATCH),
        ("0060 정상 결제 상태의 구매번호가 아님으로 처리 불가합니다", CHAIN_BROKEN),
        ("0071 자동결제 서비스가 불가한 상점", OPERATOR),
        ("0096 결제금액이 상이합니다", OPERATOR),
        ("0096 10만원 이상 결제 불가", OPERATOR),
        ("0096 특수문자", OPERATOR),
        ("HTTP 401", OPERATOR),
        ("0051 이미 결제완료된 자료", ALREADY_PAID),
        ("0096 이미 결제 완료된 상태", ALREADY_PAID),
        ("[F1002] 이미 결제가 이루어진 거래건입니다.", ALREADY_PAID),
    ],
)
def test_every_code_with_its_text(text: str, kind: DeclineClass) -> None:
    assert classify(text) == kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("등록되지 않은 구매자입니다.", REGISTER_ANEW),
        ("등록되지 않은 사용자입니다", REGISTER_ANEW),
        ("등록된 고객정보가 없습니다.", REGISTER_ANEW),
        ("이미 결제가 이루어진 거래건입니다.", ALREADY_PAID),
        ("이미 결제완료된 자료", ALREADY_PAID),
        ("이미 결제 완료된 상태", ALREADY_PAID),
        ("이미 결제가 이뤄진 적이 있는 merchant_uid로는 결제요청이 불가능합니다", ALREADY_PAID),
        ("반복적인 실패로 당일 결제가 불가합니다. 익일", NOT_TODAY),
        ("신규가입 및 명의변경 후 3일 이내 불가", NOT_TODAY),
        ("한도초과", NOT_THIS_MONTH),
        ("요금 미납", CUSTOMER_MUST_ACT),
        ("요금 체납", CUSTOMER_MUST_ACT),
        ("월자동결제 차단", CUSTOMER_MUST_ACT),
        ("전월 등록된 월자동결제 이력이 없어 처리 불가합니다", CHAIN_BROKEN),
        ("전월에 등록된 자동결제 거래정보 불일치로 처리 불가합니다", MISMATCH),
        ("거래 데이터 확인이 지연", AGAIN_SOON),
        ("자동결제 서비스가 불가한 상점", OPERATOR),
        ("결제금액이 상이합니다", OPERATOR),
        ("알 수 없는 사유", UNRECOGNIZED),
        ("", UNRECOGNIZED),
        (None, UNRECOGNIZED),
    ],
)
def test_every_text_without_a_code(text: str | None, kind: DeclineClass) -> None:
    found = TABLE.classify(text)
    assert (found.decline_class, found.code) == (kind, None)


@pytest.mark.parametrize("word", ["해지", "번호이동", "법인", "불일치", "정상", "전월"])
def test_no_loose_word_ends_a_subscription(word: str) -> None:
    assert classify(f"고객 {word} 관련 안내") == UNRECOGNIZED


@pytest.mark.parametrize(
    "text",
    [
        "0031",
        "[0031]",
        "(0031)",
        "0031:한도",
        "0031: 한도",
        "0031한도",
        "오류코드0031",
        "오류코드=0031, 한도",
        "결제실패 0031.",
        "PG-0031",
        "[KG][0031]",
        "\uff10\uff10\uff13\uff11 full width",
        "2024-01-31 10:00 [0031]",
        "010-1234-5678 0031",
        "고객센터 1600-0523 (0031)",
        "9,900원 0031",
        "0031 1회",
        "\ufeff0\u200b031",
    ],
)
def test_a_code_is_found_however_it_is_written(text: str) -> None:
    found = TABLE.classify(text)
    assert (found.decline_class, found.code) == (NOT_THIS_MONTH, "0031")


@pytest.mark.parametrize(
    "text",
    [
        "00311",
        "10031",
        "010-1234-0031",
        "010 1234 0031",
        "01012340031",
        "1600-0031",
        "9,0031",
        "1.0031",
        "0031원",
        "0031 원",
        "₩0031",
        "\uffe6 0031",
        "0031 KRW",
        "금액: 0031",
        "amount=0031",
        "0031-01-31",
        "0031년",
        "imp_0031",
        "mw0031",
        "0031a",
        "10:0031",
    ],
)
def test_digits_of_something_else_are_no_code(text: str) -> None:
    found = TABLE.classify(text)
    assert (found.decline_class, found.code) == (UNRECOGNIZED, None)


def test_a_code_of_the_table_goes_before_another_number() -> None:
    assert TABLE.classify("(1234) 0031").code == "0031"
    assert TABLE.classify("(1234) 0096").code == "0096"
    assert TABLE.classify("(1234) 4321").code == "1234"
    assert TABLE.classify("[1234] 한도 초과").decline_class == NOT_THIS_MONTH


@pytest.mark.parametrize(
    "text", ["한도초과", "한도 초과", "한 도\n초\u00a0과", "한\u200b도초과", "\uff3b한도초과\uff3d"]
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_spaces_widths_and_composition_do_not_matter(text: str, form: str) -> None:
    assert classify(unicodedata.normalize(form, text)) == NOT_THIS_MONTH  # type: ignore[arg-type]


def test_wait_days_and_advice_come_with_the_class() -> None:
    assert TABLE.classify("0054").wait_days == 3
    assert TABLE.classify("0039").wait_days == 1
    assert "1600-0523" in TABLE.classify("0037").advice_en
    assert "1600-0523" in TABLE.classify("0037").advice_ko
    assert TABLE.classify("알 수 없음").wait_days == 1
    for text in ("0098", "0031", "0020", "0060", "0071", "0051", "알 수 없음"):
        found = TABLE.classify(text)
        assert found.advice_en
        assert found.advice_ko
        assert found.message == text


def test_an_endless_text_is_cut() -> None:
    found = TABLE.classify("x" * (MAX_MESSAGE - 4) + " 00" + "31 한도초과" * 100_000)
    assert len(found.message) == MAX_MESSAGE == 2000
    assert found.decline_class == UNRECOGNIZED


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_text_is_too_odd(text: str) -> None:
    found = TABLE.classify(text)
    assert found.message == text
    assert found.decline_class in DeclineClass


@given(
    st.sampled_from(["0031", "0016", "0054", "0060", "F1002"]),
    st.text(st.sampled_from("가나다 .!?[]()\n"), max_size=20),
    st.text(st.sampled_from("가나다 .!?[]()\n"), max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_a_code_counts_whatever_stands_around_it(code: str, before: str, behind: str) -> None:
    found = TABLE.classify(f"{before} {code} {behind}")
    assert (found.decline_class, found.code) == (classify(code), code)


# ------------------------------------------------------------------ an edited table

ADVICE = "\n".join(
    f'[classes.{kind}]\nadvice_en = "en {kind}"\nadvice_ko = "ko {kind}"' for kind in DeclineClass
)
ENTRY = '[[decline]]\nclass = "not_this_month"\ncodes = ["0031"]\n'


def table(*entries: str) -> DeclineTable:
    return DeclineTable.parse("\n".join([ADVICE, *(f"[[decline]]\n{e}" for e in entries)]))


def test_the_pair_goes_before_the_code_and_the_code_before_the_phrase() -> None:
    edited = table(
        'class = "operator"\nphrases = ["초과"]',
        'class = "not_today"\ncodes = ["0031"]',
        'class = "again_soon"\ncodes = ["0031"]\nphrases = ["초과"]',
    )
    assert edited.classify("0031 초과").decline_class == AGAIN_SOON
    assert edited.classify("0031").decline_class == NOT_TODAY
    assert edited.classify("초과").decline_class == OPERATOR
    assert edited.classify("0032 초과").decline_class == OPERATOR


def test_the_longer_phrase_says_more() -> None:
    edited = table(
        'class = "operator"\nphrases = ["한도"]', 'class = "not_today"\nphrases = ["일 한도 초과"]'
    )
    assert edited.classify("일한도초과").decline_class == NOT_TODAY
    assert edited.classify("월한도초과").decline_class == OPERATOR


def test_a_pair_counts_without_its_code_only_when_told() -> None:
    pair = 'class = "operator"\ncodes = ["0031"]\nphrases = ["초과"]'
    assert table(pair).classify("초과").decline_class == UNRECOGNIZED
    assert table(pair + "\nphrase_alone = true").classify("초과").decline_class == OPERATOR


def test_an_entry_may_bring_its_own_advice() -> None:
    edited = table('class = "operator"\ncodes = ["0031"]\nadvice_en = "Call us."')
    found = edited.classify("0031")
    assert (found.advice_en, found.advice_ko) == ("Call us.", "ko operator")


def test_a_text_that_is_in_no_entry_brings_the_advice_of_its_class() -> None:
    found = table('class = "operator"\ncodes = ["0031"]').classify("알 수 없음")
    assert (found.advice_en, found.advice_ko) == ("en unrecognized", "ko unrecognized")


def test_a_range_holds_both_of_its_ends() -> None:
    edited = table('class = "operator"\ncodes = ["0031-0033"]')
    kinds = {code: edited.classify(code).decline_class for code in ("0030", "0031", "0033", "0034")}
    assert [code for code, kind in kinds.items() if kind is OPERATOR] == ["0031", "0033"]


@pytest.mark.parametrize(("line", "days"), [("", 1), ("wait_days = 31", 31), ("wait_days = 1", 1)])
def test_days_to_wait(line: str, days: int) -> None:
    edited = table('class = "not_today"\ncodes = ["0032"]\n' + line)
    assert edited.classify("0032").wait_days == days


def test_the_longest_phrase_and_the_longest_table() -> None:
    phrase = "가" * 200
    edited = f'{ADVICE}\n[[decline]]\nclass = "operator"\nphrases = ["{phrase}"]\n'
    assert DeclineTable.parse(edited.ljust(1_000_000)).classify(phrase).decline_class == OPERATOR


def test_a_refusal_quotes_the_beginning_of_a_long_value() -> None:
    with pytest.raises(InvalidInput) as refused:
        table(f'class = "operator"\nphrases = ["{"가나" * 200}"]')
    assert repr("가나" * 20) in refused.value.value
    with pytest.raises(InvalidInput) as refused:
        table(f'class = "{"가" * 300}"\ncodes = ["0031"]')
    assert len(refused.value.value) == 200


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    edited = DeclineTable.parse("\ufeff" + BUILT_IN.replace("\n", "\r\n"))
    assert edited.classify("0031").decline_class == NOT_THIS_MONTH


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no entries"),
        (ADVICE, "no entries"),
        ("decline = 3", "decline.*no entries"),
        ("decline = []", "no entries"),
        ("[[decline]\n", "not TOML"),
        (ENTRY, "classes.again_soon.*is missing"),
        (ADVICE.replace("ko mismatch", " ") + "\n" + ENTRY, "classes.mismatch.*no advice"),
        (ADVICE.replace("en mismatch", " ") + "\n" + ENTRY, "classes.mismatch.*no advice"),
        (
            ADVICE.replace("[classes.mismatch]", "[classes.mismatch]\nof = 3") + "\n" + ENTRY,
            "mismatch: of",
        ),
        (ADVICE.replace('"ko mismatch"', "3") + "\n" + ENTRY, "mismatch: advice_ko = 3"),
        (ADVICE + "\n[classes.other]\n" + ENTRY, "classes: other"),
        (ADVICE + "\n" + ENTRY + "[other]\n", "the table: other"),
        ("classes = 3\n" + ENTRY, "classes = 3.*no section"),
        ("decline = [3]\n" + ADVICE, "entry 1 = 3"),
        (" " * 1_000_001, "too long"),
    ],
)
def test_a_broken_table_is_refused(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as refused:
        DeclineTable.parse(text, field="MAEWOL_DECLINES_FILE")
    assert refused.value.field == "MAEWOL_DECLINES_FILE"
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ('codes = ["0031"]', "class = None"),
        ('class = "never"\ncodes = ["0031"]', "class = 'never'"),
        ('class = ["operator"]\ncodes = ["0031"]', "is no class"),
        ('class = "operator"', "neither codes nor phrases"),
        ('class = "operator"\ncodes = [9901]', r"codes = \[9901\]"),
        ('class = "operator"\ncodes = "0031"', "codes = '0031'"),
        ('class = "operator"\ncodes = ["31"]', "codes = '31'"),
        ('class = "operator"\ncodes = ["0031-0011"]', "codes = '0031-0011'"),
        ('class = "operator"\ncodes = ["0032-0032"]', "codes = '0032-0032'"),
        ('class = "operator"\ncodes = ["٠٠٣١"]', "is no code"),
        ('class = "operator"\nphrases = ["a"]', "too short"),
        ('class = "operator"\nphrases = ["  \\u200b "]', "too short"),
        (f'class = "operator"\nphrases = ["{"가" * 201}"]', "too long"),
        ('class = "operator"\nphrases = ["초과"]\nphrase_alone = true', "codes and phrases"),
        ('class = "operator"\ncodes = ["0032"]\nphrase_alone = false', "codes and phrases"),
        (
            'class = "operator"\ncodes = ["0032"]\nphrases = ["가나"]\nphrase_alone = 1',
            "yes or no",
        ),
        ('class = "operator"\ncodes = ["0032"]\nwait_days = 2', "means nothing"),
        ('class = "not_today"\ncodes = ["0032"]\nwait_days = 0', "out of range"),
        ('class = "not_today"\ncodes = ["0032"]\nwait_days = 32', "out of range"),
        ('class = "not_today"\ncodes = ["0032"]\nwait_days = true', "out of range"),
        ('class = "operator"\ncodes = ["0032"]\nadvice_en = 3', "advice_en = 3"),
        ('class = "operator"\ncodes = ["0032"]\nadvice_ko = 3', "advice_ko = 3"),
        ('class = "operator"\ncodes = ["0032"]\nsource = []', r"source = \[\]"),
        ('class = "operator"\ncode = "0032"', "entry 2: code"),
        ('class = "operator"\ncodes = ["0030-0040"]', "0031.*already in entry 1"),
    ],
)
def test_a_broken_entry_is_named(entry: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as refused:
        table('class = "not_this_month"\ncodes = ["0031"]', entry)
    assert "entry 2" in str(refused.value)
    assert refused.value.remedy


ALONE = 'class = "operator"\nphrases = ["가나"]'
PAIR = 'class = "not_today"\ncodes = ["0032"]\nphrases = ["가나"]'


@pytest.mark.parametrize(
    ("one", "other"),
    [(ALONE, ALONE), (PAIR, PAIR), (PAIR + "\nphrase_alone = true", ALONE)],
)
def test_two_entries_that_claim_the_same_are_refused(one: str, other: str) -> None:
    with pytest.raises(InvalidInput, match="already in entry 1") as refused:
        table(one, other)
    both = "0032 가나" if other == PAIR else "가나"
    assert refused.value.value == f"entry 2: {both}"
    assert table(PAIR, ALONE).classify("가나").decline_class == OPERATOR


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (ADVICE, "decline"),
        ("classes = 3\n" + ENTRY, "classes = 3"),
        (ADVICE + "\n[classes.other]\n" + ENTRY, "classes: other"),
        (ADVICE + "\n" + ENTRY * 2, "entry 2: 0031"),
    ],
)
def test_a_refusal_names_what_is_refused(text: str, value: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        DeclineTable.parse(text)
    assert refused.value.value == value
