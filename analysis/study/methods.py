"""The scores of one method of a study: seeds, mean with interval, start, and reasons for missing scores."""

from dataclasses import dataclass
from math import isfinite

from .. import statistics
from ..statistics import Estimate
from .load import Run, Study
from .metrics import Metric, method_label


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """One method: its runs, scores and mean on the headline metric, and its index in palette and legend."""

    name: str
    label: str
    place: int
    runs: tuple[Run, ...]
    scores: tuple[float, ...]
    level: Estimate
    start: float | None


def summarize_method(study: Study, name: str, place: int, metric: Metric) -> Method:
    """The scores of one method; `place` is its index in the order of the study."""
    runs = study.runs_of(name)
    scores = tuple(run.metrics[metric.name] for run in runs if run.status == "finished" and metric.name in run.metrics)
    starts = [run.metrics[start] for run in runs if (start := start_metric(metric.name)) in run.metrics]
    return Method(
        name=name,
        label=method_label(name),
        place=place,
        runs=tuple(runs),
        scores=scores,
        level=statistics.mean_interval(scores),
        start=statistics.mean(starts),
    )


def start_metric(metric: str) -> str:
    """The metric measured before RL: final/accuracy -> final/start_accuracy."""
    return metric.replace("final/", "final/start_", 1)


def explain_missing_score(run: Run, metric: Metric) -> str | None:
    """Why a run has no score to compare, in one sentence; None if it has one."""
    who = f"{method_label(run.method)} seed {run.seed}"
    if run.status == "missing":
        return f"{who} was planned and never started."
    if run.status == "running":
        return f"{who} has not finished (it is running or was killed)."
    if run.status != "finished":
        why = f": {run.reason.rstrip('.')}" if run.reason else ""
        return f"{who} {'failed' if run.status == 'failed' else 'was interrupted'}{why}."
    value = run.metrics.get(metric.name)
    if value is None:
        return f"{who} finished without {metric.label} ({metric.name})."
    return None if isfinite(value) else f"{who} finished with a {metric.label} that is not a finite number."


def last_validation_score(run: Run, metric: Metric) -> float | None:
    """The last finite validation score of a run without a final score; None if there is none."""
    curve = run.curves.get(metric.name.replace("final/", "eval/", 1))
    finite = [value for value in curve.values if isfinite(value)] if curve else []
    return finite[-1] if finite else None
