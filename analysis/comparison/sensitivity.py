"""Sensitivity analysis: the difference under different assumptions about runs without a result."""

from collections.abc import Sequence
from dataclasses import dataclass

from .. import statistics
from ..statistics import Estimate
from ..study.methods import Method, explain_missing_score, last_validation_score
from ..study.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The difference under one assumption about the seeds without a result."""

    pair: str
    failed_seeds: str
    difference: Estimate


def compute_sensitivity(
    methods: Sequence[Method], metric: Metric, order: Sequence[str], troubled: frozenset[str]
) -> list[Sensitivity]:
    """Compute the difference to the baseline for every assumption about the failed seeds; not a result."""
    assumptions = ("Excluded (hides the failure)", "Its last validation score", "The score of the SFT model")
    by_name = {method.name: method for method in methods}
    rows = []
    for name in order[1:]:
        if {name, order[0]} & troubled:
            for assumption in assumptions:
                x, y = (_scores_under(by_name[who], metric, assumption) for who in (name, order[0]))
                pair = f"{by_name[name].label} \N{MINUS SIGN} {by_name[order[0]].label}"
                if x is not None and y is not None:
                    difference = statistics.welch(x, y).difference
                    rows.append(Sensitivity(pair=pair, failed_seeds=assumption, difference=difference))
    return rows


def _scores_under(method: Method, metric: Metric, assumption: str) -> list[float] | None:
    scores = []
    for run in method.runs:
        if explain_missing_score(run, metric) is None:
            scores.append(run.metrics[metric.name])
        elif not assumption.startswith("Excluded"):
            score = method.start if "SFT" in assumption else last_validation_score(run, metric)
            if score is None:
                return None
            scores.append(score)
    return scores
