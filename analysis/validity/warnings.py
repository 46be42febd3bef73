"""Collects the warnings of a report: few seeds, variance, prompts, side effects and fairness checks."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from ..comparison.compare import Comparison
from ..study.load import Study
from ..study.methods import Method
from ..study.metrics import Metric, counted, is_share, listed, method_label, signed
from .fairness import Fairness

Level = Literal["stops the verdict", "limits the verdict", "note"]
LEVELS: tuple[Level, ...] = ("stops the verdict", "limits the verdict", "note")
MAX_SD_RATIO = 5.0


@dataclass(frozen=True)
class ReportWarning:
    """One warning; `brief` is a short form for the terminal."""

    level: Level
    text: str
    brief: str = ""


def collect_warnings(
    study: Study,
    metric: Metric,
    methods: Sequence[Method],
    comparisons: Sequence[Comparison],
    exploratory: Sequence[Comparison],
    fairness: Fairness,
    unfinished: Sequence[str],
    prompts: int | None,
    more: Sequence[ReportWarning] = (),
) -> list[ReportWarning]:
    """Collect all warnings of a study, most serious first; `more` are those computed elsewhere."""
    found = [
        *(ReportWarning("stops the verdict", text) for text in [*fairness.violations, *unfinished]),
        *more,
        *_few_seeds(comparisons),
        *_zero_variance(methods),
        *_unequal_variance(comparisons),
        *_new_prompts(metric, methods, prompts),
        *_below_start(metric, methods),
        *_side_effects(exploratory),
        *(
            ReportWarning(
                "limits the verdict",
                f"Fairness check not met: {check.name.lower()} ({check.evidence}).",
                f"not met: {check.name.lower()}",
            )
            for check in fairness.checks
            if check.outcome == "warning"
        ),
        *_unknown_checks(fairness),
        *(ReportWarning("note", text) for text in [*study.notes, *_odd_runs(study)]),
        *_no_margin(comparisons),
    ]
    return sorted(found, key=lambda warning: LEVELS.index(warning.level))


def _few_seeds(comparisons: Sequence[Comparison]) -> list[ReportWarning]:
    if not comparisons:
        return []
    pair = min(comparisons, key=lambda pair: min(pair.n))
    n, test = min(pair.n), pair.permutation
    if n < 2:
        return [
            ReportWarning(
                "limits the verdict",
                f"{counted(n, 'usable seed')} for a method: no interval can be computed.",
                f"{counted(n, 'usable seed')}: no interval",
            )
        ]
    if test.smallest is not None and test.smallest >= 0.05:
        observed = f" (observed: {test.p:.2f})" if len(comparisons) == 1 and test.p is not None else ""
        return [
            ReportWarning(
                "limits the verdict",
                f"{n} seeds per method. The smallest possible p-value of an exact test "
                f"is {test.smallest:.2f}{observed}, so no result of this design can be significant in that test.",
                f"{n} seeds: exact p is at least {test.smallest:.2f}",
            )
        ]
    if n < 10 and pair.detectable is not None:
        return [
            ReportWarning(
                "limits the verdict",
                f"{n} seeds per method: a true difference below about "
                f"{pair.metric.size(pair.detectable)} would usually be missed.",
                f"{n} seeds: detects from {pair.metric.size(pair.detectable)}",
            )
        ]
    return []


def _zero_variance(methods: Sequence[Method]) -> list[ReportWarning]:
    same = [method.label for method in methods if method.level.reason == "zero_pooled_variance"]
    return (
        [
            ReportWarning(
                "limits the verdict",
                f"All seeds of {listed(same)} have the same result: check that seeds "
                "are applied, and that the task is not at its floor or ceiling.",
                f"identical across seeds: {listed(same)}",
            )
        ]
        if same
        else []
    )


def _unequal_variance(comparisons: Sequence[Comparison]) -> list[ReportWarning]:
    found = []
    for pair in comparisons:
        x, y = (_standard_deviation(scores) for scores in pair.scores)
        if x and y and max(x, y) / min(x, y) > MAX_SD_RATIO:
            found.append(
                ReportWarning(
                    "limits the verdict",
                    f"The seeds of {method_label(pair.treatment)} and "
                    f"{method_label(pair.baseline)} have very different standard deviations "
                    f"(ratio {max(x, y) / min(x, y):.0f}); d and g, which pool them, are not meaningful."
                    f"{_format_glass_delta(pair)}",
                    "unequal variance of seeds",
                )
            )
    return found


def _format_glass_delta(pair: Comparison) -> str:
    delta = pair.glass_delta
    if delta.value is None or delta.low is None or delta.high is None:
        return ""
    interval = f"{signed(delta.value, 2)} ({signed(delta.low, 2)} to {signed(delta.high, 2)})"
    return f" In standard deviations of {method_label(pair.baseline)} (Glass's delta) the difference is {interval}."


def _standard_deviation(scores: Sequence[float]) -> float:
    center = sum(scores) / len(scores) if scores else 0.0
    return sqrt(sum((score - center) ** 2 for score in scores) / (len(scores) - 1)) if len(scores) > 1 else 0.0


def _new_prompts(metric: Metric, methods: Sequence[Method], prompts: int | None) -> list[ReportWarning]:
    levels = [method.level.value for method in methods if method.level.value is not None]
    if not prompts or not levels or not is_share(metric.name):
        return []
    level = min(levels, key=lambda share: abs(share - 0.5))
    error = 1.96 * sqrt(max(0.0, level * (1 - level)) / prompts)
    return [
        ReportWarning(
            "limits the verdict",
            f"The interval generalizes to new seeds on these {prompts:,} prompts, not to "
            f"new prompts: on new prompts each {metric.label.removeprefix('held-out ')} could change by "
            f"about \N{PLUS-MINUS SIGN}{metric.size(error)}.",
            f"new prompts: \N{PLUS-MINUS SIGN}{metric.size(error)} for each",
        )
    ]


def _below_start(metric: Metric, methods: Sequence[Method]) -> list[ReportWarning]:
    sign = -1 if metric.better == "less" else 1
    worse = [
        method
        for method in methods
        if method.start is not None
        and method.level.value is not None
        and sign * (method.level.value - method.start) < 0
    ]
    return [
        ReportWarning(
            "limits the verdict",
            f"{method.label} ended below its SFT model "
            f"({metric.level(method.level.value)} after, {metric.level(method.start)} before).",
            f"{method.label} ended below its SFT start",
        )
        for method in worse
    ]


SIDE_EFFECTS: dict[str, tuple[Level, str, str]] = {
    "final/kl": (
        "limits the verdict",
        "End KL differs ({}): compare the methods along the frontier of reward and KL, not only at the end.",
        "end KL differs",
    ),
    "final/avg_response_length": (
        "note",
        "Answer length differs ({}). LLM judges tend to prefer longer answers.",
        "answer length differs",
    ),
    "final/truncated_fraction": (
        "note",
        "The share of answers truncated at the length limit differs ({}).",
        "truncated answers differ",
    ),
}


def _side_effects(exploratory: Sequence[Comparison]) -> list[ReportWarning]:
    """Warn of KL, answer length and truncation that differ significantly between methods."""
    found = []
    for name, (level, text, brief) in SIDE_EFFECTS.items():
        comparisons = [pair for pair in exploratory if pair.metric.name == name and _excludes_zero(pair)]
        if comparisons:
            metric = comparisons[0].metric
            unit = "" if metric.level_suffix else f" {metric.unit}"
            levels = {
                comparisons[0].baseline: comparisons[0].scores[1],
                **{pair.treatment: pair.scores[0] for pair in comparisons},
            }
            levels_text = [
                f"{method_label(method)} {metric.level(sum(row) / len(row))}" for method, row in levels.items()
            ]
            found.append(ReportWarning(level, text.format(", ".join(levels_text) + unit), brief))
    return found


def _excludes_zero(pair: Comparison) -> bool:
    low, high = pair.difference.low, pair.difference.high
    return low is not None and high is not None and not low <= 0 <= high


def _unknown_checks(fairness: Fairness) -> list[ReportWarning]:
    unknown = [check.name for check in fairness.checks if check.outcome == "unknown"]
    return (
        [
            ReportWarning(
                "note",
                f"{counted(len(unknown), 'fairness check')} could not be evaluated: {listed(unknown)}.",
                f"{counted(len(unknown), 'check')} not evaluated",
            )
        ]
        if unknown
        else []
    )


def _odd_runs(study: Study) -> list[str]:
    notes = [f"{run.name} was resumed {counted(run.resumed, 'time')}." for run in study.runs if run.resumed]
    if study.planned:
        notes += [f"{run.name} ({run.folder}) is not part of the plan." for run in study.runs if not run.planned]
    return notes


def _no_margin(comparisons: Sequence[Comparison]) -> list[ReportWarning]:
    if not comparisons or comparisons[0].margin is not None:
        return []
    return [
        ReportWarning(
            "note",
            "No margin was declared (analysis.margin), so this report cannot conclude that methods are equivalent.",
            "no margin declared",
        )
    ]
