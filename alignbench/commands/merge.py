"""An adapter merged into its base: a run's model as one that transformers loads without peft."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alignbench.commands.error_messages import report_errors
from alignbench.core.cli_args import parse_key_values, read_arguments
from alignbench.core.errors import UserError

KEYS, PRECISIONS = ("run", "to", "dtype"), ("float32", "bfloat16", "float16")
USAGE = f"""\
Merge the adapter of a finished run into its base, and save the whole model with its tokenizer and its card.

  alignbench merge run=FOLDER [to=FOLDER] [dtype={"|".join(PRECISIONS)}]

  run=FOLDER   the run's folder, as outputs/runs/<study>/<run>
  to=FOLDER    where the model goes (default: merged/ in the run's folder)
  dtype=NAME   the precision of its weights (default: that of the base in training)

The base is loaded without quantisation, on the CPU: of a run in 4 bits the merged model differs a little from the one
that was trained. Exit code: 0 merged, 2 wrong input.
"""


def main(words: Sequence[str] | None = None) -> None:
    """Merge, and say where the model is."""
    given = read_arguments(words, USAGE)
    if given is None:
        return
    with report_errors():
        folder = merge(_read(given))
        sys.stdout.write(f"the merged model is in {folder}; its README.md says how to load it\n")


def _read(words: Sequence[str]) -> dict[str, str]:
    known = parse_key_values(words, KEYS)
    if "run" not in known:
        raise UserError("say which run: alignbench merge run=FOLDER (see --help)")
    if known.get("dtype", PRECISIONS[0]) not in PRECISIONS:
        raise UserError(f"dtype={known['dtype']}: choose one of {', '.join(PRECISIONS)}")
    return known


def merge(words: dict[str, str]) -> Path:
    """The folder of the merged model, made whole or not at all."""
    from alignbench.core.adapters import TRAINED
    from alignbench.runs.completed_run import CompletedRun  # brings torch: not needed for a mistyped word
    from alignbench.store.disk import atomic_folder
    from alignbench.store.model_card import write_card

    run = CompletedRun.open(words["run"])
    folder = Path(words.get("to", run.folder / "merged"))
    if run.job.model.lora is None:
        raise UserError(f"{run.folder} trained all weights: its final/ is the whole model, there is nothing to merge")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"to={folder}: it is not empty; choose another folder, or remove what is there")
    dtype = words.get("dtype", run.dtype)
    model = replace(run.job.model, quantization="none", dtype=dtype)
    adapted, text = replace(run.final, model=model).load("cpu")
    whole = adapted.merge_and_unload(safe_merge=True, adapter_names=[TRAINED])
    with atomic_folder(folder) as filling:
        whole.save_pretrained(filling)
        text.tokenizer.save_pretrained(filling)
        write_card(run.folder, filling, "merged", dtype, to_be=folder)
    return folder
