"""The hash of the source that computes an artifact: modules reached by imports, without comments and docstrings."""

import ast
import hashlib
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

PACKAGE = "alignbench"
ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("core", "equations", "data", "kernels", "models", "generation", "engine", "stages")
"""The packages that compute; those above read, write and order."""


@cache
def source_hash(modules: Sequence[str], root: Path = ROOT) -> str:
    """The sha256 of these modules and all modules of `LAYERS` that they import, directly or through one another.

    Comments, docstrings and formatting do not change it; any other change to one of these modules does. The result is
    cached in `__pycache__` by the content of `LAYERS`, because parsing takes tenths of a second.

    Args:
        modules: Dotted names, such as `alignbench.stages.sft`; imports inside of functions are followed too.
        root: The folder of the package.
    """
    files = {module_name(path, root): path for layer in LAYERS for path in sorted((root / layer).rglob("*.py"))}
    texts = {name: path.read_bytes() for name, path in files.items()}
    content = hashlib.sha256(repr((sorted(modules), sys.version_info[:2])).encode())
    for name, text in texts.items():
        content.update(name.encode() + b"\0" + hashlib.sha256(text).digest())
    cached = root / "__pycache__" / f"{modules[0]}-{content.hexdigest()[:16]}.sha256"
    with suppress(OSError):
        return cached.read_text(encoding="ascii")
    found = _hash(modules, texts)
    _write_cache(cached, found)
    return found


def _hash(modules: Sequence[str], texts: dict[str, bytes]) -> str:
    trees: dict[str, ast.Module] = {}
    left = [name for name in modules if name in texts]
    assert len(left) == len(modules), f"no such module in {modules}"
    while left:
        name = left.pop()
        if name not in trees:
            trees[name] = ast.parse(texts[name])
            left += imported(trees[name], texts)
    whole = hashlib.sha256()
    for name in sorted(trees):
        whole.update(f"{name}\0{ast.dump(without_docstrings(trees[name]))}\0".encode())
    return whole.hexdigest()


def imported(tree: ast.Module, known: Collection[str]) -> Iterator[str]:
    """The known modules that a module imports anywhere, with the packages they are in."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name in known)


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The tree without bare strings: docstrings of modules, classes, functions and fields."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not is_text(each)]  # type: ignore[attr-defined]
    return tree


def is_text(node: ast.stmt) -> bool:
    """Whether a statement is a string alone."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def module_name(path: Path, root: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join((PACKAGE, *(part for part in parts if part != "__init__")))


def _write_cache(file: Path, found: str) -> None:
    """Replace the cached hash of these modules; where the folder cannot be written, nothing is cached."""
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        for old in file.parent.glob(f"{file.name.rpartition('-')[0]}-*.sha256"):
            old.unlink(missing_ok=True)
        beside = file.with_name(f"{file.name}.{os.getpid()}")
        beside.write_text(found, encoding="ascii")
        beside.replace(file)
