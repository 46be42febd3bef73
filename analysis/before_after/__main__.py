"""Entry point of the before-after comparison: two files of answers in, JSON, Markdown and a summary out."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignbench.core.cli_args import parse_key_values, read_arguments
from alignbench.core.errors import UserError

KEYS = ("run", "before", "after", "to")
USAGE = """\
Compare the answers of two models to the same prompts, problem by problem.

  python -m analysis.before_after run=FOLDER               the end of a run against its start of RL
  python -m analysis.before_after before=FILE after=FILE   two files of answers, such as the eval.jsonl of two runs

  to=FOLDER    output folder of before_after.json and before_after.md (default: that of the run or of `after`)

`python -m alignbench.commands.compare` generates answers to other prompts and compares them in the same way.
Exit code: 0 compared, 2 invalid input.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Write the comparison and print a summary; returns the exit code."""
    given = read_arguments(words, USAGE)
    if given is None:
        return 0
    try:
        _compare(_read(given))
    except UserError as error:
        sys.stderr.write(f"analysis: {error}\n")
        return 2
    return 0


def _read(words: Sequence[str]) -> dict[str, str]:
    known = parse_key_values(words, KEYS)
    if empty := [key for key, value in known.items() if not value]:
        raise UserError(f"{empty[0]}= is empty: give a folder or a file (see --help).")
    if ("run" in known) == bool({"before", "after"} & known.keys()) or ("before" in known) != ("after" in known):
        raise UserError("give run=FOLDER, or before=FILE and after=FILE (see --help).")
    return known


def _compare(words: dict[str, str]) -> None:
    from .changes import compute_changes, problems  # imported here: --help and input errors need no heavy imports
    from .page import Page, as_json, as_markdown, terminal_text

    files = _files(words)
    rows = [_rows(file) for file in files]
    folder = Path(words.get("to", files[1].parent))
    found = problems(*rows)
    page = Page(
        names=_names(words, files, rows),
        files=(str(files[0]), str(files[1])),
        settings=_settings(files[1].parent / "settings.json"),
        problems=found,
        changes=compute_changes(found),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "before_after.json").write_text(as_json(page), encoding="utf-8")
    (folder / "before_after.md").write_text(as_markdown(page), encoding="utf-8")
    sys.stdout.write(f"{terminal_text(page)}\n page  {folder / 'before_after.md'}\n")


def _files(words: dict[str, str]) -> tuple[Path, Path]:
    if "run" not in words:
        return Path(words["before"]), Path(words["after"])
    start, end = (Path(words["run"]) / name for name in ("eval_start.jsonl", "eval.jsonl"))
    if end.is_file() and not start.is_file():
        raise UserError(
            f"{words['run']} has no eval_start.jsonl with the answers before RL: generate them with "
            f"python -m alignbench.commands.compare after={words['run']}"
        )
    return start, end


def _rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a file of answers. Raises UserError for missing rows or keys."""
    from ..study.files import read_lines

    notes: list[str] = []
    rows = read_lines(file, notes)
    if not rows:
        raise UserError(f"{file}: {'the file has no answers' if file.is_file() else 'file not found'}.")
    for number, row in enumerate(rows, start=1):
        if missing := [key for key in ("prompt_id", "prompt", "response", "scores") if key not in row]:
            raise UserError(f"{file}, line {number}: no {missing[0]!r}; rows must be as in the eval.jsonl of a run.")
    for note in notes:
        sys.stderr.write(f"warning: {note}\n")
    return rows


def _names(words: dict[str, str], files: Sequence[Path], rows: Sequence[list[dict[str, Any]]]) -> tuple[str, str]:
    if "run" in words:
        name = Path(words["run"]).resolve().name
        return f"start of {name}", f"end of {name}"
    before, after = (str(own[0].get("model", file)) for file, own in zip(files, rows, strict=True))
    return before, after


def _settings(file: Path) -> dict[str, Any] | None:
    from ..study.files import read_json

    return read_json(file) or None


if __name__ == "__main__":
    sys.exit(main())
