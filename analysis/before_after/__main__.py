"""The door of a before-and-after comparison: two files of answers in, numbers, a page and a few lines out."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignbench.core.cli_args import parse_key_values, read_arguments
from alignbench.core.errors import UserError

KEYS = ("run", "before", "after", "to")
USAGE = """\
Compare the answers of two models to the same prompts, problem by problem.

  python -m analysis.before_after run=FOLDER               a run's end against what reinforcement learning began with
  python -m analysis.before_after before=FILE after=FILE   two files of answers, such as the eval.jsonl of two runs

  to=FOLDER    where before_after.json and before_after.md go (default: the run's folder, or that of `after`)

`python -m alignbench.commands.compare` draws answers to other prompts, several to each, and ends with this.
Exit code: 0 compared, 2 wrong input.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Write the comparison and print it in brief; returns the exit code."""
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
        raise UserError(f"{empty[0]}= names nothing: give a folder or a file (see --help).")
    if ("run" in known) == bool({"before", "after"} & known.keys()) or ("before" in known) != ("after" in known):
        raise UserError("say what to compare: run=FOLDER, or before=FILE and after=FILE (see --help).")
    return known


def _compare(words: dict[str, str]) -> None:
    from .changes import changes, problems  # heavy: not needed for --help or a mistyped word
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
        changes=changes(found),
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
            f"{words['run']} did not keep the answers that it began with: draw them anew with "
            f"python -m alignbench.commands.compare after={words['run']}"
        )
    return start, end


def _rows(file: Path) -> list[dict[str, Any]]:
    """The answers in a file, with all that is read of them."""
    from ..study.files import read_lines

    notes: list[str] = []
    rows = read_lines(file, notes)
    if not rows:
        raise UserError(f"{file}: {'no answers in it' if file.is_file() else 'no such file'}.")
    for number, row in enumerate(rows, start=1):
        if missing := [key for key in ("prompt_id", "prompt", "response", "scores") if key not in row]:
            raise UserError(f"{file}, line {number}: no {missing[0]!r}; an answer is a row as in a run's eval.jsonl.")
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
