"""Mutations of a source file, one at a time: operators, comparisons, signs, constants and extremes."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SWAPS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.BitAnd: ast.BitOr,
}
NAMES = {"min": "max", "max": "min", "mean": "sum", "any": "all", "all": "any"}
UNTOUCHED = (ast.Raise, ast.Assert, ast.JoinedStr, ast.AnnAssign, ast.arg, ast.Import, ast.ImportFrom)
"""Messages, annotations and the defaults of settings: not arithmetic."""


@dataclass(frozen=True)
class Mutation:
    """One changed node of a file."""

    file: str
    index: int
    """The number of the node in the order of the walk."""
    line: int
    description: str


def mutations(root: Path, file: str) -> list[Mutation]:
    """Every mutation of a file."""
    tree = ast.parse((root / file).read_text())
    return [
        Mutation(file, index, node.lineno, description)
        for index, node in enumerate(_nodes(tree))
        if (description := _mutate(copy.deepcopy(node)))
    ]


def mutated(root: Path, mutation: Mutation) -> str:
    """The source of the file with that mutation."""
    tree = ast.parse((root / mutation.file).read_text())
    node = next(node for index, node in enumerate(_nodes(tree)) if index == mutation.index)
    _mutate(node)
    return ast.unparse(ast.fix_missing_locations(tree))


def _nodes(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions that are evaluated when a function runs, in a fixed order."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, UNTOUCHED):
            continue
        if isinstance(child, ast.FunctionDef):
            for part in child.body:
                yield from _inside(part)
        else:
            yield from _nodes(child) if isinstance(child, ast.ClassDef) else ()


def _inside(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, UNTOUCHED) or isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.expr):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _inside(child)


def _mutate(node: ast.expr) -> str | None:
    """Mutate a node in place. Returns the description; None when the node has no mutation."""
    before = ast.unparse(node)
    match node:
        case ast.BinOp() | ast.BoolOp() if type(node.op) in SWAPS:
            node.op = SWAPS[type(node.op)]()
        case ast.Compare() if type(node.ops[0]) in SWAPS:
            node.ops[0] = SWAPS[type(node.ops[0])]()
        case ast.UnaryOp(op=ast.USub()):
            node.op = ast.UAdd()
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant(value=int() | float() as number):
            node.value = number + 1
        case ast.Call(func=ast.Attribute() as called) if called.attr in NAMES:
            called.attr = NAMES[called.attr]
        case _:
            return None
    return f"`{before}` became `{ast.unparse(node)}`"
