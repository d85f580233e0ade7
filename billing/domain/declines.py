"""Why the carrier refused, and what may be done about it: text in, class out.

PortOne has no table of codes; it passes on KG Mobilians' text, often with a four-digit code in it.
So a text is classified by the pair (code, phrase), then by the code alone, then by the phrase
alone; what is in no entry is `UNRECOGNIZED`, which stops the day's attempts and shows the text to a
person. The table is data (`declines.toml`), so that a new text needs no release.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Final, NoReturn

from billing.domain.errors import InvalidInput


class DeclineClass(StrEnum):
    """What may be done after a decline."""

    AGAIN_SOON = auto()
    """A passing fault of a system: again in minutes or hours."""
    NOT_TODAY = auto()
    """Refused for today, or for some days."""
    NOT_THIS_MONTH = auto()
    """The carrier's monthly limit; resets on the 1st, which is outside the band."""
    CUSTOMER_MUST_ACT = auto()
    """An unpaid bill, a block, a missing consent: only the customer can lift it."""
    REGISTER_ANEW = auto()
    """The billing key or the line is gone for good."""
    OPERATOR = auto()
    """Our own request, contract or configuration is wrong; concerns everyone."""
    ALREADY_PAID = auto()
    """The gateway says it is paid: ask, do not charge."""
    MISMATCH = auto()
    """Differs from last month's payment, which may be our own fault."""
    CHAIN_BROKEN = auto()
    """No usable payment last month: the chain of months has ended."""
    UNRECOGNIZED = auto()
    """A text that is in no entry."""


# A carrier's text is a sentence or two; more is not read.
MAX_MESSAGE: Final = 2_000
# A day's declines wait at most a month; more is a slip of the pen.
MAX_WAIT_DAYS: Final = 31


@dataclass(frozen=True, slots=True)
class Decline:
    """A classified refusal. `message` is the carrier's text as it came (cut at 2,000 characters),
    `code` the code found in it, `wait_days` the days to wait (`NOT_TODAY`), the advice what a
    person can do."""

    decline_class: DeclineClass
    code: str | None
    message: str
    wait_days: int = 1
    advice_en: str = ""
    advice_ko: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    decline_class: DeclineClass
    codes: frozenset[str]
    phrases: tuple[str, ...]
    phrase_alone: bool
    wait_days: int
    advice_en: str
    advice_ko: str

    def phrase_length(self, text: str) -> int:
        """How long the longest of its phrases is that the text holds; 0 for none."""
        return max((len(phrase) for phrase in self.phrases if phrase in text), default=0)


class DeclineTable:
    """Codes and phrases and what they mean. Made by `DeclineTable.parse`."""

    def __init__(
        self, entries: Sequence[_Entry], advice: Mapping[DeclineClass, tuple[str, str]]
    ) -> None:
        self._pairs: dict[str, list[_Entry]] = {}
        self._codes: dict[str, _Entry] = {}
        self._phrases = [entry for entry in entries if entry.phrase_alone]
        self._advice = dict(advice)
        for entry in entries:
            for code in entry.codes:
                if entry.phrases:
                    self._pairs.setdefault(code, []).append(entry)
                else:
                    self._codes[code] = entry

    @classmethod
    def parse(cls, text: str, *, field: str = "DECLINES_FILE") -> DeclineTable:
        """Read a table (TOML; the built-in one explains its own form).

        Raises `InvalidInput` for every mistake, with the entry's number, the value and a remedy.
        """
        return _Reader(field).table(text)

    def classify(self, message: str | None) -> Decline:
        """What a refusal means. Never raises: a text may be missing, endless or nonsense."""
        message = (message or "")[:MAX_MESSAGE]
        text = _flatten(message)
        squeezed = _squeeze(text)
        codes = _codes_in(text)
        known = [code for code in codes if code in self._pairs or code in self._codes]
        for code in known:
            pair = _longest(self._pairs.get(code, ()), squeezed)
            if pair:
                return self._decline(pair, code, message)
        for code in known:
            if code in self._codes:
                return self._decline(self._codes[code], code, message)
        code_shown = next(iter(known or codes), None)
        return self._decline(_longest(self._phrases, squeezed), code_shown, message)

    def _decline(self, entry: _Entry | None, code: str | None, message: str) -> Decline:
        found = entry.decline_class if entry else DeclineClass.UNRECOGNIZED
        usual_en, usual_ko = self._advice[found]
        return Decline(
            decline_class=found,
            code=code,
            message=message,
            wait_days=entry.wait_days if entry else 1,
            advice_en=(entry.advice_en if entry else "") or usual_en,
            advice_ko=(entry.advice_ko if entry else "") or usual_ko,
        )


