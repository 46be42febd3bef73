"""README and the pages of docs/ name only commands, options, keys and files that exist."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from small_runs import config

from alignbench import __version__
from alignbench.__main__ import VERBS
from alignbench.core.errors import UserError

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    if path.exists() and not {"_build", "_generated"} & set(path.parts)
)
BLOCK = re.compile(r"^ *(?:```|:::\{code-block\}) *(?:\w+)?\n(.*?)^ *(?:```|:::)", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:\.venv/bin/)?(?:python -m )?alignbench(?: |$)")
PLACEHOLDER = re.compile(r"[A-Z]{2,}|<|\.\.\.|=\w+\|")
GROUPS = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()} | {"sweeps"}
SUBGROUPS = {"algo/kl", "algo/normalizer"}


def of_each_page() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])


def commands(text: str) -> list[list[str]]:
    """The words of each `alignbench ...` line of the code blocks, comments removed and continued lines joined."""
    found = []
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.split(r" {2,}(?:#|(?=[a-z])(?!.*=))| #", line.strip().removeprefix("$ "))[0].strip()
            if COMMAND.match(line):
                found.append(shlex.split(line.partition("alignbench")[2]))
    return found


def without_own_options(words: list[str]) -> list[str]:
    """The words without `--config-dir FOLDER` and, with it, without options that the folder may hold."""
    if "--config-dir" not in words:
        return words
    at = words.index("--config-dir")
    return [word for word in words[:at] + words[at + 2 :] if word.partition("=")[0] not in GROUPS]


def option_exists(group: str, option: str) -> bool:
    folder = ROOT / "sweeps" if group == "sweeps" else ROOT / "conf" / group
    return option == "null" or (folder / f"{option}.yaml").is_file()


def test_commands_are_read_from_code_blocks() -> None:
    text = "```\nalignbench algo=ppo \\\n    'a={b:1}'   # a run\n```\n```python\nimport alignbench\n```\n"
    assert commands(text) == [["algo=ppo", "a={b:1}"]]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180


@of_each_page()
def test_subcommands_and_options_exist(page: Path) -> None:
    for words in map(without_own_options, commands(page.read_text())):
        if words and "=" not in words[0] and not words[0].startswith("-") and words[0] != "...":
            assert words[0] in VERBS, f"{page.name}: alignbench {words[0]}"
        for word in words:
            group, _, options = word.lstrip("+").partition("=")
            if group in GROUPS | SUBGROUPS and not PLACEHOLDER.search(options):
                for option in options.split(","):
                    assert option_exists(group, option), f"{page.name}: {word}"


@of_each_page()
def test_keys_exist(page: Path) -> None:
    for words in map(without_own_options, commands(page.read_text())):
        if words and words[0] in VERBS:
            continue
        kept = [
            word.split(",")[0] if "[" not in word and "{" not in word else word
            for word in words
            if "=" in word and not word.startswith("-") and not word.startswith(("hydra.", "sweeps="))
        ]
        kept = [word for word in kept if not PLACEHOLDER.search(word)]
        try:
            config(*kept)
        except UserError as error:
            pytest.fail(f"{page.name}: alignbench {' '.join(words)}: {error}")


@of_each_page()
def test_linked_files_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    generated = {f"{file.stem}.md" for file in (ROOT / "conf" / "algo").glob("*.yaml")}
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]*)?\)", text):
        if not re.match(r"https?:|mailto:", target) and Path(target).name not in generated:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = json.loads((ROOT / "docs" / "tutorials" / "first_study.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_the_citation_has_the_version_of_the_package() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_package_that_builds_the_documentation_is_pinned() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = (ROOT / "constraints" / "cpu.txt").read_text().lower().replace("_", "-")
    for requirement in extras["docs"]:
        name = re.split(r"[<>=]", requirement)[0]
        assert f"\n{name}==" in pins, name
