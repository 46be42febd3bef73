"""Follows a recipe of docs/extending.md literally: writes the files of a section and runs its commands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from small_runs import ROOT

from alignbench.commands.environment import ENVIRONMENT

PAGE = ROOT / "docs" / "extending.md"
FILE = re.compile(r"^Save as `([^`]+)`:\n+```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUICK = (
    "hardware=cpu",
    "tracking.enabled=false",
    "sft.batch_size=8",
    "rl.rollouts_per_step=16",
    "rl.max_new_tokens=8",
    "eval.every=2",
    "eval.perplexity_rows=4",
    "model.hidden=32",
    "model.layers=1",
    "model.heads=2",
    "model.intermediate=48",
)
"""Added to each command, so that it takes seconds."""


def section(heading: str) -> str:
    """The text below a heading such as "### A function", up to the next heading of the same or a higher level."""
    level, page = heading.partition(" ")[0], PAGE.read_text(encoding="utf-8")
    assert f"\n{heading}\n" in page, f"{PAGE.name} has no section {heading!r}"
    text = page.partition(f"\n{heading}\n")[2]
    return re.split(rf"^#{{1,{len(level)}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]


def follow(heading: str, folder: Path, *overrides: str) -> list[Path]:
    """Write the files of a section into `folder` and run its commands there; returns the folders of the runs."""
    text = section(heading)
    files, commands = FILE.findall(text), [line for block in COMMAND.findall(text) for line in block.splitlines()]
    assert files, f"no file in {heading!r}"
    assert commands, f"no command in {heading!r}"
    for name, content in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "alignbench"
        done = subprocess.run(
            [sys.executable, "-m", "alignbench", *words, *QUICK, *overrides],
            cwd=folder,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return sorted((folder / "outputs" / "runs" / "single").iterdir())
