"""Reads the runs and metrics of a study from MLflow."""

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
    """One metric over the steps of a run, in order of the step; of a step logged twice the last value."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """One run in MLflow: the last value of every metric, and a function that reads the curve of one."""

    name: str
    tags: dict[str, str]
    status: str
    started: int
    metrics: dict[str, float]
    history: Callable[[str], Curve]

    def curves(self) -> dict[str, Curve]:
        """The curves that a report draws; slow, with one MLflow request for each."""
        return {name: self.history(name) for name in sorted(self.metrics) if name.startswith(CURVES)}


class TrackerUnavailable(Exception):
    """MLflow does not answer."""


def default_uri(output_dir: Path) -> str:
    """The MLflow store of this output folder."""
    return f"sqlite:///{(output_dir / 'mlflow.db').resolve()}"


def store_exists(uri: str) -> bool:
    """Whether the store exists; reading a missing SQLite store would create it."""
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).is_file()


def make_client(uri: str) -> Any:
    """An MLflow client without telemetry and migration messages; imported here because the import takes seconds."""
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the metrics are also on disk
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def tracked_runs(uri: str, study: str) -> dict[str, Tracked]:
    """The RL runs of a study by run key, the latest of each key. Raises TrackerUnavailable."""
    client = make_client(uri)
    _answers(client, uri)
    latest: dict[str, Any] = {}
    for run in _search(client, f"tags.`{metric_names.STUDY}` = '{study}' and tags.`{metric_names.PHASE}` = 'rl'"):
        key = run.data.tags.get(metric_names.KEY, run.info.run_name)
        if key not in latest or run.info.start_time > latest[key].info.start_time:
            latest[key] = run
    return {key: _tracked(client, run) for key, run in latest.items()}


def tracked_studies(uri: str) -> set[str]:
    """The names of all studies in the store. Raises TrackerUnavailable."""
    client = make_client(uri)
    _answers(client, uri)
    found = {run.data.tags.get(metric_names.STUDY, "") for run in _search(client, "")}
    return found - {""}


def _answers(client: Any, uri: str) -> None:
    """Raise TrackerUnavailable if MLflow does not answer the first request; later errors propagate."""
    from mlflow.exceptions import MlflowException

    try:
        client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise TrackerUnavailable(f"MLflow at {uri} does not answer ({str(error).splitlines()[0][:200]})") from error


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
    return make_curve({point.step: point.value for point in sorted(history, key=lambda point: point.timestamp)})


def make_curve(points: dict[int, float]) -> Curve:
    """Points by step, put in order."""
    steps = tuple(sorted(points))
    return Curve(steps, tuple(points[step] for step in steps))
