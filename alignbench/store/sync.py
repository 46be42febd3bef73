"""Log to MLflow what a run wrote while MLflow was away, and mark runs that no process works on any more."""

import logging
from pathlib import Path

from alignbench.store.disk import is_held
from alignbench.store.run_status import LOCK, STATUS, reap
from alignbench.store.tracker import CARD, lacks, sync

logger = logging.getLogger(__name__)
LOGBOOK = ".tracking"
"""How the folder ends that holds the numbers of an artifact's making."""


def over(folder: Path) -> list[Path]:
    """The folders of runs, in it and below it, that no process works on."""
    found = sorted({path.parent for name in (CARD, STATUS) for path in folder.rglob(name)})
    return [run for run in found if not is_held(_lock(run))]


def settle(run: Path) -> str | None:
    """Say how a run ended that could not say it itself, and tell MLflow what it lacks; what was done, in words."""
    reaped, behind = reap(run), lacks(run)
    if behind:
        sync(run)
    done = [*(["marked interrupted"] if reaped else []), *(["told to MLflow"] if behind else [])]
    return " and ".join(done) or None


def log_missing_records(run: Path) -> None:
    """Tell MLflow what it lacks of a run that ended; where that fails, a warning says so."""
    if not lacks(run):
        return
    try:
        sync(run)
    except Exception as error:  # noqa: BLE001  a server, its database and its network raise errors of any kind
        logger.warning("MLflow cannot be told of %s: %s", run, str(error).partition("\n")[0][:300])


def _lock(run: Path) -> Path:
    return run.with_suffix(".lock") if run.suffix == LOGBOOK else run / LOCK
