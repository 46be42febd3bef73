"""Command `alignbench genrm`: writes UltraFeedback as SFT data for a generative reward model."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignbench.commands.error_messages import report_errors
from alignbench.core.cli_args import parse_key_values, read_arguments
from alignbench.core.errors import UserError

NUMBERS = ("data.seed", "data.train_rows", "data.validation_rows", "data.test_rows")
KEYS = ("out", "split", "overwrite", "data.path", "data.name", *NUMBERS)
USAGE = """\
Write UltraFeedback as SFT data for a generative reward model: JSON lines, each an object with `messages`.

  alignbench genrm out=FILE [key=value ...]

  out=FILE          the file to write, such as train.jsonl
  split=SPLIT       rows to write: train (default), validation or test
  overwrite=true    replace an existing file
  data.path=PATH    file or folder with the preference data (default: load data.name from the hub)
  data.name=NAME    hub dataset (default: HuggingFaceH4/ultrafeedback_binarized)
  data.seed=N  data.train_rows=N  data.validation_rows=N  data.test_rows=N
                    as for data=ultrafeedback (default: 42, 9500, 500, 300)

Prints how many rows were read, dropped and written. Exit code: 0 written, 2 wrong input.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Write the file and print how many rows were read, dropped and written."""
    given = read_arguments(words, USAGE)
    if given is None:
        return 0
    with report_errors():
        sys.stdout.write(_write(_read(given)))
    return 0


def _read(words: Sequence[str]) -> dict[str, str]:
    known = parse_key_values(words, KEYS)
    if not known.get("out"):
        raise UserError("out is not set: name the file to write with out=train.jsonl (see --help)")
    return known


def _write(words: Mapping[str, str]) -> str:
    out, overwrite = Path(words["out"]), words.get("overwrite") == "true"
    if out.exists() and not overwrite:
        raise UserError(f"out={out} exists: give another name, or overwrite=true to replace it")
    # These import torch, which --help and a mistyped argument do not need.
    from alignbench.data.genrm import to_messages
    from alignbench.data.ultrafeedback import UltraFeedback

    settings: dict[str, Any] = {key: _number(key, value) if key in NUMBERS else value for key, value in words.items()}
    data = UltraFeedback(**{key.removeprefix("data."): value for key, value in settings.items() if "data." in key})
    rows = to_messages(data.prompts(words.get("split", "train")))
    try:
        with out.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written: {error.strerror}") from error
    notes = "".join(f"{count:8d} {what}\n" for what, count in data.notes().items())
    return f"{notes}{len(rows):8d} lines written to {out}\n"


def _number(key: str, value: str) -> int:
    if not value.isdecimal() or (key != "data.seed" and int(value) < 1):
        raise UserError(f"{key}={value}: expected an integer of at least {0 if key == 'data.seed' else 1}")
    return int(value)
