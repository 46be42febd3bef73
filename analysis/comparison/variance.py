"""More seeds or more prompts? The answers to single prompts show where the uncertainty of a difference comes from."""

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
"""Metrics that are a mean over prompts, and where a row of eval.jsonl has the value of one prompt."""


@dataclass(frozen=True, kw_only=True)
class VarianceByPrompt:
    """One pair, prompt by prompt: intervals for new prompts and for new seeds too, and what would narrow them."""

    pair: Comparison
    prompts: int
    crossed: Crossed
    mcnemar: McNemar | None

    @property
    def holds_for_new_prompts(self) -> bool | None:
        """The interval that also lets prompts vary is on the same side of zero as the one that decides."""
        low, high = self.crossed.new_both.low, self.crossed.new_both.high
        return None if low is None or high is None else not low <= 0 <= high


def compute_variance_by_prompt(
    study: Study, metric: Metric, pairs: Sequence[Comparison]
) -> tuple[tuple[VarianceByPrompt, ...], str | None]:
    """Every pair prompt by prompt, or none and the reason."""
    if metric.name not in VALUES:
        return (), f"{metric.label} is not a mean over prompts"
    if not pairs:
        return (), "there is nothing to compare"
    ids = {
        frozenset(str(row["prompt_id"]) for row in run.answers)
        for method in study.methods
        for run in _done(study, method)
    }
    if len(ids) != 1 or not (shared := sorted(next(iter(ids)))):
        return (), "not every finished run answered the same prompts"
    tables = {method: _table(_done(study, method), shared, VALUES[metric.name]) for method in study.methods}
    known = {method: table for method, table in tables.items() if table is not None}
    if len(known) < len(tables):
        return (), f"eval.jsonl does not have the {metric.label} of every answer"
    return tuple(_compared(pair, known[pair.treatment], known[pair.baseline]) for pair in pairs), None


def _done(study: Study, method: str) -> list[Run]:
    return [run for run in study.runs_of(method) if run.status == "finished"]


def _table(runs: Sequence[Run], prompts: Sequence[str], value: Callable[[dict[str, Any]], Any]) -> np.ndarray | None:
    """One value for each seed and prompt [seeds, prompts]; None where an answer has none."""
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
    return VarianceByPrompt(pair=pair, prompts=x.shape[1], crossed=both, mcnemar=test)


def format_advice(rows: Sequence[VarianceByPrompt]) -> str:
    """Which would narrow the intervals more, said of the pair whose interval is widest."""
    known = [(row, row.crossed.budget) for row in rows if row.crossed.budget is not None]
    if not known:
        return ""
    row, budget = max(known, key=lambda found: found[1].error())
    lead = "More seeds" if budget.wanted == "seeds" else "More prompts"
    scale, unit = row.pair.metric.scale, row.pair.metric.unit
    now, seeds, prompts = (
        significant(scale * error, 2)
        for error in (budget.error(), budget.error(times_seeds=2), budget.error(times_prompts=2))
    )
    of = "" if len(rows) == 1 else f" ({method_label(row.pair.treatment)} and {method_label(row.pair.baseline)})"
    return (
        f"{lead}: the standard error of the difference{of} is {now}{f' {unit}' if unit else ''}; "
        f"twice the seeds would make it {seeds}, twice the prompts {prompts}. {_where_from(budget)}"
    )


def _where_from(budget: VarianceBudget) -> str:
    seeds, prompts, rest = (f"{share:.0%}" for share in budget.shares)
    return f"Of its variance {seeds} comes from seeds, {prompts} from prompts, {rest} from single answers."


def format_spreads(row: VarianceByPrompt) -> str:
    """The three standard deviations behind a budget, in units of the metric."""
    budget, metric = row.crossed.budget, row.pair.metric
    if budget is None:
        return ""
    return (
        f"{metric.number(budget.seed_sd)} from seed to seed, {metric.number(budget.prompt_sd)} from prompt to prompt "
        f"(in the difference), {metric.number(budget.rest_sd)} from answer to answer"
    )


def format_mcnemar(row: VarianceByPrompt) -> str:
    """Two trained models on the same prompts: who was right where the other was wrong."""
    test = row.mcnemar
    if test is None:
        return ""
    x, y = method_label(row.pair.treatment), method_label(row.pair.baseline)
    p = "" if test.p is None else f"; exact McNemar p = {test.p:.3f}"
    return (
        f"Of {counted(row.prompts, 'prompt')} {test.only_first:,} were right with {x} only and {test.only_second:,} "
        f"with {y} only{p}. That compares these two trained models, not the methods."
    )
