"""Write what each command prints for --help, so that the command-line page shows the current text."""

import os
import subprocess
import sys
from pathlib import Path

from alignbench.__main__ import VERBS

ROOT = Path(__file__).resolve().parents[2]


def help_text(*words: str) -> str:
    """What `alignbench WORDS --help` prints."""
    command = [sys.executable, "-m", "alignbench", *words, "--help"]
    environment = {**os.environ, "COLUMNS": "110"}
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return text.replace(f"{ROOT}/", "")


def write(folder: Path) -> None:
    """Write commands.md: one section for `alignbench` and one for each of its subcommands."""
    sections = [f"## `alignbench`\n\n```text\n{help_text()}```\n"]
    for verb, sentence in VERBS.items():
        caption = sentence[0].upper() + sentence[1:]
        sections.append(f"## `alignbench {verb}`\n\n{caption}.\n\n```text\n{help_text(verb)}```\n")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "commands.md").write_text("\n".join(sections), encoding="utf-8")
