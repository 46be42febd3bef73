"""Reads the numbers of a study out of MLflow."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alignbench.core import metric_names

CURVES = ("eval/", "rewards/", "rollout/", "budget/", "train/entropy", "train/clip_fraction", "cost/seconds")


@dataclass(frozen=True)
class Curve:
    """One metric over the steps of a run, in order of the step; a step written twice counts as last written."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """What a tracker knows of one run: the last value of every metric, and how to ask for the curve of one."""

    name: str
    tags: dict[str, str]
    status: str
    started: int
    metrics: dict[str, float]
    history: Callable[[str], Curve]

    def curves(self) -> dict[str, Curve]:
        """The curves that a report draws; a slow question, one to the tracker for each of them."""
        return {name: self.history(name) for name in sorted(self.metrics) if name.startswith(CURVES)}


class TrackerAway(Exception):
    """The tracker cannot be asked now."""


def default_uri(output_dir: Path) -> str:
    """The store that runs in this output folder write to."""
    return f"sqlite:///{(output_dir / 'mlflow.db').resolve()}"


def store_is_there(uri: str) -> bool:
    """A SQLite store that does not exist would be created by reading it."""
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).is_file()


def client_of(uri: str) -> Any:
    """An MLflow client; imported here because it takes seconds, without its telemetry and migration chatter."""
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # what a run wrote is on disk: no need to wait long
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def tracked_runs(uri: str, study: str) -> dict[str, Tracked]:
    """The RL runs of a study by run key; of several MLflow runs of one key the latest counts. Raises TrackerAway."""
    client = client_of(uri)
    _answers(client, uri)
    latest: dict[str, Any] = {}
    for run in _search(client, f"tags.`{metric_names.STUDY}` = '{study}' and tags.`{metric_names.PHASE}` = 'rl'"):
        key = run.data.tags.get(metric_names.KEY, run.info.run_name)
        if key not in latest or run.info.start_time > latest[key].info.start_time:
            latest[key] = run
    return {key: _tracked(client, run) for key, run in latest.items()}


def tracked_studies(uri: str) -> set[str]:
    """The names of all studies in the store. Raises TrackerAway."""
    client = client_of(uri)
    _answers(client, uri)
    found = {run.data.tags.get(metric_names.STUDY, "") for run in _search(client, "")}
    return found - {""}


def _answers(client: Any, uri: str) -> None:
    """Raise TrackerAway unless somebody answers; later failures are true failures."""
    from mlflow.exceptions import MlflowException

    try:
        client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise TrackerAway(f"MLflow at {uri} does not answer ({str(error).splitlines()[0][:200]})") from error


def _search(client: Any, condition: str) -> list[Any]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs(experiments, condition, max_results=1000, page_token=token)
        runs, token = [*runs, *page], page.token
        if not token:
            return runs


def _tracked(client: Any, run: Any) -> Tracked:
    return Tracked(
        name=run.info.run_name,
        tags=dict(run.data.tags),
        status=run.info.status,
        started=run.info.start_time,
        metrics=dict(run.data.metrics),
        history=partial(_curve, client, run.info.run_id),
    )


def _curve(client: Any, run_id: str, name: str) -> Curve:
    history = client.get_metric_history(run_id, name)
    return curve_of({point.step: point.value for point in sorted(history, key=lambda point: point.timestamp)})


def curve_of(points: dict[int, float]) -> Curve:
    """Points by step, put in order."""
    steps = tuple(sorted(points))
    return Curve(steps, tuple(points[step] for step in steps))