def _longest(entries: Sequence[_Entry], squeezed: str) -> _Entry | None:
    """The entry whose phrase says most about the text; the earlier one where two say as much."""
    best = max(entries, key=lambda entry: entry.phrase_length(squeezed), default=None)
    return best if best and best.phrase_length(squeezed) else None


# Digits that are no code: telephone numbers, and amounts that are named as such.
_NOISE: Final = re.compile(
    r"(?<!\d)0\d{1,2}[ .)-]{1,2}\d{3,4}[ .-]\d{4}(?!\d)"
    r"|(?<!\d)1[568]\d\d-\d{4}(?!\d)"
    r"|(?:금액|amount|price)\s?[:=]?\s?₩?\s?[\d,.]+"
)
# Four digits that stand alone: not part of a longer number, word, date, time or amount of money.
_CODE: Final = re.compile(
    r"(?<![a-z0-9_₩$])(?<!₩ )(?<!\d[.,:/-])"
    r"(?:[a-z]\d{4}|\d{4})"
    r"(?![a-z0-9_])(?![.,:/]\d)(?!-\d\d)(?! ?(?:원|won|krw|년))"
)


def _codes_in(text: str) -> list[str]:
    """Every four-digit code in a flattened text, in order."""
    return [code.upper() for code in _CODE.findall(_NOISE.sub(" ", text))]


def _flatten(text: str) -> str:
    """One form for full and half width, composed and decomposed Hangul, and all white space."""
    text = unicodedata.normalize("NFKC", text)
    # Joiners, byte-order marks and soft hyphens are invisible, so they must not count.
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    return " ".join(text.casefold().split())


def _squeeze(flattened: str) -> str:
    """Korean is spaced at the writer's pleasure (한도초과, 한도 초과), so phrases match without."""
    return flattened.replace(" ", "")


_ENTRY_KEYS: Final = frozenset(
    {"class", "codes", "phrases", "phrase_alone", "wait_days", "advice_en", "advice_ko", "source"}
)
_CLASS_KEYS: Final = frozenset({"advice_en", "advice_ko"})
_CODE_FORM: Final = re.compile(r"[A-Z]?\d{4}", re.ASCII)
_RANGE_FORM: Final = re.compile(r"(\d{4})-(\d{4})", re.ASCII)
_PHRASE_LENGTHS: Final = range(2, 201)
_MAX_TABLE: Final = 1_000_000


