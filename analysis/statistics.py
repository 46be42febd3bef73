"""Effect sizes, intervals, tests and sample sizes: pure functions of two lists of numbers, one per seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb, exp, inf, isfinite, lgamma, log, sqrt

import numpy as np
from scipy import optimize, stats

Numbers = Sequence[float]
EXACT_LIMIT = 200_000  # relabelings that are still counted one by one
MOST_SEEDS = 10_000
LARGE_T = 500.0  # beyond it the noncentral t is its limit, and scipy's cdf loses its digits


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval; a number that does not exist is None and says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Welch:
    """Difference of two means (first minus second) without assuming equal variances."""

    difference: Estimate
    t: float | None = None
    df: float | None = None
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Permutation:
    """Two-sided p of relabeling, and the smallest p that this number of seeds can reach."""

    p: float | None
    smallest: float | None
    reason: str | None = None


def is_constant(numbers: Numbers) -> bool:
    """All equal up to rounding; `sd == 0` would miss [0.1, 0.1, 0.1]."""
    x = np.asarray(numbers, float)
    return bool(np.ptp(x) == 0 or x.std(ddof=1) <= 8 * np.finfo(float).eps * np.abs(x).max())


def missing_reason(*groups: Numbers) -> str | None:
    """Why nothing can be computed from these groups, or None: `not_finite` or `n<2`."""
    if not all(isfinite(number) for group in groups for number in group):
        return "not_finite"
    return "n<2" if min(len(group) for group in groups) < 2 else None


def undefined_reason(x: Numbers, y: Numbers) -> str | None:
    """As `missing_reason`, and `zero_pooled_variance` when every seed of a group gave the same number."""
    return missing_reason(x, y) or ("zero_pooled_variance" if is_constant(x) and is_constant(y) else None)


def mean(numbers: Numbers) -> float | None:
    """Arithmetic mean; None for an empty list or one that holds a NaN."""
    return float(np.mean(numbers)) if numbers and all(map(isfinite, numbers)) else None


def mean_interval(numbers: Numbers, confidence: float = 0.95) -> Estimate:
    """Mean and its t-interval, mean +- t(n-1) sd / sqrt(n)."""
    reason = missing_reason(numbers)
    if reason:
        return Estimate(value=mean(numbers), reason=reason)
    if is_constant(numbers):
        return Estimate(value=mean(numbers), reason="zero_pooled_variance")
    center, n = float(np.mean(numbers)), len(numbers)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * np.std(numbers, ddof=1) / sqrt(n))
    return Estimate(value=center, low=center - half, high=center + half)


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


def pooled_sd(x: Numbers, y: Numbers) -> float | None:
    """sqrt(((n1-1) s1^2 + (n2-1) s2^2) / (n1+n2-2)); None where an effect size is undefined."""
    if undefined_reason(x, y):
        return None
    squares = (len(x) - 1) * np.var(x, ddof=1) + (len(y) - 1) * np.var(y, ddof=1)
    return float(sqrt(squares / (len(x) + len(y) - 2)))


def _noncentral_cdf(t: float, df: float, shift: float) -> float:
    value = float(stats.nct.cdf(t, df, shift))
    return value if isfinite(value) else float(shift < t)  # scipy gives NaN far out in the tails


def _noncentrality(t: float, df: float, probability: float) -> float:
    """The noncentrality at which a t this small or smaller has the given probability."""
    if abs(t) > LARGE_T:
        tail = 1 - probability if t > 0 else probability
        return t * sqrt(float(stats.chi2.ppf(tail, df)) / df)

    def gap(shift: float) -> float:
        return _noncentral_cdf(t, df, shift) - probability

    width = 4.0 + abs(t)
    while gap(t - width) < 0 or gap(t + width) > 0:
        width *= 2
    return float(optimize.brentq(gap, t - width, t + width, xtol=1e-10))


def cohens_d(x: Numbers, y: Numbers, confidence: float = 0.95) -> Estimate:
    """d = (mean x - mean y) / pooled sd with the exact noncentral-t interval.

    Cohen 1988; interval of Steiger and Fouladi 1997: t = d / sqrt(1/n1 + 1/n2) is inverted in its noncentrality.
    """
    sd, raw = pooled_sd(x, y), welch(x, y).difference.value
    if sd is None or raw is None:
        return Estimate(value=None, reason=undefined_reason(x, y))
    scale, df, tail = sqrt(1 / len(x) + 1 / len(y)), len(x) + len(y) - 2, (1 - confidence) / 2
    t = raw / sd / scale
    low, high = (_noncentrality(t, df, probability) * scale for probability in (1 - tail, tail))
    return Estimate(value=raw / sd, low=low, high=high)


def small_sample_factor(df: float) -> float:
    """J = Gamma(df/2) / (sqrt(df/2) Gamma((df-1)/2)), exact (Hedges 1981)."""
    return exp(lgamma(df / 2) - lgamma((df - 1) / 2)) / sqrt(df / 2)


def hedges_g(x: Numbers, y: Numbers, confidence: float = 0.95) -> Estimate:
    """g = J d: Cohen's d without its bias at few seeds (Hedges 1981); the interval is scaled alike."""
    d = cohens_d(x, y, confidence)
    if d.value is None or d.low is None or d.high is None:
        return d
    factor = small_sample_factor(len(x) + len(y) - 2)
    return Estimate(value=factor * d.value, low=factor * d.low, high=factor * d.high)


