"""The command `alignbench sync`: logs to MLflow what it lacks, and marks interrupted runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from alignbench.core.cli_args import read_arguments

USAGE = """\
Log to MLflow what it lacks of runs that have ended, and mark runs whose process died as interrupted.

  alignbench sync [FOLDER ...]

  FOLDER       an output folder, or any folder of runs (default: outputs)

Each metric value is logged once, however often this command runs. Active runs are skipped. Exit code: 0 done, 1 MLflow
cannot be reached.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Complete every run in these folders. Returns the exit code."""
    folders = read_arguments(words, USAGE)
    if folders is None:
        return 0
    from alignbench.store.sync import complete_run, find_ended_runs

    failed = 0
    for run in [run for folder in folders or ["outputs"] for run in find_ended_runs(Path(folder))]:
        try:
            done = complete_run(run)
        except Exception as error:  # noqa: BLE001  a server, its database and its network raise errors of any kind
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            failed, done = 1, f"MLflow cannot be reached: {reason}"
        if done:
            sys.stdout.write(f"{run}: {done}\n")
    return failed
