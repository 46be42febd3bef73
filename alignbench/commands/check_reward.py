"""Command `alignbench check-reward`: scores a file of responses with a reward before training."""

import sys
from collections.abc import Sequence
from typing import Any

from alignbench.commands.error_messages import report_errors
from alignbench.core.cli_args import read_arguments
from alignbench.core.errors import UserError

KEYS = ("path", "prompt", "response", "reference", "label")
USAGE = """\
Score a file of responses with a reward before training on it.

  alignbench check-reward reward=OPTION path=FILE [key=value ...]

  reward=OPTION      a reward of conf/reward, such as gsm8k_hybrid; its settings as for a run: reward.clip=true
  path=FILE          json, jsonl, either with .gz, parquet, or a folder of such files; for example a run's eval.jsonl
  response=COLUMN    column with the responses (default: response, or completion)
  prompt=COLUMN      column with the prompts (default: prompt)
  reference=COLUMN   column with the reference answers (default: reference)
  label=COLUMN       column that is true for correct responses (default: correct, if the file has it)

Prints the distribution of the scores, the mean of each component, and the responses with the lowest and highest scores.
With labels also the AUC: the probability that a correct response scores above an incorrect one.

Example: alignbench check-reward reward=exact_match path=outputs/runs/STUDY/RUN/eval.jsonl
Exit code: 0 scored, 2 wrong input.
"""


def main(words: Sequence[str] | None = None) -> None:
    """Score the file that the command line names and print the report."""
    given = read_arguments(words, USAGE)
    if given is None:
        return
    with report_errors():
        sys.stdout.write(_check(given))


def _check(words: Sequence[str]) -> str:
    own = dict(word.split("=", 1) for word in words if word.partition("=")[0] in KEYS and "=" in word)
    overrides = [word for word in words if word.partition("=")[0] not in KEYS]
    if unknown := [word for word in overrides if not word.lstrip("+~").startswith("reward")]:
        raise UserError(
            f"{unknown[0]!r} is not understood; use reward=OPTION, reward.KEY=VALUE or one of "
            f"{', '.join(KEYS)} (see --help)"
        )
    if "path" not in own or not any(word.startswith("reward=") for word in overrides):
        raise UserError("name a reward and a file: alignbench check-reward reward=OPTION path=FILE (see --help)")
    from alignbench.rewards import check  # imports torch, which --help and a mistyped argument do not need

    reward = compose(overrides)
    responses = check.load_responses(own.pop("path"), own)
    return check.format_report(responses, check.score_responses(reward, responses))


def compose(overrides: Sequence[str]) -> Any:
    """The reward of these overrides, as a run builds it."""
    from alignbench.runs.compose import compose_groups
    from alignbench.runs.settings import section

    return section(compose_groups({"reward": "exact_match"}, overrides)["reward"], "reward")
