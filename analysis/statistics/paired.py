"""Paired comparison of two methods by seed: paired t-test, d_z, d_av and the sign-flip test."""

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from scipy import stats

from . import noncentral
from .effect import small_sample_factor
from .estimate import Estimate, Numbers, is_constant, mean, missing_reason, undefined_reason
from .groups import DRAWS, EXACT_LIMIT, Permutation, two_sided


@dataclass(frozen=True, kw_only=True)
class Paired:
    """First minus second within seeds; `d_av` is on the scale of Cohen's d, `d_z` in sd of the differences."""

    difference: Estimate
    t: float | None = None
    df: float | None = None
    p: float | None = None
    d_z: Estimate
    d_av: Estimate
    g_av: Estimate
    correlation: float | None = None
    sd: float | None = None

    @property
    def probability_above_zero(self) -> float | None:
        """Posterior P(true difference > 0) with flat priors: the t(n - 1) distribution function at t."""
        return None if self.t is None else float(stats.t.cdf(self.t, self.df))


def paired(x: Numbers, y: Numbers, confidence: float = 0.95) -> Paired:
    """Mean of x[i] - y[i] with its t-interval, and two standardized effect sizes. `x`, `y`: [seeds], in the same order.

    d_z = mean / sd of the differences, with t = d_z sqrt(n) inverted in the noncentral t with n - 1 degrees of freedom.
    d_av = mean / sqrt((s1^2 + s2^2) / 2), whose limits are those of the noncentrality times
    sqrt(2 s_D^2 / (n (s1^2 + s2^2))) (Algina and Keselman 2003).
    """
    assert len(x) == len(y), "paired groups must have the same length"
    reason = undefined_reason(x, y)
    if reason:
        none = Estimate(value=None, reason=reason)
        raw = None if reason == "not_finite" or not x else mean(list(np.subtract(x, y)))
        return Paired(difference=Estimate(value=raw, reason=reason), d_z=none, d_av=none, g_av=none)
    gaps, n = np.subtract(x, y), len(x)
    center, spread = float(gaps.mean()), sqrt((np.var(x, ddof=1) + np.var(y, ddof=1)) / 2)
    if is_constant(gaps) or np.ptp(gaps) <= 8 * np.finfo(float).eps * max(np.abs(x).max(), np.abs(y).max()):
        known = Estimate(value=center / spread, reason="constant_difference")
        none = Estimate(value=None, reason="constant_difference")
        return Paired(difference=Estimate(value=center, reason="constant_difference"), d_z=none, d_av=known, g_av=known)
    sd = float(gaps.std(ddof=1))
    t, half = center / sd * sqrt(n), float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / sqrt(n)
    ends = noncentral.limits(t, n - 1, confidence)
    d_av = _in_units(t, ends, sd / spread / sqrt(n))
    both_vary = not is_constant(x) and not is_constant(y)
    return Paired(
        difference=Estimate(value=center, low=center - half, high=center + half),
        t=t,
        df=n - 1,
        p=float(2 * stats.t.sf(abs(t), n - 1)),
        d_z=_in_units(t, ends, 1 / sqrt(n)),
        d_av=d_av,
        g_av=replace(d_av, value=small_sample_factor(2 * n - 2) * center / spread),
        correlation=float(np.corrcoef(x, y)[0, 1]) if both_vary else None,
        sd=sd,
    )


def _in_units(t: float, ends: tuple[float, float], unit: float) -> Estimate:
    return Estimate(value=t * unit, low=ends[0] * unit, high=ends[1] * unit)


def smallest_sign_flip_p(pairs: int) -> float:
    """Smallest two-sided p-value of the exact sign-flip test: 2 / 2^n."""
    return min(1.0, 2 / 2**pairs)


def sign_flip(x: Numbers, y: Numbers, rng: np.random.Generator) -> Permutation:
    """Test of the mean difference by flipping signs: exact up to 200,000 patterns, else 19,999 samples."""
    reason = missing_reason(x, y)
    if reason:
        return Permutation(p=None, smallest=None, reason=reason)
    gaps, n = np.subtract(x, y), len(x)
    counted = 2**n <= EXACT_LIMIT
    heads = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 if counted else rng.integers(0, 2, (DRAWS, n))
    floor = smallest_sign_flip_p(n) if counted else 2 / (DRAWS + 1)
    return Permutation(p=two_sided(float(gaps.sum()), (2 * heads - 1) @ gaps, counted), smallest=floor)
