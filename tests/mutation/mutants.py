"""All small mistakes that could stand in one module: one changed node each.

Left alone are docstrings, annotations, and texts for people (any string with a space in it that is
no SQL).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from tests.mutation import sql

Change = Callable[[ast.AST], ast.AST | None]
Some = TypeVar("Some")

_COMPARED: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COUNTED: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
# Calls whose arguments are conditions: each left out once.
_CONDITIONS: Final = {"where", "and_", "or_", "all", "any", "min", "max"}
_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake: where, what stood there, what stands there now."""

    scope: str
    line: int
    last_line: int
    # The module-level name that it belongs to; empty inside functions.
    name: str
    # Worked out once, when the module is imported, and no name of the module.
    at_import: bool
    before: str
    after: str
    tree: ast.Module

    @property
    def change(self) -> str:
        """What changed, with a little of what stands around it."""
        if len(self.before) + len(self.after) < 90:
            return f"{self.before} -> {self.after}"
        both = self.before, self.after
        head = _alike(*both)
        tail = _alike(*(text[head:][::-1] for text in both))
        before, after = (text[max(head - 20, 0) : len(text) - max(tail - 20, 0)] for text in both)
        return f"...{before}... -> ...{after}..."


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def mutants_of(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its lines; each is whole until the next."""
    tree = ast.parse(source)
    for place in list(_places(tree, (), "")):
        for change in _changes(place.node):
            yield from _mutant(tree, place, change)


@dataclass(frozen=True, slots=True)
class _Place:
    node: ast.AST
    # How to get there from the module: names of fields, and positions in lists.
    path: tuple[tuple[str, int | None], ...]
    scope: str
    name: str
    at_import: bool
    first: int
    last: int


def _places(
    node: ast.AST,
    path: tuple[tuple[str, int | None], ...],
    scope: str,
    name: str = "",
    lines: tuple[int, int] = (0, 0),
    runs: bool = False,
) -> Iterator[_Place]:
    if isinstance(node, ast.stmt | ast.match_case | ast.ExceptHandler):
        head = node.pattern if isinstance(node, ast.match_case) else node
        lines = (head.lineno, _end_of_head(node) or head.end_lineno or head.lineno)
    if isinstance(node, ast.Assign | ast.AnnAssign) and len(path) == 1:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        name = target.id if isinstance(target, ast.Name) else ""
    if path and _is_code(node):
        yield _Place(node, path, scope or name, name, not (runs or name), *lines)
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases", "type_comment"):
            continue
        # What stands in the head of a function is worked out where the function is made.
        inside, later = scope, runs
        if field == "body" and isinstance(node, _SCOPES):
            inside = f"{scope}.{node.name}".lstrip(".")
            later = runs or not isinstance(node, ast.ClassDef)
        if isinstance(value, list):
            for at, one in enumerate(value):
                if isinstance(one, ast.AST) and not _is_idle(node, field, at, one):
                    yield from _places(one, (*path, (field, at)), inside, name, lines, later)
        elif isinstance(value, ast.AST) and field != "format_spec":
            yield from _places(value, (*path, (field, None)), inside, name, lines, later)


def _is_code(node: ast.AST) -> bool:
    return isinstance(node, ast.expr | ast.stmt | ast.comprehension | ast.match_case | ast.Match)


def _is_idle(node: ast.AST, field: str, at: int, one: ast.AST) -> bool:
    """A docstring, what stands between the values of an f-string, a last `return None`."""
    if isinstance(node, ast.JoinedStr):
        return isinstance(one, ast.Constant)
    if not isinstance(node, (ast.Module, *_SCOPES)) or field != "body":
        return False
    if at == 0 and isinstance(one, ast.Expr):
        return isinstance(one.value, ast.Constant)
    last = at == len(node.body) - 1
    return last and isinstance(one, ast.Return) and (one.value is None or _is_none(one.value))


def _end_of_head(node: ast.AST) -> int | None:
    """Where the condition of a block ends: a test that only passes by has seen it."""
    body = getattr(node, "body", None)
    if isinstance(node, ast.match_case):
        return node.pattern.end_lineno
    if isinstance(node, ast.Match):
        return node.subject.end_lineno
    return body[0].lineno - 1 if isinstance(body, list) and body else None


def _changes(node: ast.AST) -> Iterator[Change]:
    """What can be done to one node; a change gets a copy of it and returns what takes its place."""
    match node:
        case ast.Compare(ops=[operator]):
            for other in _COMPARED[type(operator)]:
                yield _set("ops", [other()])
        case ast.Compare(ops=operators):
            for at, operator in enumerate(operators):
                for other in _COMPARED[type(operator)]:
                    yield _set("ops", [*operators[:at], other(), *operators[at + 1 :]])
        case ast.BoolOp(op=operator, values=values):
            yield _set("op", ast.Or() if isinstance(operator, ast.And) else ast.And())
            for at in range(len(values)):
                rest = _without(values, at)
                yield _set("values", rest) if len(rest) > 1 else _becomes(rest[0])
        case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub(), operand=operand):
            yield _becomes(operand)
        case ast.BinOp(op=operator) if type(operator) in _COUNTED:
            yield _set("op", _COUNTED[type(operator)]())
        case ast.AugAssign(op=operator) if type(operator) in _COUNTED:
            yield _set("op", _COUNTED[type(operator)]())
            yield _becomes(ast.Pass())
        case ast.Constant(value=bool(value)):
            yield _set("value", not value)
        case ast.Constant(value=int(value) | float(value)):
            yield _set("value", value + 1)
        case ast.Constant(value=str(value)) if sql.is_sql(value):
            for text in sql.changed(value):
                yield _set("value", text)
        case ast.JoinedStr(values=values) if sql.is_sql(_written(values)):
            for at, one in enumerate(values):
                for text in sql.changed(_written([one])):
                    yield _set("values", [*values[:at], ast.Constant(text), *values[at + 1 :]])
        case ast.Constant(value=str(value)) if " " not in value:
            yield _set("value", f"XX{value}")
        case ast.Call(func=called, args=args) if _name(called) in _CONDITIONS and len(args) > 1:
            for at in range(len(args)):
                yield _set("args", _without(args, at))
        case ast.Dict(keys=keys, values=values):
            for at in range(len(keys)):
                yield _becomes(ast.Dict(_without(keys, at), _without(values, at)))
        case ast.Set(elts=elements) if len(elements) > 1:
            for at in range(len(elements)):
                yield _set("elts", _without(elements, at))
        case ast.IfExp(body=body, orelse=orelse):
            yield _becomes(body)
            yield _becomes(orelse)
        case ast.If(test=test) | ast.While(test=test):
            yield _set("test", ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[_, *_] as conditions):
            for at in range(len(conditions)):
                yield _set("ifs", _without(conditions, at))
        case ast.Return(value=ast.expr() as value) if not _is_none(value) and not _is_bool(value):
            yield _set("value", ast.Constant(None))
        case ast.Expr(value=ast.Call() | ast.Await() | ast.Yield()) | ast.Raise():
            yield _becomes(ast.Pass())
        case ast.Return() | ast.Continue():
            yield _becomes(ast.Pass())
        case ast.Break():
            yield _becomes(ast.Pass())
        case ast.match_case(guard=ast.expr()):
            yield _set("guard", None)
        case ast.Match(cases=cases) if len(cases) > 1:
            for at in range(len(cases)):
                yield _set("cases", _without(cases, at))
        case _:
            return


def _written(values: list[ast.expr]) -> str:
    """What stands between the values of an f-string."""
    return "?".join(str(one.value) for one in values if isinstance(one, ast.Constant))


def _without(some: list[Some], at: int) -> list[Some]:
    return [*some[:at], *some[at + 1 :]]


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_bool(node: ast.expr) -> bool:
    """What is true or false is turned round by itself; None would only be false again."""
    known = isinstance(node, ast.Constant) and isinstance(node.value, bool)
    return known or isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp)


def _name(called: ast.expr) -> str:
    return getattr(called, "attr", getattr(called, "id", ""))


def _set(field: str, value: object) -> Change:
    def change(node: ast.AST) -> ast.AST:
        setattr(node, field, copy.deepcopy(value))
        return node

    return change


def _becomes(other: ast.AST) -> Change:
    return lambda _: copy.deepcopy(other)


def _mutant(tree: ast.Module, place: _Place, change: Change) -> Iterator[Mutant]:
    parent: ast.AST = tree
    for name, position in place.path[:-1]:
        value = getattr(parent, name)
        parent = value if position is None else value[position]
    changed = change(copy.deepcopy(place.node))
    if changed is not None:
        ast.fix_missing_locations(ast.copy_location(changed, place.node))
    _put(parent, place.path[-1], changed)
    yield Mutant(
        scope=place.scope,
        line=place.first,
        last_line=place.last,
        name=place.name,
        at_import=place.at_import,
        before=_head(place.node),
        after=_head(changed),
        tree=tree,
    )
    _put(parent, place.path[-1], place.node)


def _put(parent: ast.AST, where: tuple[str, int | None], node: ast.AST | None) -> None:
    field, at = where
    if at is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[at] = node


def _head(node: ast.AST | None) -> str:
    """A node in one line; of a block only what stands before its body."""
    match node:
        case ast.If(test=test) | ast.While(test=test):
            return f"if {ast.unparse(test)}"
        case ast.Match(subject=subject, cases=cases):
            known = ", ".join(_head(one) for one in cases)
            return f"match {ast.unparse(subject)}: {known}"
        case ast.match_case(pattern=pattern, guard=guard):
            return ast.unparse(pattern) + (f" if {ast.unparse(guard)}" if guard else "")
        case ast.comprehension(target=target, ifs=ifs):
            return f"for {ast.unparse(target)} " + " ".join(f"if {ast.unparse(i)}" for i in ifs)
        case None:
            return "nothing"
    return " ".join(ast.unparse(node).split())
