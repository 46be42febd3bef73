"""The house rules that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

from alignbench.core import metric_names

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path
    for package in ("alignbench", "analysis")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
)
MEASURING = [path for path in MODULES if path.parent.name in ("engine", "phases")]

METRIC = re.compile(r"""["']((?:train|rollout|rewards|group_stats|budget|cost|eval|final|sft|reward_model)/\w+)["']""")
TREE_LINE = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>[\w.]+(?:\.py|/))(?: {2,}(?P<caption>\S.*))?$")


def of_each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=[str(path.relative_to(ROOT)) for path in paths])


def caption(path: Path) -> str:
    """The first line of a module's docstring; empty without one."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def captions(text: str) -> dict[str, str]:
    """Path and caption of each captioned module in the trees of fenced blocks."""
    found: dict[str, str] = {}
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        open_folders: list[tuple[int, str]] = []
        for line in filter(None, map(TREE_LINE.match, block.splitlines())):
            depth, name = len(line["indent"]), line["name"]
            open_folders = [folder for folder in open_folders if folder[0] < depth]
            if name.endswith("/"):
                open_folders.append((depth, name))
            elif line["caption"]:
                found["".join(folder for _, folder in open_folders) + name] = line["caption"].strip()
    return found


def recorded() -> set[str]:
    """Every name that core/record.py lists."""
    values = [value for name, value in vars(metric_names).items() if name.isupper()]
    return {name for value in values for name in ([value] if isinstance(value, str) else value)}


def test_no_drawer_for_odds_and_ends():
    assert MODULES
    assert not [path for path in MODULES if path.stem in ("utils", "util", "helpers", "misc", "common")]


@of_each(MODULES)
def test_every_module_has_a_caption_of_one_line(path):
    line = caption(path)
    assert line, "a module starts with a docstring that says what it is"
    assert len(line) <= 120
    assert line.endswith((".", "?", "!")), "a caption is one sentence on one line"


@of_each(MEASURING)
def test_every_metric_written_is_listed_in_the_record(path):
    assert set(METRIC.findall(path.read_text())) <= recorded()


def test_metrics_are_found_where_they_are_written():
    assert METRIC.findall("""out = {"train/loss": 1, 'eval/kl': 2, f"final/{x}": 3, "data/train.csv": 4}""") == [
        "train/loss",
        "eval/kl",
    ]


def test_a_tree_is_read_by_its_folders():
    tree = (
        "words\n```\nhouse/            the house\n  door.py         Comes in.\n  room/\n    bed.py   Sleeps.\n"
        "  roof.py   Shelters.\n├── attic/\n│   └── box.py   Keeps.\nplain.py\n```\n"
    )
    assert captions(tree) == {
        "house/door.py": "Comes in.",
        "house/room/bed.py": "Sleeps.",
        "house/roof.py": "Shelters.",
        "house/attic/box.py": "Keeps.",
    }


def test_the_architecture_page_shows_each_module_by_its_own_caption():
    displayed = captions((ROOT / "docs" / "architecture.md").read_text())
    modules = {str(path.relative_to(ROOT)): caption(path) for path in MODULES}
    stale = "docs/architecture.md is out of date: run python docs/generators/module_tree.py"
    assert {path: text for path, text in displayed.items() if path in modules} == modules, stale
    assert displayed == {path: caption(ROOT / path) if (ROOT / path).exists() else "" for path in displayed}, stale
