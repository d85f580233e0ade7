"""What counts as a small mistake, and that the module is whole again after each."""

from __future__ import annotations

import ast

from tests.mutation.mutants import mutants_of

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
