"""Logs to MLflow what it lacks of runs that have ended, and marks runs whose process died as interrupted."""

from pathlib import Path

from alignbench.store.disk import is_held
from alignbench.store.follower import FOLLOWER
from alignbench.store.mlflow_run import MLflowRun
from alignbench.store.run_follower import FOLLOWER_LOCK, RunFollower
from alignbench.store.run_status import LOCK, STATUS, reap
from alignbench.store.tracking_info import TRACKING, is_behind, read_info

ARTIFACT_RUN = ".tracking"
"""The suffix of a folder with the records of how an artifact was made."""


def find_ended_runs(folder: Path) -> list[Path]:
    """The run folders in and below a folder that no process uses."""
    found = sorted({path.parent for name in (TRACKING, STATUS) for path in folder.rglob(name)})
    return [run for run in found if not is_held(_run_lock(run)) and not is_held(run / FOLLOWER_LOCK)]


def complete_run(run: Path) -> str | None:
    """Mark a run whose process died as interrupted, and log what MLflow lacks. Returns what was done, None if nothing.

    Raises what the MLflow client raises.
    """
    reaped, behind = reap(run), is_behind(run)
    if behind:
        log_run(run)
    done = [*(["marked interrupted"] if reaped else []), *(["logged to MLflow"] if behind else [])]
    return " and ".join(done) or None


def log_run(run: Path) -> None:
    """Log what MLflow lacks of a run that has ended, each point once. Raises what the MLflow client raises."""
    RunFollower(run, MLflowRun).end(read_info(run).status or "KILLED")


def log_missing_records(run: Path) -> None:
    """Have the follower process log what MLflow lacks of a run that has ended; a warning says if that fails."""
    if is_behind(run):
        FOLLOWER.follow(run)
        FOLLOWER.finish()


def _run_lock(run: Path) -> Path:
    return run.with_suffix(".lock") if run.suffix == ARTIFACT_RUN else run / LOCK
