"""How far the runs without a result could move the answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from .. import statistics
from ..statistics import Estimate
from ..study.methods import Method, last_validated, no_number
from ..study.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The difference if the seeds without a number had ended in a certain way."""

    pair: str
    failed_seeds: str
    difference: Estimate


def compute_sensitivity(
    methods: Sequence[Method], metric: Metric, order: Sequence[str], troubled: frozenset[str]
) -> list[Sensitivity]:
    """How far the seeds without a number could move the answer; a view on robustness, not a result."""
    fates = ("Left out (hides the failure)", "Counted at its last validation", "Counted at the SFT start")
    by_name = {method.name: method for method in methods}
    rows = []
    for name in order[1:]:
        if {name, order[0]} & troubled:
            for fate in fates:
                x, y = (_with_fate(by_name[who], metric, fate) for who in (name, order[0]))
                pair = f"{by_name[name].label} \N{MINUS SIGN} {by_name[order[0]].label}"
                if x is not None and y is not None:
                    difference = statistics.welch(x, y).difference
                    rows.append(Sensitivity(pair=pair, failed_seeds=fate, difference=difference))
    return rows


def _with_fate(method: Method, metric: Metric, fate: str) -> list[float] | None:
    scores = []
    for run in method.runs:
        if no_number(run, metric) is None:
            scores.append(run.metrics[metric.name])
        elif not fate.startswith("Left out"):
            guess = method.start if "start" in fate else last_validated(run, metric)
            if guess is None:
                return None
            scores.append(guess)
    return scores
