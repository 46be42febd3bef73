"""Noncentral t distribution: intervals of the noncentrality and power, accurate also for large t."""

from math import isfinite, sqrt

import numpy as np
from scipy import optimize, stats

LARGE_T = 500.0  # beyond it scipy's cdf is inaccurate, and the limiting distribution is used


def cdf(t: float, df: float, shift: float) -> float:
    """P(T <= t) of a noncentral t; 0 or 1 in the far tails, where scipy returns NaN."""
    value = float(stats.nct.cdf(t, df, shift))
    return value if isfinite(value) else float(shift < t)


def noncentrality(t: float, df: float, probability: float) -> float:
    """The noncentrality at which P(T <= t) equals `probability`."""
    if abs(t) > LARGE_T:
        tail = 1 - probability if t > 0 else probability
        return t * sqrt(float(stats.chi2.ppf(tail, df)) / df)

    def gap(shift: float) -> float:
        return cdf(t, df, shift) - probability

    width = 4.0 + abs(t)
    while gap(t - width) < 0 or gap(t + width) > 0:
        width *= 2
    return float(optimize.brentq(gap, t - width, t + width, xtol=1e-10))


def limits(t: float, df: float, confidence: float) -> tuple[float, float]:
    """Interval of the noncentrality for an observed t, by inversion of the cdf (Steiger and Fouladi 1997)."""
    tail = (1 - confidence) / 2
    return noncentrality(t, df, 1 - tail), noncentrality(t, df, tail)


def power(shift: float, df: float, alpha: float) -> float:
    """Probability that |T| exceeds the two-sided critical value when the noncentrality is `shift`."""
    critical = float(stats.t.ppf(1 - alpha / 2, df))
    return 1 - cdf(critical, df, shift) + float(np.nan_to_num(stats.nct.cdf(-critical, df, shift)))
