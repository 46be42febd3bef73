"""Compares every pair of methods on one metric, each interval at the level that the whole family needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from . import statistics
from .metrics import Metric
from .statistics import Estimate, Permutation, Welch

ALPHA, HALF = 0.05, 0.5


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Treatment minus baseline on one metric; all intervals hold together for the `family` of pairs."""

    treatment: str
    baseline: str
    metric: Metric
    scores: tuple[tuple[float, ...], tuple[float, ...]]
    welch: Welch
    inner: Estimate
    inner_percent: float
    cohens_d: Estimate
    hedges_g: Estimate
    p_holm: float | None
    permutation: Permutation
    detectable_d: float | None
    pooled_sd: float | None
    equivalent: bool | None
    margin: float | None
    family: int

    @property
    def difference(self) -> Estimate:
        """The raw difference with the interval that decides."""
        return self.welch.difference

    @property
    def n(self) -> tuple[int, int]:
        """Seeds of treatment and baseline."""
        return len(self.scores[0]), len(self.scores[1])

    @property
    def detectable(self) -> float | None:
        """The smallest detectable difference in units of the metric, if the spread seen here is right."""
        return None if self.detectable_d is None or self.pooled_sd is None else self.detectable_d * self.pooled_sd

    @property
    def benefit(self) -> tuple[float, float] | None:
        """The interval of the difference turned so that more is better for the treatment."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None:
            return None
        return (-high, -low) if self.metric.better == "less" else (low, high)

    @property
    def wins(self) -> tuple[float, int]:
        """In how many of all seed pairings the treatment is ahead, ties counted half."""
        pairs = self.n[0] * self.n[1]
        share = statistics.probability_of_improvement(*self.scores) or 0.0
        return (1 - share if self.metric.better == "less" else share) * pairs, pairs

    def seeds_for(self, difference: float) -> int | None:
        """Seeds per method to find a true difference of this size (metric units); None when it cannot be said."""
        return self.seeds_for_d(difference / self.pooled_sd) if self.pooled_sd else None

    def seeds_for_d(self, d: float) -> int | None:
        """Seeds per method to find a true effect of this size."""
        return statistics.seeds_needed(d, ALPHA / self.family)


def compare_all(
    metric: Metric, scores: Mapping[str, Sequence[float]], arms: Sequence[str], margin: float | None = None
) -> list[Comparison]:
    """Every pair of arms, the earlier one as baseline; Bonferroni-simultaneous intervals and Holm p-values."""
    pairs = list(combinations(arms, 2))
    found = [compare(metric, scores, later, earlier, margin, len(pairs)) for earlier, later in pairs]
    adjusted = statistics.holm([comparison.welch.p for comparison in found])
    return [replace(comparison, p_holm=p) for comparison, p in zip(found, adjusted, strict=True)]


def compare(
    metric: Metric,
    scores: Mapping[str, Sequence[float]],
    treatment: str,
    baseline: str,
    margin: float | None = None,
    family: int = 1,
) -> Comparison:
    """One pair; `family` is the number of pairs that the intervals must hold for together.

    The inner interval is the half that holds most, or, with a margin, the one that must lie within it (90% for a pair).
    """
    x, y = tuple(scores[treatment]), tuple(scores[baseline])
    confidence = 1 - ALPHA / family
    inner = HALF if margin is None else 1 - 2 * ALPHA / family
    return Comparison(
        treatment=treatment,
        baseline=baseline,
        metric=metric,
        scores=(x, y),
        welch=statistics.welch(x, y, confidence),
        inner=statistics.welch(x, y, inner).difference,
        inner_percent=100 * inner,
        cohens_d=statistics.cohens_d(x, y, confidence),
        hedges_g=statistics.hedges_g(x, y, confidence),
        p_holm=None,
        permutation=statistics.permutation(x, y, np.random.default_rng(0)),
        detectable_d=statistics.minimum_detectable_d(len(x), len(y), ALPHA / family),
        pooled_sd=statistics.pooled_sd(x, y),
        equivalent=None if margin is None else statistics.is_equivalent(x, y, margin, ALPHA / family),
        margin=margin,
        family=family,
    )
