"""Small mistakes in SQL that is written as text: one changed place each.

A statement is cut into tokens, not parsed: a piece of one that another constant is put into can be
changed too. A change that the database would refuse is avoided where that is easily seen, since a
mutant that cannot run is killed by any test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_SQL: Final = re.compile(
    r"\b(SELECT|INSERT INTO|UPDATE [a-z_]+ SET|DELETE FROM|LEFT JOIN|FROM [a-z_]+ [a-z])\b"
)
_TOKEN: Final = re.compile(
    r"(?P<space>\s+|--[^\n]*)|(?P<text>'(?:[^']|'')*')|(?P<word>[A-Za-z_:][\w.:]*)"
    r"|(?P<number>\d+)|(?P<mark><=|>=|<>|!=|::|\|\||[-+*/%=<>(),;~.\[\]{}\"#&|!?@^$])"
)
# Words and marks that have an opposite, or a neighbour.
_OTHERS: Final = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "=": "<>",
    "<>": "=",
    "+": "-",
    "-": "+",
    "OR": "AND",
    "true": "false",
    "false": "true",
    "min": "max",
    "max": "min",
    "least": "greatest",
    "greatest": "least",
    "DESC": "",
}
# Runs of words, and what stands there instead.
_RUNS: Final = (
    (("IS", "NOT", "DISTINCT", "FROM"), "IS DISTINCT FROM"),
    (("IS", "DISTINCT", "FROM"), "IS NOT DISTINCT FROM"),
    (("IS", "NOT", "NULL"), "IS NULL"),
    (("IS", "NULL"), "IS NOT NULL"),
    (("NOT", "EXISTS"), "EXISTS"),
    (("NOT", "IN"), "IN"),
    (("NOT",), ""),
    (("EXISTS",), "NOT EXISTS"),
    (("LEFT", "JOIN"), "JOIN"),
    (("SKIP", "LOCKED"), ""),
)
# A condition ends where one of these begins, at its own depth.
_CLAUSES: Final = frozenset(
    (
        *("SELECT", "FROM", "LEFT", "JOIN", "ON", "WHERE", "GROUP", "HAVING", "WINDOW", "UNION"),
        *("ORDER", "LIMIT", "OFFSET", "FOR", "SET", "RETURNING", "WITH", "AS", "VALUES", "DO"),
        *("CASE", "WHEN", "THEN", "ELSE", "END"),
    )
)
_BEFORE_CONDITIONS: Final = frozenset(("WHERE", "ON", "AND", "OR", "WHEN", "HAVING"))
# Before values, which are conditions where AND or OR follows.
_BEFORE_VALUES: Final = frozenset(("THEN", "ELSE", "("))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int
    depth: int

    @property
    def end(self) -> int:
        return self.at + len(self.text)


def is_sql(text: str) -> bool:
    """Whether a string is SQL: a statement, or a piece of one."""
    return _SQL.search(text) is not None


def changed(piece: str) -> Iterator[str]:
    """Every changed form of a piece of SQL."""
    tokens = list(_tokens(piece))
    for start, end, other in [
        *_single(tokens),
        *_conditions(tokens),
        *_assignments(tokens),
        *_locks(tokens),
    ]:
        yield piece[:start] + other + piece[end:]


_Change = tuple[int, int, str]


def _tokens(piece: str) -> Iterator[_Token]:
    depth = 0
    for found in _TOKEN.finditer(piece):
        if found.lastgroup == "space":
            continue
        if found[0] == ")":
            depth -= 1
        yield _Token(found.lastgroup or "", found[0], found.start(), depth)
        if found[0] == "(":
            depth += 1


def _words(tokens: Sequence[_Token], at: int, count: int) -> tuple[str, ...]:
    return tuple(one.text for one in tokens[at : at + count])


def _single(tokens: Sequence[_Token]) -> Iterator[_Change]:
    """One word, mark, number or text that says something else."""
    assigned, passed = _assigned(tokens), 0
    for at, token in enumerate(tokens):
        if at < passed:
            continue
        before = tokens[at - 1].text if at else ""
        after = tokens[at + 1].text if at + 1 < len(tokens) else ""
        run = next((one for one in _RUNS if _words(tokens, at, len(one[0])) == one[0]), None)
        if run is not None:
            passed = at + len(run[0])
            yield token.at, tokens[passed - 1].end, run[1]
        elif token.kind == "number":
            yield token.at, token.end, str(int(token.text) + 1)
        elif token.kind == "text" and before not in ("interval", "ZONE", "COLLATE"):
            yield token.at, token.end, f"'XX{token.text[1:]}"
        elif token.text == "AND" and not _is_between(tokens, at):
            yield token.at, token.end, "OR"
        elif token.text in _OTHERS and at not in assigned:
            if token.text in ("min", "max", "least", "greatest") and after != "(":
                continue
            yield token.at, token.end, _OTHERS[token.text]


def _is_between(tokens: Sequence[_Token], at: int) -> bool:
    depth = tokens[at].depth
    for one in reversed(tokens[:at]):
        if one.depth < depth:
            return False
        if one.depth == depth and one.text in ("AND", "OR", *_CLAUSES):
            return False
        if one.depth == depth and one.text == "BETWEEN":
            return True
    return False


def _conditions(tokens: Sequence[_Token]) -> Iterator[_Change]:
    """One condition that is left out: true beside AND and alone, false beside OR."""
    for at, token in enumerate(tokens):
        known = token.text in _BEFORE_CONDITIONS and not _is_between(tokens, at)
        first = last = at + 1
        if first >= len(tokens) or not (known or token.text in _BEFORE_VALUES):
            continue
        while last < len(tokens) and not _ends(tokens, last, tokens[first].depth):
            last += 1
        follows = tokens[last].text if last < len(tokens) else ""
        if last > first and (known or follows in ("AND", "OR")):
            beside_or = "OR" in (token.text, follows)
            yield tokens[first].at, tokens[last - 1].end, "false" if beside_or else "true"


def _ends(tokens: Sequence[_Token], at: int, depth: int) -> bool:
    one = tokens[at]
    if one.depth < depth:
        return True
    if one.depth > depth or (one.text == "FROM" and tokens[at - 1].text == "DISTINCT"):
        return False
    if one.text in ("AND", "OR"):
        return not _is_between(tokens, at)
    # `CASE` begins a value, and what stands in it does not end a condition around it.
    return one.text in _CLAUSES or one.text in (",", ";")


def _assigned(tokens: Sequence[_Token]) -> set[int]:
    """Where `=` gives a value: the marks of `SET`."""
    marks: set[int] = set()
    for first, last in _set_lists(tokens):
        depth = tokens[first].depth
        fresh = True
        for at in range(first, last):
            if tokens[at].depth == depth and tokens[at].text == ",":
                fresh = True
            elif fresh and tokens[at].depth == depth and tokens[at].text == "=":
                marks.add(at)
                fresh = False
    return marks


def _set_lists(tokens: Sequence[_Token]) -> Iterator[tuple[int, int]]:
    for at, token in enumerate(tokens):
        if token.text == "SET" and at + 1 < len(tokens):
            first = last = at + 1
            depth = tokens[first].depth
            while last < len(tokens) and not (
                tokens[last].depth < depth
                or (
                    tokens[last].depth == depth
                    and tokens[last].text in ("WHERE", "FROM", "RETURNING")
                )
            ):
                last += 1
            yield first, last


def _assignments(tokens: Sequence[_Token]) -> Iterator[_Change]:
    """One value that is not written, of several."""
    for first, last in _set_lists(tokens):
        depth = tokens[first].depth
        commas = [at for at in range(first, last) if _is_comma(tokens[at], depth)]
        if not commas:
            continue
        edges = [first - 1, *commas, last]
        for begin, end in pairwise(edges):
            if begin == first - 1:
                yield tokens[first].at, tokens[commas[0]].end, ""
            else:
                yield tokens[begin].at, tokens[end - 1].end, ""


def _is_comma(token: _Token, depth: int) -> bool:
    return token.text == "," and token.depth == depth


def _locks(tokens: Sequence[_Token]) -> Iterator[_Change]:
    """Rows that are not locked."""
    for at, token in enumerate(tokens):
        if token.text == "FOR" and _words(tokens, at + 1, 1) in (("UPDATE",), ("SHARE",)):
            end = len(tokens)
            for later in range(at, len(tokens)):
                if tokens[later].depth < token.depth:
                    end = later
                    break
            yield token.at, tokens[end - 1].end, ""
