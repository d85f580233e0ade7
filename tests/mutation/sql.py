"""Small mistakes in SQL that is written as text: one changed place each.

A statement is cut into tokens, not parsed: a piece of one that another constant is put into can be
changed too. A change that the database would refuse is avoided where that is easily seen, since a
mutant that cannot run is killed by any test.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
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
    """Where `=` gives a value: the first mark of each part of a `SET`."""
    return {begin + 2 for edges in _set_lists(tokens) for begin in edges[:-1]}


def _set_lists(tokens: Sequence[_Token]) -> Iterator[list[int]]:
    """For each `SET` the places between which its values stand: itself, the commas, the end."""
    for at, token in enumerate(tokens[:-1]):
        if token.text == "SET":
            depth = tokens[at + 1].depth
            end = _first(tokens, at + 1, lambda one, depth=depth: _ends_list(one, depth))
            commas = [n for n in range(at, end) if _is(tokens[n], depth, ",")]
            yield [at, *commas, end]


def _ends_list(token: _Token, depth: int) -> bool:
    return token.depth < depth or _is(token, depth, "WHERE", "FROM", "RETURNING")


def _assignments(tokens: Sequence[_Token]) -> Iterator[_Change]:
    """One value that is not written, of several."""
    for edges in _set_lists(tokens):
        for at, (begin, end) in enumerate(pairwise(edges)):
            if at:
                yield tokens[begin].at, tokens[end - 1].end, ""
            elif len(edges) > 2:
                yield tokens[begin + 1].at, tokens[end].end, ""


def _is(token: _Token, depth: int, *texts: str) -> bool:
    return token.depth == depth and token.text in texts


def _first(tokens: Sequence[_Token], start: int, ends: Callable[[_Token], bool]) -> int:
    """The place of the first of these tokens that ends something, or behind the last."""
    return next((at for at in range(start, len(tokens)) if ends(tokens[at])), len(tokens))


def _locks(tokens: Sequence[_Token]) -> Iterator[_Change]:
    """Rows that are not locked."""
    for at, token in enumerate(tokens):
        if token.text == "FOR" and _words(tokens, at + 1, 1) in (("UPDATE",), ("SHARE",)):
            end = _first(tokens, at, lambda one, depth=token.depth: one.depth < depth)
            yield token.at, tokens[end - 1].end, ""
