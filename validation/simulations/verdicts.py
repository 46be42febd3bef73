"""Studies whose right verdict is known: how often is the verdict wrong, and how often does it find what is there?"""

from collections.abc import Sequence
from itertools import combinations
from math import sqrt

import numpy as np
from scipy import stats

from analysis.comparison.compare import ALPHA, compare_methods
from analysis.comparison.verdict import State, decide
from analysis.statistics import Estimate, power
from analysis.study.metrics import metric_named
from validation.simulations.seeds import Draw

CHECKED = 15
"""Studies of each kind whose verdict is also asked of the function that the report calls."""


def verdict(scores: Sequence[Sequence[float]], margin: float | None = None) -> State:
    """The verdict of the report on one study, more being better."""
    methods = [f"method{place}" for place in range(len(scores))]
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


def _half(x: np.ndarray, y: np.ndarray, confidence: float) -> np.ndarray:
    """Half the width of Welch's interval of each study."""
    a, b = x.var(1, ddof=1) / x.shape[1], y.var(1, ddof=1) / y.shape[1]
    df = (a + b) ** 2 / (a**2 / (x.shape[1] - 1) + b**2 / (y.shape[1] - 1))
    return stats.t.ppf((1 + confidence) / 2, df) * np.sqrt(a + b)


def separated(methods: Sequence[np.ndarray]) -> np.ndarray:
    """Studies [repeats] in which some method is called better or worse; checked against the report's own verdict."""
    pairs = list(combinations(methods, 2))
    confidence = 1 - ALPHA / len(pairs)
    apart = np.array([np.abs(x.mean(1) - y.mean(1)) > _half(x, y, confidence) for x, y in pairs]).any(0)
    for i in range(CHECKED):
        assert apart[i] == (verdict([list(x[i]) for x in methods]) in ("better", "worse")), i
    return apart


def false_alarms(draw: Draw, repeats: int, seeds: int, methods: int = 2, unequal: float = 1.0) -> float:
    """Percent of studies of equal methods that the verdict separates; the last method may vary more."""
    return 100 * float(separated([(unequal if place == methods - 1 else 1.0) * draw(repeats, seeds)
                                  for place in range(methods)]).mean())  # fmt: skip


def false_equivalence(draw: Draw, repeats: int, seeds: int, margin: float) -> float:
    """Percent of studies called equivalent although the true difference is just the margin (in standard deviations)."""
    x, y = draw(repeats, seeds) + margin, draw(repeats, seeds)
    gap, inner, outer = x.mean(1) - y.mean(1), _half(x, y, 1 - 2 * ALPHA), _half(x, y, 1 - ALPHA)
    found = (np.abs(gap) + inner < margin) & (np.abs(gap) <= outer)
    for i in range(CHECKED):
        assert found[i] == (verdict([list(y[i]), list(x[i])], margin) == "equivalent"), i
    return 100 * float(found.mean())


def true_equivalence(draw: Draw, repeats: int, seeds: int, margin: float) -> float:
    """Percent of studies of equal methods that are called equivalent."""
    x, y = draw(repeats, seeds), draw(repeats, seeds)
    gap, inner, outer = x.mean(1) - y.mean(1), _half(x, y, 1 - 2 * ALPHA), _half(x, y, 1 - ALPHA)
    return 100 * float(((np.abs(gap) + inner < margin) & (np.abs(gap) <= outer)).mean())


def found(draw: Draw, repeats: int, seeds: int, effect: float) -> tuple[float, float]:
    """Percent of studies in which a true effect is found, and what the power function of the report says."""
    return 100 * float(separated([draw(repeats, seeds), draw(repeats, seeds) + effect]).mean()), 100 * power(
        effect, seeds, seeds
    )


def accuracies(rng: np.random.Generator, prompts: int = 300, share: float = 0.85) -> Draw:
    """Shares of right answers on some prompts, every run equally good."""
    return lambda repeats, n: rng.binomial(prompts, share, (repeats, n)) / prompts / sqrt(share * (1 - share) / prompts)
