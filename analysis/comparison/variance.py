"""Variance components of a difference over seeds and prompts, and which of the two to increase."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignbench.core import metric_names

from .. import statistics
from ..statistics import Crossed, McNemar, VarianceBudget
from ..study.load import Run, Study
from ..study.metrics import Metric, counted, method_label, significant
from .compare import ALPHA, Comparison

VALUES: dict[str, Callable[[dict[str, Any]], Any]] = {
    metric_names.FINAL_ACCURACY: lambda row: row.get("correct"),
    "final/accuracy_flexible": lambda row: row["scores"].get("correct_flexible"),
    "final/avg_reward": lambda row: row["scores"].get("total", row["scores"].get("reward")),
    "final/gold": lambda row: row["scores"].get("gold"),
    "final/avg_response_length": lambda row: row.get("tokens"),
    "final/truncated_fraction": lambda row: row.get("truncated"),
}
"""Metrics that are a mean over prompts, with the accessor of the value in a row of eval.jsonl."""


@dataclass(frozen=True, kw_only=True)
class VarianceByPrompt:
    """A comparison with seeds and prompts as crossed random factors: intervals, variance components, McNemar's test."""

    comparison: Comparison
    prompts: int
    crossed: Crossed
    mcnemar: McNemar | None

    @property
    def holds_for_new_prompts(self) -> bool | None:
        """Whether the interval for new seeds and new prompts excludes zero; None without an interval."""
        low, high = self.crossed.new_both.low, self.crossed.new_both.high
        return None if low is None or high is None else not low <= 0 <= high


def compute_variance_by_prompt(
    study: Study, metric: Metric, comparisons: Sequence[Comparison]
) -> tuple[tuple[VarianceByPrompt, ...], str | None]:
    """Compute the variance components of every comparison; if that is not possible, an empty tuple and the reason."""
    if metric.name not in VALUES:
        return (), f"{metric.label} is not a mean over prompts"
    if not comparisons:
        return (), "the study has one method"
    ids = {
        frozenset(str(row["prompt_id"]) for row in run.answers)
        for method in study.methods
        for run in _done(study, method)
    }
    if len(ids) != 1 or not (shared := sorted(next(iter(ids)))):
        return (), "the finished runs were evaluated on different prompts"
    tables = {method: _table(_done(study, method), shared, VALUES[metric.name]) for method in study.methods}
    known = {method: table for method, table in tables.items() if table is not None}
    if len(known) < len(tables):
        return (), f"eval.jsonl lacks the {metric.label} of some answers"
    return tuple(_compared(pair, known[pair.treatment], known[pair.baseline]) for pair in comparisons), None


def _done(study: Study, method: str) -> list[Run]:
    return [run for run in study.runs_of(method) if run.status == "finished"]


def _table(runs: Sequence[Run], prompts: Sequence[str], value: Callable[[dict[str, Any]], Any]) -> np.ndarray | None:
    """Values by seed and prompt [seeds, prompts]; None if an answer has no value."""
    rows = []
    for run in runs:
        by_id = {str(row["prompt_id"]): value(row) for row in run.answers}
        rows.append([by_id[prompt] for prompt in prompts])
    if not rows or any(number is None for row in rows for number in row):
        return None
    return np.array(rows, float)


def _compared(pair: Comparison, x: np.ndarray, y: np.ndarray) -> VarianceByPrompt:
    confidence = 1 - ALPHA / pair.family
    both = statistics.crossed(x - y, confidence=confidence) if pair.paired else statistics.crossed(x, y, confidence)
    two_models = len(x) == len(y) == 1 and set(np.unique([x, y])) <= {0.0, 1.0}
    test = statistics.mcnemar(int((x > y).sum()), int((x < y).sum())) if two_models else None
    return VarianceByPrompt(comparison=pair, prompts=x.shape[1], crossed=both, mcnemar=test)


def format_advice(rows: Sequence[VarianceByPrompt]) -> str:
    """Recommend more seeds or more prompts, for the comparison with the largest standard error."""
    known = [(row, row.crossed.budget) for row in rows if row.crossed.budget is not None]
    if not known:
        return ""
    row, budget = max(known, key=lambda found: found[1].error())
    advice = "More seeds" if budget.larger_source == "seeds" else "More prompts"
    scale, unit = row.comparison.metric.scale, row.comparison.metric.unit
    now, seeds, prompts = (
        significant(scale * error, 2)
        for error in (budget.error(), budget.error(times_seeds=2), budget.error(times_prompts=2))
    )
    methods = (
        ""
        if len(rows) == 1
        else f" ({method_label(row.comparison.treatment)} and {method_label(row.comparison.baseline)})"
    )
    return (
        f"{advice}: the standard error of the difference{methods} is {now}{f' {unit}' if unit else ''}; "
        f"with twice the seeds it would be {seeds}, with twice the prompts {prompts}. {_format_components(budget)}"
    )


def _format_components(budget: VarianceBudget) -> str:
    seeds, prompts, rest = (f"{share:.0%}" for share in budget.shares)
    return f"Variance components: seeds {seeds}, prompts {prompts}, residual {rest}."


def format_spreads(row: VarianceByPrompt) -> str:
    """The standard deviations of the variance components, in units of the metric."""
    budget, metric = row.crossed.budget, row.comparison.metric
    if budget is None:
        return ""
    return (
        f"{metric.number(budget.seed_sd)} between seeds, {metric.number(budget.prompt_sd)} between prompts "
        f"(of the difference), {metric.number(budget.rest_sd)} residual"
    )


def format_mcnemar(row: VarianceByPrompt) -> str:
    """Two trained models on the same prompts: exact McNemar test of the prompts with one correct answer."""
    test = row.mcnemar
    if test is None:
        return ""
    x, y = method_label(row.comparison.treatment), method_label(row.comparison.baseline)
    p = "" if test.p is None else f"; exact McNemar p = {test.p:.3f}"
    return (
        f"Of {counted(row.prompts, 'prompt')} {test.only_first:,} are correct with {x} only and {test.only_second:,} "
        f"with {y} only{p}. This compares two trained models, not the methods."
    )
