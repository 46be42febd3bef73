"""Error rates and power of the verdict, in simulated studies with known truth."""

from collections.abc import Sequence
from itertools import combinations
from math import sqrt

import numpy as np
from scipy import stats

from analysis.comparison.compare import ALPHA, compare_methods
from analysis.comparison.verdict import State, decide
from analysis.statistics import Estimate, power
from analysis.study.metrics import metric_named
from validation.simulations.seeds import Sampler

CHECKED = 15
"""Studies of each kind that are compared with the verdict function of the report."""


def verdict(scores: Sequence[Sequence[float]], margin: float | None = None) -> State:
    """The verdict of the report on one study, for a metric where higher is better."""
    methods = [f"method{i}" for i in range(len(scores))]
    metric = metric_named("final/avg_reward")
    pairs = compare_methods(metric, dict(zip(methods, scores, strict=True)), methods, margin)
    planned = sum(map(len, scores))
    return decide(
        metric=metric,
        methods=methods,
        comparisons=pairs,
        level=Estimate(value=None),
        planned=planned,
        unfinished=(),
        violations=(),
    ).state


def _half_width(x: np.ndarray, y: np.ndarray, confidence: float) -> np.ndarray:
    """Half-width [repeats] of Welch's interval."""
    a, b = x.var(1, ddof=1) / x.shape[1], y.var(1, ddof=1) / y.shape[1]
    df = (a + b) ** 2 / (a**2 / (x.shape[1] - 1) + b**2 / (y.shape[1] - 1))
    half: np.ndarray = stats.t.ppf((1 + confidence) / 2, df) * np.sqrt(a + b)
    return half


def separated(methods: Sequence[np.ndarray]) -> np.ndarray:
    """Whether the verdict of a study [repeats] is better or worse; checked against the verdicts of the report."""
    pairs = list(combinations(methods, 2))
    confidence = 1 - ALPHA / len(pairs)
    different = [np.abs(x.mean(1) - y.mean(1)) > _half_width(x, y, confidence) for x, y in pairs]
    apart: np.ndarray = np.any(different, axis=0)
    for i in range(CHECKED):
        assert apart[i] == (verdict([list(x[i]) for x in methods]) in ("better", "worse")), i
    return apart


def false_alarms(sample: Sampler, repeats: int, seeds: int, methods: int = 2, unequal: float = 1.0) -> float:
    """Percent of studies of equal methods with the verdict better or worse.

    `unequal` is the ratio of the standard deviation of the last method to that of the others.
    """
    scales = [*[1.0] * (methods - 1), unequal]
    return 100 * float(separated([scale * sample(repeats, seeds) for scale in scales]).mean())


def false_equivalence(sample: Sampler, repeats: int, seeds: int, margin: float) -> float:
    """Percent of studies called equivalent although the true difference equals the margin, in standard deviations."""
    x, y = sample(repeats, seeds) + margin, sample(repeats, seeds)
    gap, inner, outer = x.mean(1) - y.mean(1), _half_width(x, y, 1 - 2 * ALPHA), _half_width(x, y, 1 - ALPHA)
    equivalent = (np.abs(gap) + inner < margin) & (np.abs(gap) <= outer)
    for i in range(CHECKED):
        assert equivalent[i] == (verdict([list(y[i]), list(x[i])], margin) == "equivalent"), i
    return 100 * float(equivalent.mean())


def true_equivalence(sample: Sampler, repeats: int, seeds: int, margin: float) -> float:
    """Percent of studies of equal methods that are called equivalent."""
    x, y = sample(repeats, seeds), sample(repeats, seeds)
    gap, inner, outer = x.mean(1) - y.mean(1), _half_width(x, y, 1 - 2 * ALPHA), _half_width(x, y, 1 - ALPHA)
    return 100 * float(((np.abs(gap) + inner < margin) & (np.abs(gap) <= outer)).mean())


def detection_rate(sample: Sampler, repeats: int, seeds: int, effect: float) -> tuple[float, float]:
    """Percent of studies in which a true effect is detected, and the power by the function of the report in percent."""
    return 100 * float(separated([sample(repeats, seeds), sample(repeats, seeds) + effect]).mean()), 100 * power(
        effect, seeds, seeds
    )


def accuracies(rng: np.random.Generator, prompts: int = 300, share: float = 0.85) -> Sampler:
    """Standardized accuracies of equally good runs."""
    return lambda repeats, n: rng.binomial(prompts, share, (repeats, n)) / prompts / sqrt(share * (1 - share) / prompts)
