"""Write one page for each method from its config option, its dataclass and the docstring of its module."""

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import OmegaConf

from alignbench.core import field_types
from alignbench.runs.compose import compose
from alignbench.sweep import launcher

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ROOT / "conf" / "algo"
INDEX = ROOT / "docs" / "methods" / "index.md"
RANGES = {
    "Count": "int ≥ 1",
    "Size": "int ≥ 0",
    "Positive": "float > 0",
    "NonNegative": "float ≥ 0",
    "AboveOne": "float > 1",
    "Fraction": "float in [0, 1]",
    "BelowOne": "float in (0, 1)",
    "Momentum": "float in [0, 1)",
}
ARXIV = re.compile(r"(?:https://arxiv\.org/abs/|arXiv )(\d{4}\.\d{4,5})")
Rows = list[tuple[str, str, str, str]]

launcher.register()


def options() -> list[str]:
    """The names of all options of the config group `algo`."""
    return sorted(file.stem for file in OPTIONS.glob("*.yaml"))


def index_table() -> dict[str, tuple[str, str]]:
    """Option -> (description, identity), read from the table of docs/methods/index.md."""
    rows = re.findall(r"^\| \[`(\w+)`\]\(\w+\.md\) \| (.*?) \| (.*?) \|$", INDEX.read_text(encoding="utf-8"), re.M)
    return {name: (what, identity) for name, what, identity in rows}


def header(option: str) -> str:
    """The comment at the top of an option's YAML file, as one paragraph."""
    lines = (OPTIONS / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
    stop = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.lstrip("# ") for line in lines[:stop])


def attribute_docstrings(cls: type) -> dict[str, tuple[str, str]]:
    """Field -> (annotation, sentence) of a dataclass, inherited fields included."""
    found: dict[str, tuple[str, str]] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(inspect.getsource(base)).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, [*body.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = (
                    after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
                )
                known = found.get(node.target.id, ("", ""))[1]
                found[node.target.id] = (ast.unparse(node.annotation), str(text) or known)
    return found


def format_type(annotation: Any, written: str) -> str:
    """The type of a field in words, such as `float in (0, 1) or null`."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if union else (annotation,)
    names = [part.strip() for part in written.split("|")]
    words = []
    for member, name in zip(members, names if len(names) == len(members) else [""] * len(members), strict=True):
        if name in RANGES:
            words.append(RANGES[name])
        elif typing.get_origin(member) is typing.Literal:
            words.append(", ".join(f"`{value}`" for value in typing.get_args(member)))
        elif member is type(None):
            words.append("null")
        elif dataclasses.is_dataclass(member):
            words.append("section")
        else:
            words.append(f"`{name or getattr(member, '__name__', member)}`")
    return " or ".join(words)


def format_value(value: Any) -> str:
    """A default as it is typed on the command line."""
    if value is None:
        return "`null`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def section_class(annotation: Any, value: dict[str, Any]) -> type | None:
    """The dataclass that a nested section is made into."""
    if "_target_" in value:
        return typing.cast(type, get_class(value["_target_"]))
    members = typing.get_args(annotation) or (annotation,)
    return next((member for member in members if dataclasses.is_dataclass(member)), None)


def settings(cls: type, values: dict[str, Any], prefix: str) -> Rows:
    """Key, type, default and sentence of each setting, nested sections after their own key."""
    hints = typing.get_type_hints(cls, include_extras=True)
    rows: Rows = []
    for name, (written, sentence) in attribute_docstrings(cls).items():
        if name not in values:
            continue
        value = values[name]
        nested = section_class(hints[name], value) if isinstance(value, dict) else None
        default = "" if nested else format_value(value)
        rows.append((f"`{prefix}.{name}`", format_type(hints[name], written), default, sentence))
        if nested:
            rows += settings(nested, value, f"{prefix}.{name}")
    return rows


def link_papers(text: str) -> str:
    """Each arXiv number as a link."""
    return ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def format_docstring(text: str) -> str:
    """A docstring as Markdown: indented equations become code blocks, the rest paragraphs with links."""
    indented = re.compile(r"(?:^    .*\n(?:\n(?=    ))?)+", re.MULTILINE)
    text = text.strip("\n") + "\n"
    parts, end = [], 0
    for block in indented.finditer(text):
        parts += [link_papers(text[end : block.start()].strip()), f"```text\n{textwrap.dedent(block[0]).rstrip()}\n```"]
        end = block.end()
    return "\n\n".join(filter(None, [*parts, link_papers(text[end:].strip())]))


def page(option: str, identity: str) -> str:
    """The page of one method."""
    algo = OmegaConf.to_container(compose(f"algo={option}").algo)
    assert isinstance(algo, dict)
    cls = get_class(algo["_target_"])
    module = sys.modules[cls.__module__]
    caption, _, equations = inspect.cleandoc(module.__doc__ or "").partition("\n")
    file = module.__name__.replace(".", "/") + ".py"
    rows = settings(cls, algo, "algo")
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    shared = ""
    if "pairs" in algo:
        shared = "\n\n" + format_docstring(inspect.cleandoc(sys.modules["alignbench.algorithms.pairing"].__doc__ or ""))
    return f"""# {option}

{link_papers(header(option))}

```
alignbench algo={option}
```

## Equation and source

{caption}

{format_docstring(equations)}{shared}

The code is in `{file}`.

## Identity

{identity}. A test in `tests/algorithms` checks it.

## Settings

The defaults are those of `conf/algo/{option}.yaml`. The notation of the equations is explained in
[Methods](index.md#notation).

| key | type | default | meaning |
| --- | --- | --- | --- |
{table}
"""


def write(folder: Path) -> list[Path]:
    """Write all pages into a folder; files whose text is unchanged are left alone. Returns their paths."""
    described = index_table()
    missing = set(options()) ^ set(described)
    if missing:
        raise ValueError(f"{INDEX} and conf/algo differ in {', '.join(sorted(missing))}")
    assert RANGES.keys() <= vars(field_types).keys()
    paths = []
    for option in options():
        path, text = folder / f"{option}.md", page(option, described[option][1])
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
