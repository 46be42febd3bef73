"""Writes UltraFeedback as training data of a generative reward model."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignbench.commands.error_messages import reported
from alignbench.core.cli_args import key_values, typed
from alignbench.core.errors import UserError

NUMBERS = ("data.seed", "data.train_rows", "data.validation_rows", "data.test_rows")
KEYS = ("out", "split", "overwrite", "data.path", "data.name", *NUMBERS)
USAGE = """\
Write UltraFeedback as a scorer's training file: one JSON object with `messages` in a line.

  alignbench genrm out=train.jsonl [key=value ...]

  out=FILE          where to write
  data.path=PLACE   file or folder with the preference data; without it data.name is loaded from the hub
  data.train_rows=9500 and the other keys of data=ultrafeedback
  split=train       which rows: train, validation or test
  overwrite=true    replace a file that is there
"""


def main(words: Sequence[str] | None = None) -> int:
    """Write the file and print what became of the rows."""
    given = typed(words, USAGE)
    if given is None:
        return 0
    with reported():
        sys.stdout.write(_write(_read(given)))
    return 0


def _read(words: Sequence[str]) -> dict[str, str]:
    known = key_values(words, KEYS)
    if not known.get("out"):
        raise UserError("say where to write: out=train.jsonl (see --help)")
    return known


def _write(words: Mapping[str, str]) -> str:
    out, overwrite = Path(words["out"]), words.get("overwrite") == "true"
    if out.exists() and not overwrite:
        raise UserError(f"out={out} is there already: give another name, or overwrite=true to replace it")
    from alignbench.data.genrm import as_messages
    from alignbench.data.ultrafeedback import UltraFeedback  # imports torch: not needed for --help or a mistyped word

    knobs: dict[str, Any] = {key: _number(key, value) if key in NUMBERS else value for key, value in words.items()}
    data = UltraFeedback(**{key.removeprefix("data."): value for key, value in knobs.items() if "data." in key})
    rows = as_messages(data.prompts(words.get("split", "train")))
    try:
        with out.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written: {error.strerror}") from error
    notes = "".join(f"{count:8d} {what}\n" for what, count in data.notes().items())
    return f"{notes}{len(rows):8d} lines written to {out}\n"


def _number(key: str, value: str) -> int:
    if not value.isdecimal() or (key != "data.seed" and int(value) < 1):
        raise UserError(f"{key}={value}: a whole number from {'0' if key == 'data.seed' else '1'} on is expected")
    return int(value)
