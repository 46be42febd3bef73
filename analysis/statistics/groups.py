"""Two groups of independent seeds: difference, permutation, probability of improvement, equivalence, ratio."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, exp, log, sqrt

import numpy as np
from scipy import stats

from .estimate import Estimate, Numbers, mean, missing_reason, transformed, undefined_reason

EXACT_LIMIT = 200_000  # number of relabelings up to which the test is exact
DRAWS = 19_999


@dataclass(frozen=True, kw_only=True)
class Welch:
    """Difference of two means (first minus second) without assuming equal variances."""

    difference: Estimate
    t: float | None = None
    df: float | None = None
    p: float | None = None

    @property
    def probability_above_zero(self) -> float | None:
        """Posterior P(true difference > 0) with flat priors: the t(df) distribution function at t."""
        return None if self.t is None else float(stats.t.cdf(self.t, self.df))


@dataclass(frozen=True, kw_only=True)
class Permutation:
    """Two-sided p-value of a permutation test, and the smallest p-value that this number of seeds allows."""

    p: float | None
    smallest: float | None
    reason: str | None = None


def welch(x: Numbers, y: Numbers, confidence: float = 0.95) -> Welch:
    """Difference of means x minus y with the Welch t-interval.

    t = (mean x - mean y) / sqrt(v1 + v2), v = s^2 / n; df = (v1 + v2)^2 / (v1^2 / (n1-1) + v2^2 / (n2-1)) (Welch 1947).
    """
    a, b = mean(x), mean(y)
    raw = None if a is None or b is None else a - b
    reason = undefined_reason(x, y)
    if reason:
        return Welch(difference=Estimate(value=raw, reason=reason))
    difference = float(np.mean(x) - np.mean(y))
    parts = np.var(x, ddof=1) / len(x), np.var(y, ddof=1) / len(y)
    error = sqrt(sum(parts))
    df = sum(parts) ** 2 / (parts[0] ** 2 / (len(x) - 1) + parts[1] ** 2 / (len(y) - 1))
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * error
    return Welch(
        difference=Estimate(value=difference, low=difference - half, high=difference + half),
        t=difference / error,
        df=float(df),
        p=float(2 * stats.t.sf(abs(difference / error), df)),
    )


def smallest_permutation_p(n_first: int, n_second: int) -> float:
    """Smallest two-sided p-value of the exact permutation test: 2 / C(n1+n2, n1)."""
    return min(1.0, 2 / comb(n_first + n_second, n_first))


@lru_cache(maxsize=4)
def _relabelings(whole: int, first: int) -> np.ndarray:
    """Indices of the first group in every relabeling [relabelings, first]."""
    return np.array(list(combinations(range(whole), first)), dtype=np.int16)


def two_sided(observed: float, shuffled: np.ndarray, counted: bool) -> float:
    """Twice the smaller tail, at most 1; sampled relabelings include the observed one (Phipson and Smyth 2010)."""
    near, extra = 1e-12 * max(abs(observed), np.abs(shuffled).max()), 0 if counted else 1
    tails = (np.sum(shuffled <= observed + near), np.sum(shuffled >= observed - near))
    return min(1.0, 2 * (min(map(int, tails)) + extra) / (len(shuffled) + extra))


def permutation(x: Numbers, y: Numbers, rng: np.random.Generator) -> Permutation:
    """Permutation test of the difference of means: exact up to 200,000 relabelings, else 19,999 samples."""
    reason = missing_reason(x, y)
    if reason:
        return Permutation(p=None, smallest=None, reason=reason)
    both, first = np.concatenate([x, y]), len(x)
    counted = comb(len(both), first) <= EXACT_LIMIT
    if counted:
        sums = both[_relabelings(len(both), first)].sum(1)  # [relabelings]; the sum of one group fixes the difference
    else:
        sums = rng.permuted(np.tile(both, (DRAWS, 1)), axis=1)[:, :first].sum(1)
    floor = smallest_permutation_p(first, len(y)) if counted else 2 / (DRAWS + 1)
    return Permutation(p=two_sided(float(np.sum(x)), sums, counted), smallest=floor)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Step-down adjusted p-values over a family (Holm 1979); undefined tests leave the family."""
    family = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, place) in enumerate(family):
        highest = max(highest, min(1.0, (len(family) - rank) * p))
        adjusted[place] = highest
    return adjusted


def probability_of_improvement(x: Numbers, y: Numbers) -> float | None:
    """Share of (x, y) pairs that x wins, ties counted half: Mann-Whitney U / (n1 n2)."""
    if not x or not y or missing_reason(x, y) == "not_finite":
        return None
    wins = np.sign(np.subtract.outer(np.asarray(x, float), np.asarray(y, float)))
    return float((wins.mean() + 1) / 2)


def is_equivalent(x: Numbers, y: Numbers, margin: float, alpha: float = 0.05) -> bool | None:
    """Two one-sided Welch tests (Schuirmann 1987): the 1 - 2 alpha interval lies inside +-margin."""
    return lies_within(welch(x, y, 1 - 2 * alpha).difference, margin)


def lies_within(interval: Estimate, margin: float) -> bool | None:
    """Whether an interval lies inside +-margin; None without an interval."""
    if interval.low is None or interval.high is None:
        return None
    return -margin < interval.low and interval.high < margin


def ratio(x: Numbers, y: Numbers, confidence: float = 0.95) -> Estimate:
    """Ratio of geometric means x / y with the Welch interval of the logarithms; needs positive numbers."""
    if not x or not y or min(min(x), min(y)) <= 0:
        return Estimate(value=None, reason="not_positive" if x and y else "n<2")
    logs = welch([log(number) for number in x], [log(number) for number in y], confidence)
    return transformed(logs.difference, exp)
