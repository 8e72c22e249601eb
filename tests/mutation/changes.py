"""Small changes to the code of a module, each of which should make a test fail."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Mutant", "mutants"]


@dataclass(frozen=True)
class Mutant:
    """One change: where, what, and the source that it makes."""

    line: int
    statement: frozenset[int]
    what: str
    source: str


Changes = Iterator[tuple[str, ast.AST]]
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
EDGES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
}  # fmt: skip
OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE,
    ast.GtE: ast.Lt, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
FUNCTIONS = {"any": "all", "all": "any", "min": "max", "max": "min"}
DELETED = (ast.Expr, ast.AugAssign, ast.Continue, ast.Break)
PLACES = (ast.Subscript, ast.Attribute)


def _copy(node: Any, **changes: Any) -> Any:
    fields = {name: getattr(node, name) for name in node._fields if hasattr(node, name)}
    return ast.copy_location(type(node)(**{**fields, **changes}), node)


def _without(parts: Sequence[Any], index: int) -> list[Any]:
    return [*parts[:index], *parts[index + 1 :]]


def _statement(node: ast.AST) -> Changes:
    assigned = isinstance(node, ast.Assign) and isinstance(node.targets[0], PLACES)
    bare = isinstance(node, ast.Return) and node.value is None
    if isinstance(node, DELETED) or assigned or bare:
        yield "deleted", ast.Pass()


def _condition(node: ast.AST) -> Changes:
    if isinstance(node, ast.If | ast.IfExp):
        for value in (True, False):
            yield f"condition is {value}", _copy(node, test=ast.Constant(value))
    if isinstance(node, ast.comprehension):
        for index in range(len(node.ifs)):
            yield "filter dropped", _copy(node, ifs=_without(node.ifs, index))
    if isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and for or", _copy(node, op=other)
        for index in range(len(node.values)):
            rest = _without(node.values, index)
            yield f"part {index} dropped", rest[0] if len(rest) == 1 else _copy(node, values=rest)


def _operator(node: ast.AST) -> Changes:
    if isinstance(node, ast.BinOp):
        if type(node.op) in OPERATORS:
            yield "another operator", _copy(node, op=OPERATORS[type(node.op)]())
        yield "left side only", node.left
        yield "right side only", node.right
    if isinstance(node, ast.UnaryOp):
        yield "sign dropped", node.operand
    if isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            for what, table in (("edge", EDGES), ("opposite", OPPOSITES)):
                if type(op) in table:
                    ops = [*node.ops[:index], table[type(op)](), *node.ops[index + 1 :]]
                    yield f"{what} of a comparison", _copy(node, ops=ops)


def _constant(node: ast.AST) -> Changes:
    if not isinstance(node, ast.Constant):
        return
    value = node.value
    if isinstance(value, bool):
        yield "the other truth", _copy(node, value=not value)
    elif isinstance(value, int | float):
        step = 1 if isinstance(value, int) else 0.5
        yield "one more", _copy(node, value=value + step)
        yield "one less", _copy(node, value=value - step)
    elif isinstance(value, str) and " " not in value:  # names: longer strings are messages
        yield "another name", _copy(node, value=f"{value}X")


def _call(node: ast.AST) -> Changes:
    if isinstance(node, ast.Call):
        for index, keyword in enumerate(node.keywords):
            if keyword.arg not in (None, "strict"):
                keywords = _without(node.keywords, index)
                yield f"{keyword.arg} dropped", _copy(node, keywords=keywords)
        if isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
            other = ast.Name(FUNCTIONS[node.func.id], ast.Load())
            yield f"{other.id} for {node.func.id}", _copy(node, func=other)
        elif len(node.args) == 2 and not any(isinstance(a, ast.Starred) for a in node.args):
            yield "arguments swapped", _copy(node, args=node.args[::-1])
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) == 2:
        yield "elements swapped", _copy(node, elts=node.elts[::-1])
    if isinstance(node, ast.Slice):
        for bound in ("lower", "upper"):
            if getattr(node, bound) is not None:
                yield f"no {bound} bound", _copy(node, **{bound: None})


KINDS = (_statement, _condition, _operator, _constant, _call)


def _left_alone(tree: ast.Module) -> set[int]:
    """Nodes that are not changed: documentation, types, imports, errors and what is exported."""
    roots: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.Raise | ast.JoinedStr):
            roots.append(node)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            roots.append(node)
        if isinstance(node, ast.FunctionDef):
            roots.append(node.returns)
        if isinstance(node, ast.AnnAssign | ast.arg):
            roots.append(node.annotation)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            roots.append(node if node.targets[0].id == "__all__" else None)
        if isinstance(node, ast.keyword) and node.arg == "strict":
            roots.append(node)
    return {id(part) for root in roots if root is not None for part in ast.walk(root)}


def mutants(source: str) -> list[Mutant]:
    """All changes of a module, each by itself."""
    tree = ast.parse(source)
    alone, original = _left_alone(tree), ast.unparse(tree)
    found: dict[str, Mutant] = {}
    for place, name, index, node, statement in _places(tree):
        if id(node) in alone:
            continue
        line = getattr(node, "lineno", statement.lineno)
        for what, new in (change for kind in KINDS for change in kind(node)):
            _put(place, name, index, new)
            text = ast.unparse(ast.fix_missing_locations(tree))
            _put(place, name, index, node)
            if text != original and _compiles(text):
                said = f"{what}: {ast.unparse(node).splitlines()[0][:90]}"
                found.setdefault(text, Mutant(line, _span(statement), said, text))
    return sorted(found.values(), key=lambda mutant: mutant.line)


def _compiles(text: str) -> bool:
    try:
        compile(text, "", "exec")
    except SyntaxError:
        return False
    return True


def _places(tree: ast.AST) -> list[tuple[ast.AST, str, int | None, ast.AST, ast.stmt]]:
    """Every node with its parent, the field it is in, and the statement around it."""
    found: list[tuple[ast.AST, str, int | None, ast.AST, ast.stmt]] = []
    pending: list[tuple[ast.AST, ast.stmt | None]] = [(tree, None)]
    while pending:
        parent, outer = pending.pop()
        for name, value in ast.iter_fields(parent):
            for index, node in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(node, ast.AST):
                    statement = node if isinstance(node, ast.stmt) else outer
                    assert statement is not None
                    place = index if isinstance(value, list) else None
                    found.append((parent, name, place, node, statement))
                    pending.append((node, statement))
    return found


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def _span(statement: ast.stmt) -> frozenset[int]:
    """Lines of a statement, of its head where it has a body."""
    body = getattr(statement, "body", None)
    last = body[0].lineno - 1 if body else statement.end_lineno or statement.lineno
    return frozenset(range(statement.lineno, max(last, statement.lineno) + 1))
