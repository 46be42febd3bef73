"""Small changes to a source file, one at a time: other operators, comparisons, signs, constants and extremes."""

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
"""What a message says, what is annotated, and the defaults of knobs: not what is computed."""


@dataclass(frozen=True)
class Mutation:
    """One changed node of a file; `place` is its number in the order of the walk."""

    file: str
    place: int
    line: int
    what: str


def changes(root: Path, file: str) -> list[Mutation]:
    """Every change that can be made to a file."""
    tree = ast.parse((root / file).read_text())
    return [
        Mutation(file, place, node.lineno, told)
        for place, node in enumerate(_nodes(tree))
        if (told := _change(copy.deepcopy(node)))
    ]


def changed(root: Path, change: Mutation) -> str:
    """The source of the file after that change."""
    tree = ast.parse((root / change.file).read_text())
    node = next(node for place, node in enumerate(_nodes(tree)) if place == change.place)
    _change(node)
    return ast.unparse(ast.fix_missing_locations(tree))


def _nodes(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions that are computed when a function runs, in a fixed order."""
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


def _change(node: ast.expr) -> str | None:
    """Change a node in place, and say how; None where there is nothing to change."""
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
        case ast.Constant(value=int() | float()):
            node.value += 1
        case ast.Call(func=ast.Attribute() as called) if called.attr in NAMES:
            called.attr = NAMES[called.attr]
        case _:
            return None
    return f"`{before}` became `{ast.unparse(node)}`"
