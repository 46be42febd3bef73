"""Compares every two methods on one metric, with intervals that hold simultaneously for the family of comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from .. import statistics
from ..statistics import Estimate, Paired, Permutation, Welch
from ..study.metrics import Metric

ALPHA, HALF = 0.05, 0.5


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Treatment minus baseline on one metric, over the seeds of both methods.

    `scores`: final values per seed of treatment and baseline, [n_treatment] and [n_baseline]; `family`: number of
    comparisons for which the intervals hold simultaneously (Bonferroni, level 1 - 0.05 / family); `inner`: the 50%
    interval, or with a `margin` the interval of the equivalence test, at `inner_percent`; `p_holm`: p-value adjusted
    over the family; `detectable_d`: smallest d found with 80% power; `equivalent`: None without a margin.
    """

    treatment: str
    baseline: str
    metric: Metric
    scores: tuple[tuple[float, ...], tuple[float, ...]]
    welch: Welch
    paired: Paired | None
    inner: Estimate
    inner_percent: float
    cohens_d: Estimate
    hedges_g: Estimate
    glass_delta: Estimate
    p_holm: float | None
    permutation: Permutation
    detectable_d: float | None
    pooled_sd: float | None
    equivalent: bool | None
    margin: float | None
    family: int

    @property
    def difference(self) -> Estimate:
        """Difference with its deciding interval: Welch's, or that of the paired t-test for paired seeds."""
        return self.paired.difference if self.paired else self.welch.difference

    @property
    def test(self) -> Welch | Paired:
        """The t-test of the deciding interval."""
        return self.paired or self.welch

    @property
    def n(self) -> tuple[int, int]:
        """Number of seeds of treatment and baseline."""
        return len(self.scores[0]), len(self.scores[1])

    @property
    def detectable(self) -> float | None:
        """Smallest detectable difference in units of the metric, assuming the observed pooled standard deviation."""
        return None if self.detectable_d is None or self.pooled_sd is None else self.detectable_d * self.pooled_sd

    @property
    def welch_power(self) -> float | None:
        """Power of Welch's test at the smallest detectable d; None for paired seeds."""
        if self.detectable_d is None or self.paired is not None:
            return None
        return statistics.welch_power(self.detectable_d, *self.n, alpha=ALPHA / self.family)

    @property
    def improvement_interval(self) -> tuple[float, float] | None:
        """Interval of the difference, with the sign chosen such that positive favors the treatment."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None:
            return None
        return (-high, -low) if self.metric.better == "less" else (low, high)

    @property
    def probability_of_improvement(self) -> float | None:
        """P(treatment is better) over all combinations of seeds, a tie as one half (Mann-Whitney U / (n1 n2))."""
        share = statistics.probability_of_improvement(*self.scores)
        return 1 - share if share is not None and self.metric.better == "less" else share

    @property
    def seed_wins(self) -> tuple[float, int]:
        """Number of combinations of seeds in which the treatment is better (a tie as one half), and their total."""
        combinations = self.n[0] * self.n[1]
        return (self.probability_of_improvement or 0.0) * combinations, combinations

    def seeds_needed_for(self, difference: float) -> int | None:
        """Seeds per method to find a true difference in metric units with 80% power; None if it cannot be computed."""
        return self.seeds_needed_for_d(difference / self.pooled_sd) if self.pooled_sd else None

    def seeds_needed_for_d(self, d: float) -> int | None:
        """Seeds per method to find a true effect size d with 80% power; None beyond 10,000."""
        if self.paired and self.paired.sd and self.pooled_sd:
            return statistics.pairs_needed(d * self.pooled_sd / self.paired.sd, ALPHA / self.family)
        return statistics.seeds_needed(d, ALPHA / self.family)


def compare_methods(
    metric: Metric,
    scores: Mapping[str, Sequence[float]],
    methods: Sequence[str],
    margin: float | None = None,
    by_seed: bool = False,
) -> list[Comparison]:
    """Compare every two methods, the earlier one as baseline: Bonferroni intervals, Holm-adjusted p-values."""
    method_pairs = list(combinations(methods, 2))
    found = [
        compare(metric, scores, later, earlier, margin, len(method_pairs), by_seed) for earlier, later in method_pairs
    ]
    adjusted = statistics.holm([comparison.test.p for comparison in found])
    return [replace(comparison, p_holm=p) for comparison, p in zip(found, adjusted, strict=True)]


def compare(
    metric: Metric,
    scores: Mapping[str, Sequence[float]],
    treatment: str,
    baseline: str,
    margin: float | None = None,
    family: int = 1,
    by_seed: bool = False,
) -> Comparison:
    """Compare two methods; `scores` has the final values per seed of each method.

    `family`: number of comparisons for which the intervals must hold simultaneously. The inner interval is the 50%
    interval, or with a margin the 1 - 2 alpha interval of two one-sided tests (Schuirmann 1987; 90% for one
    comparison). With `by_seed` the scores of both methods are in the order of the same seeds, and the paired t-test
    decides.
    """
    x, y = tuple(scores[treatment]), tuple(scores[baseline])
    confidence, alpha = 1 - ALPHA / family, ALPHA / family
    inner_level = HALF if margin is None else 1 - 2 * alpha
    paired = statistics.paired(x, y, confidence) if by_seed else None
    inner = (statistics.paired if by_seed else statistics.welch)(x, y, inner_level).difference
    shuffle, rng = statistics.sign_flip if by_seed else statistics.permutation, np.random.default_rng(0)
    return Comparison(
        treatment=treatment,
        baseline=baseline,
        metric=metric,
        scores=(x, y),
        welch=statistics.welch(x, y, confidence),
        paired=paired,
        inner=inner,
        inner_percent=100 * inner_level,
        cohens_d=paired.d_av if paired else statistics.cohens_d(x, y, confidence),
        hedges_g=paired.g_av if paired else statistics.hedges_g(x, y, confidence),
        glass_delta=statistics.glass_delta(x, y, confidence),
        p_holm=None,
        permutation=shuffle(x, y, rng),
        detectable_d=_detectable_d(x, y, paired, alpha),
        pooled_sd=statistics.pooled_sd(x, y),
        equivalent=None if margin is None else statistics.lies_within(inner, margin),
        margin=margin,
        family=family,
    )


def _detectable_d(x: Sequence[float], y: Sequence[float], paired: Paired | None, alpha: float) -> float | None:
    """Smallest detectable effect on the scale of d; for paired seeds from the standard deviation of the differences."""
    spread = statistics.pooled_sd(x, y)
    if paired is None:
        return statistics.minimum_detectable_d(len(x), len(y), alpha)
    smallest = statistics.minimum_detectable_d_z(len(x), alpha)
    return None if smallest is None or not paired.sd or not spread else smallest * paired.sd / spread
