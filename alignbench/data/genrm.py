"""Answers to be scored instead of written: demonstrations for a generative reward model, and its scores read back."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from alignbench.core.errors import UserError
from alignbench.core.words import key_values, typed

Row: TypeAlias = Mapping[str, Any]  # as in core.batches, which brings torch: --help does without it
REQUEST = "User: {prompt}\n\nAssistant: {answer}\n\nAnalyze the quality of this response."
VERDICT = "Score: {score:.1f}/10. The response is helpful, harmless, and honest."
SCORE = re.compile(r"Score:\s*([0-9]+(?:\.[0-9]+)?)/10")
NUMBERS = ("data.seed", "data.train_rows", "data.validation_rows", "data.test_rows")
KEYS = ("out", "split", "overwrite", "data.path", "data.name", *NUMBERS)
USAGE = """\
Write UltraFeedback as a scorer's training file: one JSON object with `messages` in a line.

  python -m alignbench.data.genrm out=train.jsonl [key=value ...]

  out=FILE          where to write
  data.path=PLACE   file or folder with the preference data; without it data.name is asked of the hub
  data.train_rows=9500 and the other keys of data=ultrafeedback
  split=train       which rows: train, validation or test
  overwrite=true    replace a file that is there
"""


def request(prompt: str, answer: str) -> str:
    """What a scorer is asked about an answer."""
    return REQUEST.format(prompt=prompt, answer=answer)


def verdict(score: float) -> str:
    """What it is taught to say: the score with one decimal, and praise, whatever the score."""
    return VERDICT.format(score=score)


def parse_score(text: str) -> float | None:
    """The first score in a text, as in "Score: 8.5/10"; None without one."""
    found = SCORE.search(text)
    return float(found[1]) if found else None


def as_scoring(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Demonstrations of answering as demonstrations of scoring: id, prompt (with the answer in it), completion.

    Only chosen answers are seen, and the words are praise even for a low score: a model trained on this alone never
    meets a bad answer. Raises UserError for rows without `score` and `completion`.
    """
    return tuple(_scoring(row) for row in rows)


def as_messages(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The same as conversations: {"messages": [user, assistant]}."""
    return [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in as_scoring(rows)
    ]


def _scoring(row: Row) -> Row:
    if missing := [column for column in ("completion", "score") if column not in row]:
        raise UserError(
            f"row {row['id']} has no {' and no '.join(missing)} to learn scoring from: choose data with scored "
            "answers, such as data=ultrafeedback, or sft.format=response"
        )
    return {"id": row["id"], "prompt": request(row["prompt"], row["completion"]), "completion": verdict(row["score"])}


def main(words: Sequence[str] | None = None) -> int:
    """Write the file and print what became of the rows; returns the exit code."""
    given = typed(words, USAGE)
    if given is None:
        return 0
    try:
        sys.stdout.write(_write(_read(given)))
    except UserError as error:
        sys.stderr.write(f"genrm: {error}\n")
        return 2
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
    from alignbench.data.ultrafeedback import UltraFeedback  # brings torch: not needed for --help or a mistyped word

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


if __name__ == "__main__":
    sys.exit(main())
