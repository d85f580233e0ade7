"""What counts as a small mistake, and that the module is whole again after each."""

from __future__ import annotations

import ast

import pytest

from billing.services import invariants
from billing.store import archives, seals
from tests.mutation import sql
from tests.mutation.__main__ import ROOT, accepted
from tests.mutation.mutants import mutants_of
from tests.mutation.runner import dependents, lines_of, users

SOURCE = '''
LIMIT = 3


def allowed(count: int, *, strict: bool = False) -> bool:
    """Not touched."""
    if strict:
        raise ValueError("nor this text")
    return count < LIMIT and count > 0
'''


def test_each_mistake_is_one_change_in_its_place() -> None:
    made = [(one.scope, one.change, one.at_import) for one in mutants_of(SOURCE)]
    assert made == [
        ("LIMIT", "3 -> 4", False),
        ("", "False -> True", True),
        ("allowed", "if strict -> if not strict", False),
        ("allowed", "raise ValueError('nor this text') -> pass", False),
        ("allowed", "return count < LIMIT and count > 0 -> pass", False),
        ("allowed", "count < LIMIT and count > 0 -> count < LIMIT or count > 0", False),
        ("allowed", "count < LIMIT and count > 0 -> count > 0", False),
        ("allowed", "count < LIMIT and count > 0 -> count < LIMIT", False),
        ("allowed", "count < LIMIT -> count <= LIMIT", False),
        ("allowed", "count < LIMIT -> count >= LIMIT", False),
        ("allowed", "count > 0 -> count >= 0", False),
        ("allowed", "count > 0 -> count <= 0", False),
        ("allowed", "0 -> 1", False),
    ]


def test_the_module_is_whole_again_after_each() -> None:
    before = ast.unparse(ast.parse(SOURCE))
    seen = {ast.unparse(one.tree) for one in mutants_of(SOURCE)}
    assert before not in seen
    assert len(seen) == sum(1 for _ in mutants_of(SOURCE))
    *_, last = mutants_of(SOURCE)
    assert ast.unparse(last.tree) == before, "put back when the next one is asked for"


def _sql(piece: str) -> set[str]:
    made = [" ".join(one.split()) for one in sql.changed(piece)]
    assert len(set(made)) == len(made), "each mistake is another"
    return set(made)


@pytest.mark.parametrize(
    ("piece", "mistakes"),
    [
        (
            "SELECT 1 FROM t WHERE a < :b AND NOT c",
            {
                "SELECT 2 FROM t WHERE a < :b AND NOT c",
                "SELECT 1 FROM t WHERE a <= :b AND NOT c",
                "SELECT 1 FROM t WHERE a < :b OR NOT c",
                "SELECT 1 FROM t WHERE a < :b AND c",
                "SELECT 1 FROM t WHERE true AND NOT c",
                "SELECT 1 FROM t WHERE a < :b AND true",
            },
        ),
        (
            # What gives a value is left out, not turned round; `BETWEEN` keeps its `AND`.
            "UPDATE t SET a = 'x', b = NULL WHERE c BETWEEN :d AND :e RETURNING a",
            {
                "UPDATE t SET a = 'XXx', b = NULL WHERE c BETWEEN :d AND :e RETURNING a",
                "UPDATE t SET b = NULL WHERE c BETWEEN :d AND :e RETURNING a",
                "UPDATE t SET a = 'x' WHERE c BETWEEN :d AND :e RETURNING a",
                "UPDATE t SET a = 'x', b = NULL WHERE true RETURNING a",
            },
        ),
        (
            "SELECT min(a) FROM t LEFT JOIN u ON (b IS NULL OR c) ORDER BY a DESC"
            " FOR UPDATE SKIP LOCKED",
            {
                f"SELECT {a}(a) FROM t {b} u ON {c} ORDER BY a{d}"
                for a, b, c, d in [
                    ("max", "LEFT JOIN", "(b IS NULL OR c)", " DESC FOR UPDATE SKIP LOCKED"),
                    ("min", "JOIN", "(b IS NULL OR c)", " DESC FOR UPDATE SKIP LOCKED"),
                    ("min", "LEFT JOIN", "(b IS NOT NULL OR c)", " DESC FOR UPDATE SKIP LOCKED"),
                    ("min", "LEFT JOIN", "(b IS NULL AND c)", " DESC FOR UPDATE SKIP LOCKED"),
                    ("min", "LEFT JOIN", "(false OR c)", " DESC FOR UPDATE SKIP LOCKED"),
                    ("min", "LEFT JOIN", "(b IS NULL OR false)", " DESC FOR UPDATE SKIP LOCKED"),
                    ("min", "LEFT JOIN", "true", " DESC FOR UPDATE SKIP LOCKED"),
                    ("min", "LEFT JOIN", "(b IS NULL OR c)", " FOR UPDATE SKIP LOCKED"),
                    ("min", "LEFT JOIN", "(b IS NULL OR c)", " DESC FOR UPDATE"),
                    ("min", "LEFT JOIN", "(b IS NULL OR c)", " DESC"),
                ]
            },
        ),
        (
            "SELECT a IS DISTINCT FROM 'x' FROM t u",
            {
                "SELECT a IS NOT DISTINCT FROM 'x' FROM t u",
                "SELECT a IS DISTINCT FROM 'XXx' FROM t u",
            },
        ),
    ],
)
def test_mistakes_in_sql(piece: str, mistakes: set[str]) -> None:
    assert _sql(piece) == mistakes


