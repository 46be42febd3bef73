"""`alignbench merge`: merges the adapter of a run into its base, so that the model loads without peft."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alignbench.commands.error_messages import report_errors
from alignbench.core.cli_args import parse_key_values, read_arguments
from alignbench.core.errors import UserError

KEYS, PRECISIONS = ("run", "to", "dtype"), ("float32", "bfloat16", "float16")
USAGE = f"""\
Merge the adapter of a finished run into its base, and save the full model with its tokenizer and model card.

  alignbench merge run=FOLDER [to=FOLDER] [dtype={"|".join(PRECISIONS)}]

  run=FOLDER   the run's folder, as outputs/runs/<study>/<run>
  to=FOLDER    the output folder (default: merged/ in the run's folder)
  dtype=NAME   the dtype of the weights (default: that of the base in training)

The base is loaded without quantization, on the CPU. For a 4-bit run, the merged model differs slightly from the
trained one. Exit code: 0 merged, 2 wrong input.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Merge the adapter and print the folder of the merged model."""
    arguments = read_arguments(arguments, USAGE)
    if arguments is None:
        return
    with report_errors():
        folder = merge(_read(arguments))
        sys.stdout.write(f"the merged model is in {folder}; its README.md explains how to load it\n")


def _read(arguments: Sequence[str]) -> dict[str, str]:
    known = parse_key_values(arguments, KEYS)
    if "run" not in known:
        raise UserError("run=FOLDER is missing: the run to merge (see --help)")
    if known.get("dtype", PRECISIONS[0]) not in PRECISIONS:
        raise UserError(f"dtype={known['dtype']}: choose one of {', '.join(PRECISIONS)}")
    return known


def merge(options: dict[str, str]) -> Path:
    """Merge the adapter of a run; return the folder of the merged model, which is written atomically.

    Raises:
        UserError: the run has no adapter, or the output folder is not empty.
    """
    from alignbench.core.adapters import TRAINED
    from alignbench.runs.completed_run import CompletedRun  # imports torch: arguments are checked first
    from alignbench.store.disk import atomic_folder
    from alignbench.store.model_card import write_card

    run = CompletedRun.open(options["run"])
    folder = Path(options.get("to", run.folder / "merged"))
    if run.job.model.lora is None:
        raise UserError(f"{run.folder} trained all weights: final/ is already the full model")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"to={folder}: the folder is not empty; choose another one, or remove its files")
    dtype = options.get("dtype", run.dtype)
    model = replace(run.job.model, quantization="none", dtype=dtype)
    adapted, text = replace(run.final, model=model).load("cpu")
    merged = adapted.merge_and_unload(safe_merge=True, adapter_names=[TRAINED])
    with atomic_folder(folder) as output:
        merged.save_pretrained(output)
        text.tokenizer.save_pretrained(output)
        write_card(run.folder, output, "merged", dtype, to_be=folder)
    return folder
