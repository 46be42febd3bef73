"""One method of a study: its seeds, its mean, and why a run may give no number."""

from dataclasses import dataclass
from math import isfinite

from .. import statistics
from ..statistics import Estimate
from .load import Run, Study
from .metrics import Metric, method_label


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """One method: its seeds, its mean on the headline metric, and its place in palette and legend."""

    name: str
    label: str
    place: int
    runs: tuple[Run, ...]
    scores: tuple[float, ...]
    level: Estimate
    start: float | None


def summarize_method(study: Study, name: str, place: int, metric: Metric) -> Method:
    runs = study.runs_of(name)
    scores = tuple(run.metrics[metric.name] for run in runs if run.status == "finished" and metric.name in run.metrics)
    starts = [run.metrics[start] for run in runs if (start := start_name(metric.name)) in run.metrics]
    return Method(
        name=name,
        label=method_label(name),
        place=place,
        runs=tuple(runs),
        scores=scores,
        level=statistics.mean_interval(scores),
        start=statistics.mean(starts),
    )


def start_name(metric: str) -> str:
    """The metric measured before RL: final/accuracy -> final/start_accuracy."""
    return metric.replace("final/", "final/start_", 1)


def no_number(run: Run, metric: Metric) -> str | None:
    """Why a run gives no number to compare, in one sentence."""
    who = f"{method_label(run.method)} seed {run.seed}"
    if run.status == "missing":
        return f"{who} was planned and never started."
    if run.status == "running":
        return f"{who} has not finished yet (or was killed without a word)."
    if run.status != "finished":
        why = f": {run.reason.rstrip('.')}" if run.reason else ""
        return f"{who} {'failed' if run.status == 'failed' else 'was interrupted'}{why}."
    value = run.metrics.get(metric.name)
    if value is None:
        return f"{who} finished without {metric.label} ({metric.name})."
    return None if isfinite(value) else f"{who} finished with a {metric.label} that is not a finite number."


def last_validated(run: Run, metric: Metric) -> float | None:
    """The last finite value on validation prompts of a run that has no final number."""
    curve = run.curves.get(metric.name.replace("final/", "eval/", 1))
    finite = [value for value in curve.values if isfinite(value)] if curve else []
    return finite[-1] if finite else None
