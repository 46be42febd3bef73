"""The door of the rewards: a reward and a file of responses in, and whether the one tells the other's right answers."""

import sys
from collections.abc import Sequence
from typing import Any

from alignbench.commands.error_messages import reported
from alignbench.core.cli_args import typed
from alignbench.core.errors import UserError

KEYS = ("path", "prompt", "response", "reference", "label")
USAGE = """\
Score a file of responses with a reward, before anything is trained on it.

  alignbench check-reward reward=OPTION path=FILE [key=value ...]

  reward=gsm8k_hybrid   an option of conf/reward; its keys as for a run: reward.clip=true
  path=FILE             json, jsonl, their .gz, parquet, or a folder of them; a run's eval.jsonl will do
  response=COLUMN       the answers (default: response, else completion)
  prompt=COLUMN  reference=COLUMN       what the reward needs (default: prompt, reference)
  label=COLUMN          true where an answer is right (default: correct, where there is one)

Prints how the scores are spread, the mean of each part, the two ends, and with labels how often a right answer scores
above a wrong one. Exit code: 0 scored, 2 wrong input.
"""


def main(words: Sequence[str] | None = None) -> None:
    """Print what the reward says of the file."""
    given = typed(words, USAGE)
    if given is None:
        return
    with reported():
        sys.stdout.write(_check(given))


def _check(words: Sequence[str]) -> str:
    own = dict(word.split("=", 1) for word in words if word.partition("=")[0] in KEYS and "=" in word)
    overrides = [word for word in words if word.partition("=")[0] not in KEYS]
    if strange := [word for word in overrides if not word.lstrip("+~").startswith("reward")]:
        raise UserError(
            f"{strange[0]!r} is not understood; use reward=OPTION, reward.KEY=VALUE or one of "
            f"{', '.join(KEYS)} (see --help)"
        )
    if "path" not in own or not any(word.startswith("reward=") for word in overrides):
        raise UserError("say which reward and which file: alignbench check-reward reward=OPTION path=FILE (see --help)")
    from alignbench.rewards import check  # brings torch: not needed for a mistyped word

    reward = compose(overrides)
    responses = check.load(own.pop("path"), own)
    return check.report(responses, check.score(reward, responses))


def compose(overrides: Sequence[str]) -> Any:
    """The reward that these words describe, as a run would build it."""
    from alignbench.runs.compose import compose_groups
    from alignbench.runs.settings import section

    return section(compose_groups({"reward": "exact_match"}, overrides)["reward"], "reward")
