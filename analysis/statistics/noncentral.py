"""The noncentral t, also where scipy's loses its digits."""

from math import isfinite, sqrt

import numpy as np
from scipy import optimize, stats

LARGE_T = 500.0  # beyond it the noncentral t is its limit, and scipy's cdf loses its digits


def cdf(t: float, df: float, shift: float) -> float:
    """P(T <= t) of a noncentral t; 0 or 1 far out, where scipy gives NaN."""
    value = float(stats.nct.cdf(t, df, shift))
    return value if isfinite(value) else float(shift < t)


def noncentrality(t: float, df: float, probability: float) -> float:
    """The noncentrality at which a t this small or smaller has the given probability."""
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
    """The interval of the noncentrality behind an observed t, by inversion (Steiger and Fouladi 1997)."""
    tail = (1 - confidence) / 2
    return noncentrality(t, df, 1 - tail), noncentrality(t, df, tail)


def power(shift: float, df: float, alpha: float) -> float:
    """Chance that |T| exceeds the two-sided critical value when the noncentrality is `shift`."""
    critical = float(stats.t.ppf(1 - alpha / 2, df))
    return 1 - cdf(critical, df, shift) + float(np.nan_to_num(stats.nct.cdf(-critical, df, shift)))
