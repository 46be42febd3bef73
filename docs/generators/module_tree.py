"""Write the tree of modules with their captions into docs/architecture.md: python docs/generators/module_tree.py"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("alignbench", "analysis", "benchmarks", "validation")
START, END = "<!-- module tree: start -->\n", "<!-- module tree: end -->"


def caption(path: Path) -> str:
    """The first line of a module's docstring; empty without one."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def lines(folder: Path, depth: int = 0) -> list[str]:
    """A folder and its modules, one line each; sub-packages come after the modules."""
    indent = "  " * depth
    found = [f"{indent}{folder.name}/"]
    for file in sorted(folder.glob("*.py")):
        text = caption(file)
        if text:
            found.append(f"{indent}  {file.name:<26}  {text}")
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and any(inner.rglob("*.py")):
            found += lines(inner, depth + 1)
    return found


def updated(page: str) -> str:
    """The text of the page with the tree of today between its two marks."""
    before, rest = page.split(START)
    tree = "\n".join("\n".join(lines(ROOT / package)) for package in PACKAGES)
    return f"{before}{START}```text\n{tree}\n```\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
