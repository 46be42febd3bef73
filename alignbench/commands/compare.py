"""`alignbench compare`: generates and scores answers of a base and a trained model, then compares them."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignbench.commands.error_messages import report_errors
from alignbench.core.cli_args import read_arguments
from alignbench.core.errors import UserError
from alignbench.runs import analysis_process

KEYS = ("after", "before", "prompts", "samples", "to")
GROUPS = ("reward", "data", "hardware")
READ = (
    *GROUPS,
    "eval.decoding",
    "eval.temperature",
    "eval.seed",
    "eval.max_new_tokens",
    "rl.max_new_tokens",
    "rl.max_prompt_tokens",
    "rl.too_long",
)
"""Config keys that the command reads, and so accepts as overrides."""
USAGE = """\
Generate answers of an original and a trained model to the same prompts, score them, and report the changes.

  alignbench compare after=FOLDER [key=value ...]

  after=FOLDER     the run of the trained model, as outputs/runs/<study>/<run>, or its final/
  before=start     the original: start, the model at the start of reinforcement learning (default); base, the model
                   before any training; another run; a folder of weights or of an adapter; a hub name
  prompts=test     the prompts: train, validation or test of the run's data (default: test), or a file of rows with
                   `prompt` and the columns of the reward, such as `reference` (json, jsonl, their .gz, parquet)
  samples=4        answers to each prompt, sampled at eval.temperature; 1, the default, decodes as set in eval.decoding
  to=FOLDER        the output folder (default: before_after/ in the run's folder)
  reward=OPTION    replaces the reward of the run; data= and hardware= likewise
  KEY=VALUE        a key of these groups, or one of eval.decoding, eval.temperature, eval.seed, eval.max_new_tokens,
                   rl.max_new_tokens, rl.max_prompt_tokens, rl.too_long

Both models get the same prompts, the same decoding and the same random numbers. Output: before.jsonl, after.jsonl,
settings.json, before_after.json and before_after.md. Exit code: 0 compared, 2 wrong input.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate, score and compare."""
    arguments = read_arguments(arguments, USAGE)
    if arguments is None:
        return
    with report_errors():
        folder = compare(arguments)
        sys.exit(analysis_process.before_after(folder / "before.jsonl", folder / "after.jsonl", folder))


def compare(arguments: Sequence[str]) -> Path:
    """Write the answers of both models. Returns the folder that contains them.

    Raises:
        UserError: an argument is invalid.
    """
    own, changes = _read(arguments)
    from alignbench.runs.completed_run import CompletedRun
    from alignbench.runs.paired_generation import PairedGeneration  # imports torch: arguments are checked first
    from alignbench.store.disk import make_folder, write_atomically

    run, prompts, samples = CompletedRun.open(own["after"]), own.get("prompts", "test"), _count(own.get("samples", "1"))
    before, after = run.weights(own.get("before", "start")), run.final
    generation = PairedGeneration.from_run(replace(run, config=_changed(run.config, changes)), prompts, samples)
    folder = make_folder(Path(own.get("to", run.folder / "before_after")))
    for side, weights in (("before", before), ("after", after)):
        sys.stdout.write(f"{side}: {weights.name}, {len(generation.rows)} prompts x {samples}\n")
        sys.stdout.flush()
        lines = (json.dumps(answer, ensure_ascii=False) for answer in generation.answers(weights))
        write_atomically(folder / f"{side}.jsonl", "\n".join(lines) + "\n")
    write_atomically(folder / "settings.json", json.dumps({"prompts": prompts, **generation.settings}, indent=2) + "\n")
    return folder


def _read(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split the arguments into keys of this command and overrides of the run's config; others raise UserError."""
    own, changes = dict[str, str](), list[str]()
    for argument in arguments:
        key, equals, value = argument.lstrip("+").partition("=")
        if equals and key in KEYS:
            own[key] = value
        elif equals and (key in READ or key.partition(".")[0] in GROUPS):
            changes.append(f"{key}={value}")
        else:
            raise UserError(
                f"{argument!r} is not understood; use key=value with {', '.join((*KEYS, *READ))} (see --help)"
            )
    if "after" not in own:
        raise UserError("after=FOLDER is missing: the run of the trained model (see --help)")
    return own, changes


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise UserError(f"samples={text}: give a whole number, 1 or more")
    return int(text)


def _changed(config: Any, changes: Sequence[str]) -> dict[str, Any]:
    """The config with overrides applied; they are validated when the settings are built."""
    from omegaconf import OmegaConf

    from alignbench.runs.compose import compose_groups

    options = dict(argument.split("=", 1) for argument in changes if argument.partition("=")[0] in GROUPS)
    keys = [argument for argument in changes if argument.partition("=")[0] not in GROUPS]
    chosen = {**config, **(compose_groups(options) if options else {}), "names": {**config["names"], **options}}
    chosen["names"] = {name: chosen["names"][name] for name in config["names"]}  # hardware is not part of a run's name
    merged = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(chosen), OmegaConf.from_dotlist(keys)))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}
