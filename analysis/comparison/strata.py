"""Results by stratum of the held-out prompts: mean of every method, and difference to the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from alignbench.core import metric_names

from .. import statistics
from ..statistics import Estimate
from ..study.answers import final_values
from ..study.load import Study
from ..study.metrics import Metric, metric_named

PREFIX = f"final/{metric_names.STRATUM}"
ORDER = ("gold", "accuracy", "avg_reward", "avg_response_length")


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """One metric on one stratum; the differences are exploratory, each with its own 95% interval."""

    name: str
    metric: Metric
    means: dict[str, float | None]
    differences: dict[str, Estimate]


def compute_strata(study: Study, baseline: str) -> tuple[Stratum, ...]:
    """Compute all strata, ordered by metric; empty if the prompts have no strata."""
    names = {name for run in study.runs for name in run.metrics if name.startswith(PREFIX)}
    return tuple(_stratum(study, baseline, name) for name in sorted(names, key=_sort_key))


def group_by_metric(rows: Sequence[Stratum]) -> list[tuple[str, list[Stratum]]]:
    """Group the rows by the label of their metric, in order."""
    return [(label, list(found)) for label, found in groupby(rows, key=lambda row: row.metric.label)]


def _sort_key(name: str) -> tuple[int, str]:
    """Sort key: quality first, length last."""
    leaf = name.rsplit("/", 1)[-1]
    return (ORDER.index(leaf) if leaf in ORDER else len(ORDER), name)


def _stratum(study: Study, baseline: str, name: str) -> Stratum:
    stratum, leaf = name.removeprefix(PREFIX).rsplit("/", 1)
    values = {method: final_values(study.runs_of(method), name) for method in study.methods}
    return Stratum(
        name=stratum.replace("_", " "),
        metric=replace(metric_named(f"final/{leaf}"), name=name),
        means={method: statistics.mean(row) for method, row in values.items()},
        differences={
            method: statistics.welch(row, values[baseline]).difference
            for method, row in values.items()
            if method != baseline
        },
    )