@pytest.mark.parametrize(
    ("text", "is_it"),
    [
        ("SELECT 1", True),
        (" FROM cycles c WHERE true", True),
        ("FROM..TO: everything is down", False),
        ("Update the settings, then select a month", False),
    ],
)
def test_what_is_sql(text: str, is_it: bool) -> None:
    assert sql.is_sql(text) is is_it


DERIVED = """
_WHERE = " FROM t a WHERE a.b"
_ALL = text(f"SELECT * {_WHERE} ORDER BY a.c DESC")
OTHER = text("SELECT 1")


def rows(session):
    return session.execute(
        _ALL
    )
"""


def test_a_piece_of_sql_goes_on_in_what_is_made_of_it() -> None:
    mutants = [(one.name, one.change, lines_of(one)) for one in mutants_of(DERIVED)]
    assert mutants[:3] == [
        ("_WHERE", "' FROM t a WHERE a.b' -> ' FROM t a WHERE true'", {9}),
        (
            "_ALL",
            "f'SELECT * {_WHERE} ORDER BY a.c DESC' -> f'SELECT * {_WHERE} ORDER BY a.c '",
            {9},
        ),
        ("OTHER", "'SELECT 1' -> 'SELECT 2'", None),
    ]
    assert dependents(ast.parse(DERIVED), "_WHERE") == {"_WHERE", "_ALL"}


def test_what_goes_into_a_constant_that_others_may_have_is_tried_with_every_test() -> None:
    first, *_ = mutants_of(DERIVED.replace("_ALL", "ALL"))
    assert (first.name, lines_of(first)) == ("_WHERE", None)


def test_other_modules_that_made_something_of_a_constant_are_known() -> None:
    made = {other: names for other, _, names in users(seals, {"ROW", "BROKEN"})}
    assert made == {
        archives: {"_KEPT_DIGEST", "_LINES"},
        invariants: {"_FACTS"},
    }
    of_archives = {other: names for other, _, names in users(archives, {"BROKEN", "NOT_YET"})}
    assert of_archives == {invariants: {"_IN_THE_BOOK", "_FACTS"}}


@pytest.mark.parametrize("file", accepted())
def test_a_reason_is_of_a_mutant_that_is_made(file: str) -> None:
    """Code that changed leaves its reason behind, which would then excuse another mistake."""
    made = mutants_of((ROOT / file).read_text(encoding="utf-8"))
    assert accepted()[file].keys() - {f"{one.scope}: {one.change}" for one in made} == set()