class _Reader:
    """Reads a table and names every mistake by entry."""

    def __init__(self, field: str) -> None:
        self._field = field

    def table(self, text: str) -> DeclineTable:
        if len(text) > _MAX_TABLE:
            self._refuse(f"{len(text)} characters", "is too long", f"Stay below {_MAX_TABLE}")
        try:
            # Some editors put a byte-order mark first, which TOML does not know.
            document = tomllib.loads(text.removeprefix("\ufeff"))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InvalidInput(
                self._field, "the table", f"is not TOML: {error}", "Mend that line"
            ) from error
        self._known(document, frozenset({"classes", "decline"}), "the table")
        entries = document.get("decline")
        if not isinstance(entries, list) or not entries:
            self._refuse("decline", "the table has no entries", "Add [[decline]] entries")
        table = [self._entry(raw, f"entry {n}") for n, raw in enumerate(entries, start=1)]
        self._no_doubles(table)
        return DeclineTable(table, self._advice(document.get("classes", {})))

    def _advice(self, raw: object) -> dict[DeclineClass, tuple[str, str]]:
        sections = self._mapping(raw, "classes")
        self._known(sections, frozenset(DeclineClass), "classes")
        advice = {}
        for member in DeclineClass:
            where = f"classes.{member}"
            if member not in sections:
                self._refuse(where, "is missing", "Copy that section from the built-in table")
            section = self._mapping(sections[member], where)
            self._known(section, _CLASS_KEYS, where)
            english, korean = (self._text(section, key, where) for key in sorted(_CLASS_KEYS))
            if not english or not korean:
                self._refuse(where, "has no advice", "Give advice_en and advice_ko")
            advice[member] = (english, korean)
        return advice

    def _entry(self, raw: object, where: str) -> _Entry:
        entry = self._mapping(raw, where)
        self._known(entry, _ENTRY_KEYS, where)
        self._text(entry, "source", where)
        found = self._class(entry, where)
        codes = self._codes(entry, where)
        phrases = self._phrases(entry, where)
        if not codes and not phrases:
            self._refuse(where, "has neither codes nor phrases", "Give at least one of them")
        return _Entry(
            decline_class=found,
            codes=codes,
            phrases=phrases,
            phrase_alone=self._phrase_alone(entry, bool(codes), bool(phrases), where),
            wait_days=self._wait_days(entry, found, where),
            advice_en=self._text(entry, "advice_en", where),
            advice_ko=self._text(entry, "advice_ko", where),
        )

    def _class(self, entry: Mapping[str, Any], where: str) -> DeclineClass:
        value = entry.get("class")
        if not isinstance(value, str) or value not in set(DeclineClass):
            self._refuse(
                f"{where}: class = {value!r}", "is no class", "Use " + ", ".join(DeclineClass)
            )
        return DeclineClass(value)

    def _codes(self, entry: Mapping[str, Any], where: str) -> frozenset[str]:
        codes: set[str] = set()
        for value in self._strings(entry, "codes", where):
            run = _RANGE_FORM.fullmatch(value)
            if run and int(run[1]) < int(run[2]):
                codes.update(f"{code:04}" for code in range(int(run[1]), int(run[2]) + 1))
            elif _CODE_FORM.fullmatch(value):
                codes.add(value)
            else:
                self._refuse(
                    f"{where}: codes = {value!r}",
                    "is no code",
                    'Write four digits in quotes, as "0031", or a range, as "9000-9206"',
                )
        return frozenset(codes)

    def _phrases(self, entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
        phrases = []
        for value in self._strings(entry, "phrases", where):
            phrase = _squeeze(_flatten(value))
            if len(phrase) not in _PHRASE_LENGTHS:
                self._refuse(
                    f"{where}: phrases = {value[:40]!r}",
                    "is too short or too long",
                    "Use 2 to 200 characters beside the spaces",
                )
            phrases.append(phrase)
        return tuple(phrases)

    def _phrase_alone(
        self, entry: Mapping[str, Any], codes: bool, phrases: bool, where: str
    ) -> bool:
        value = entry.get("phrase_alone", not codes)
        if type(value) is not bool:
            self._refuse(f"{where}: phrase_alone = {value!r}", "is no yes or no", "Use true, false")
        if "phrase_alone" in entry and not (codes and phrases):
            self._refuse(
                f"{where}: phrase_alone", "needs codes and phrases beside it", "Leave it out"
            )
        return value

    def _wait_days(self, entry: Mapping[str, Any], found: DeclineClass, where: str) -> int:
        value = entry.get("wait_days", 1)
        if type(value) is not int or not 1 <= value <= MAX_WAIT_DAYS:
            self._refuse(
                f"{where}: wait_days = {value!r}", "is out of range", f"Use 1 to {MAX_WAIT_DAYS}"
            )
        if "wait_days" in entry and found is not DeclineClass.NOT_TODAY:
            self._refuse(
                f"{where}: wait_days", "means nothing here", "Leave it out, or use not_today"
            )
        return value

    def _no_doubles(self, entries: Sequence[_Entry]) -> None:
        """No two entries may claim the same: which one holds would hang on their order."""
        seen: dict[tuple[str, str], int] = {}
        for number, entry in enumerate(entries, start=1):
            claims = {(code, phrase) for code in entry.codes for phrase in entry.phrases or ("",)}
            if entry.phrase_alone:
                claims |= {("", phrase) for phrase in entry.phrases}
            for code, phrase in sorted(claims):
                if (code, phrase) in seen:
                    self._refuse(
                        f"entry {number}: {f'{code} {phrase}'.strip()}",
                        f"is already in entry {seen[code, phrase]}",
                        "Keep one of the two",
                    )
                seen[code, phrase] = number

    def _strings(self, entry: Mapping[str, Any], key: str, where: str) -> list[str]:
        values = entry.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self._refuse(
                f"{where}: {key} = {values!r}", "is no list of texts", f'Write {key} = ["…"]'
            )
        return values

    def _text(self, entry: Mapping[str, Any], key: str, where: str) -> str:
        value = entry.get(key, "")
        if not isinstance(value, str):
            self._refuse(f"{where}: {key} = {value!r}", "is no text", "Write it in quotes")
        return value.strip()

    def _mapping(self, value: object, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._refuse(f"{where} = {value!r}", "is no section", "See the built-in table")
        return value

    def _known(self, section: Mapping[str, Any], keys: frozenset[str], where: str) -> None:
        if unknown := sorted(section.keys() - keys):
            self._refuse(f"{where}: {unknown[0]}", "is not known", "Use " + ", ".join(sorted(keys)))

    def _refuse(self, value: str, problem: str, remedy: str) -> NoReturn:
        raise InvalidInput(self._field, value[:200], problem, remedy)
