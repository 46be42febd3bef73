"""Logs to MLflow what it missed, and marks interrupted runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from alignbench.core.cli_args import typed

USAGE = """\
Log to MLflow what runs wrote while it was away, and mark runs whose process is gone as interrupted.

  alignbench sync [FOLDER ...]

  FOLDER       an output folder, or any folder of runs (default: outputs)

Each number is logged once, however often this is run. A run that is going on is left alone. Exit code: 0 done, 1 MLflow
cannot be reached.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Settle every run in these folders. Returns the exit code."""
    given = typed(words, USAGE)
    if given is None:
        return 0
    from alignbench.store.sync import over, settle

    failed = 0
    for run in [run for word in given or ["outputs"] for run in over(Path(word))]:
        try:
            done = settle(run)
        except Exception as error:  # noqa: BLE001  a server, its database and its network raise errors of any kind
            failed, done = 1, f"MLflow cannot be told: {str(error).splitlines()[0][:300]}"
        if done:
            sys.stdout.write(f"{run}: {done}\n")
    return failed
