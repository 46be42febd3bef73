"""The command line: Hydra's words train; a verb in front of them does everything else."""

import sys
from difflib import get_close_matches
from importlib import import_module

from alignbench.commands.environment import prepare_environment

VERBS = {
    "report": "write the comparison report of a study",
    "compare": "let a model answer before and after training, and compare the answers",
    "merge": "merge the adapter of a finished run into its base model",
    "sync": "log to MLflow what it missed, and mark interrupted runs",
    "check-reward": "score a file of responses with a reward",
    "genrm": "write UltraFeedback as training data of a generative reward model",
    "ui": "start MLflow with the prepared dashboards of a study",
}


def main() -> None:
    """The console script. Exit codes: 0 done, 1 broken, 2 a mistake in the words, the config or the data,
    130 interrupted; a sweep adds 3 (a job failed) and 4 (the fairness check refuses the comparison)."""
    sys.argv[0] = "alignbench"
    prepare_environment()
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in VERBS:
        command = import_module(f"alignbench.commands.{verb.replace('-', '_')}")
        sys.exit(command.main(sys.argv[2:]))
    refuse_unknown_verb(verb)
    from alignbench.commands import train

    train.main(VERBS)


def refuse_unknown_verb(word: str) -> None:
    """Exit with code 2 where the first word is neither a verb, an override nor a flag."""
    if not word or "=" in word or word.startswith(("-", "~")):
        return
    near = get_close_matches(word, VERBS, n=1)
    hint = f"did you mean {near[0]}?" if near else "give overrides such as algo=grpo, or a verb"
    sys.stderr.write(f"error: there is no verb {word!r}; {hint} (see --help)\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