def smallest_permutation_p(n_first: int, n_second: int) -> float:
    """Two-sided floor of the exact permutation test: 2 / C(n1+n2, n1)."""
    return min(1.0, 2 / comb(n_first + n_second, n_first))


def _difference_of_means(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(x, axis=axis) - np.mean(y, axis=axis)


def permutation(x: Numbers, y: Numbers) -> Permutation:
    """Permutation test of the difference of means: exact while it can be counted, else 99,999 seeded draws."""
    reason = missing_reason(x, y)
    if reason:
        return Permutation(p=None, smallest=None, reason=reason)
    exact = comb(len(x) + len(y), len(x)) <= EXACT_LIMIT
    draws, floor = (inf, smallest_permutation_p(len(x), len(y))) if exact else (99_999, 2 / 100_000)
    test = stats.permutation_test(
        (x, y), _difference_of_means, vectorized=True, n_resamples=draws, rng=np.random.default_rng(0)
    )
    return Permutation(p=float(test.pvalue), smallest=floor)


def power(d: float, n_first: int, n_second: int, alpha: float = 0.05) -> float:
    """Chance that a two-sided t-test finds a true effect of size d (noncentral t, equal variances)."""
    df, shift = n_first + n_second - 2, d / sqrt(1 / n_first + 1 / n_second)
    critical = float(stats.t.ppf(1 - alpha / 2, df))
    return 1 - _noncentral_cdf(critical, df, shift) + float(np.nan_to_num(stats.nct.cdf(-critical, df, shift)))


def minimum_detectable_d(n_first: int, n_second: int, alpha: float = 0.05, wanted: float = 0.8) -> float | None:
    """The smallest true d found with the wanted power; None when a group has fewer than two seeds."""
    if min(n_first, n_second) < 2:
        return None
    top = 1.0
    while power(top, n_first, n_second, alpha) < wanted:
        top *= 2
    return float(optimize.brentq(lambda d: power(d, n_first, n_second, alpha) - wanted, 0.0, top, xtol=1e-9))


def seeds_needed(d: float, alpha: float = 0.05, wanted: float = 0.8) -> int | None:
    """Seeds per method to find a true d with the wanted power; None beyond 10,000 (or for d = 0)."""
    if power(abs(d), MOST_SEEDS, MOST_SEEDS, alpha) < wanted:
        return None
    few, enough = 1, MOST_SEEDS
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if power(abs(d), middle, middle, alpha) >= wanted else (middle, enough)
    return enough


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
    interval = welch(x, y, 1 - 2 * alpha).difference
    if interval.low is None or interval.high is None:
        return None
    return -margin < interval.low and interval.high < margin


def _transformed(estimate: Estimate, change: Callable[[float], float]) -> Estimate:
    value, low, high = (None if n is None else change(n) for n in (estimate.value, estimate.low, estimate.high))
    return Estimate(value=value, low=low, high=high, reason=estimate.reason)


def ratio(x: Numbers, y: Numbers, confidence: float = 0.95) -> Estimate:
    """Ratio of geometric means x / y with the Welch interval of the logarithms; needs positive numbers."""
    if not x or not y or min(min(x), min(y)) <= 0:
        return Estimate(value=None, reason="not_positive" if x and y else "n<2")
    logs = welch([log(number) for number in x], [log(number) for number in y], confidence)
    return _transformed(logs.difference, exp)
