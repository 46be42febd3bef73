"""Answer length and the shares of empty, repetitive and truncated answers, before RL and at the end."""

from collections.abc import Sequence
from dataclasses import dataclass

from .. import statistics
from ..statistics import Estimate
from .load import Run, Study
from .methods import start_metric
from .metrics import Metric, metric_named

LENGTH, EMPTY, REPEATED = "final/avg_response_length", "final/empty_fraction", "final/repeated_fraction"
ROWS = (LENGTH, EMPTY, REPEATED, "final/truncated_fraction")


@dataclass(frozen=True, kw_only=True)
class AnswerChange:
    """One metric of the answers by method: its mean over seeds before RL and at the end; None if not measured."""

    metric: Metric
    start: dict[str, float | None]
    end: dict[str, float | None]


def compute_answer_changes(study: Study) -> tuple[AnswerChange, ...]:
    """The metrics that at least one finished run measured."""
    rows = []
    for name in ROWS:
        start, end = (
            {method: statistics.mean(final_values(study.runs_of(method), n)) for method in study.methods}
            for n in (start_metric(name), name)
        )
        if any(value is not None for value in end.values()):
            rows.append(AnswerChange(metric=metric_named(name), start=start, end=end))
    return tuple(rows)


def final_values(runs: Sequence[Run], name: str) -> list[float]:
    """The values of a metric in the finished runs that have it."""
    return [run.metrics[name] for run in runs if run.status == "finished" and name in run.metrics]


def gain(runs: Sequence[Run], name: str) -> Estimate | None:
    """The mean change of a final metric since the start of RL, with its interval over seeds; None without both ends."""
    start = start_metric(name)
    pairs = [
        (run.metrics[start], run.metrics[name])
        for run in runs
        if run.status == "finished" and {start, name} <= run.metrics.keys()
    ]
    return statistics.mean_interval([end - begin for begin, end in pairs]) if pairs else None
