"""Power of t-tests, smallest detectable effect size, and number of seeds needed."""

from collections.abc import Callable
from math import sqrt

import numpy as np
from scipy import optimize, stats

from . import noncentral

MOST_SEEDS = 10_000
POINTS = 60  # of the quadrature over one group's share of the variance


def power(d: float, n_first: int, n_second: int, alpha: float = 0.05) -> float:
    """Probability that a two-sided t-test finds a true effect of size d (noncentral t, equal variances)."""
    return noncentral.power(d / sqrt(1 / n_first + 1 / n_second), n_first + n_second - 2, alpha)


def welch_power(d: float, n_first: int, n_second: int, alpha: float = 0.05) -> float:
    """Power of Welch's test with equal variances; below `power` with few seeds, since two variances are estimated.

    With equal variances B = (n1-1) s1^2 / ((n1-1) s1^2 + (n2-1) s2^2) is Beta((n1-1)/2, (n2-1)/2) and independent of
    the pooled variance, so given B Welch's t is a multiple of a noncentral t: the power is its mean over B.
    """
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    share = stats.beta.ppf((nodes + 1) / 2, (n_first - 1) / 2, (n_second - 1) / 2)
    df, parts = n_first + n_second - 2, (share / ((n_first - 1) * n_first), (1 - share) / ((n_second - 1) * n_second))
    own_df = (parts[0] + parts[1]) ** 2 / (parts[0] ** 2 / (n_first - 1) + parts[1] ** 2 / (n_second - 1))
    stretch = np.sqrt((1 / n_first + 1 / n_second) / (df * (parts[0] + parts[1])))
    critical, shift = stats.t.ppf(1 - alpha / 2, own_df) / stretch, d / sqrt(1 / n_first + 1 / n_second)
    found = stats.nct.sf(critical, df, shift) + np.nan_to_num(stats.nct.cdf(-critical, df, shift))
    return float((weights / 2 * found).sum())


def paired_power(d_z: float, pairs: int, alpha: float = 0.05) -> float:
    """Probability that a two-sided paired t-test finds a true effect of size d_z (noncentral t)."""
    return noncentral.power(d_z * sqrt(pairs), pairs - 1, alpha)


def minimum_detectable_d(n_first: int, n_second: int, alpha: float = 0.05, target_power: float = 0.8) -> float | None:
    """The smallest true d found with the target power; None when a group has fewer than two seeds."""
    if min(n_first, n_second) < 2:
        return None
    return _smallest(lambda d: power(d, n_first, n_second, alpha), target_power)


def minimum_detectable_d_z(pairs: int, alpha: float = 0.05, target_power: float = 0.8) -> float | None:
    """The smallest true d_z found with the target power; None for fewer than two pairs."""
    return None if pairs < 2 else _smallest(lambda d_z: paired_power(d_z, pairs, alpha), target_power)


def seeds_needed(d: float, alpha: float = 0.05, target_power: float = 0.8) -> int | None:
    """Seeds per method to find a true d with the target power; None beyond 10,000 (or for d = 0)."""
    return _fewest(lambda n: power(abs(d), n, n, alpha), target_power)


def pairs_needed(d_z: float, alpha: float = 0.05, target_power: float = 0.8) -> int | None:
    """Pairs of seeds to find a true d_z with the target power; None beyond 10,000 (or for d_z = 0)."""
    return _fewest(lambda n: paired_power(abs(d_z), n, alpha), target_power)


def _smallest(power_of: Callable[[float], float], target_power: float) -> float:
    top = 1.0
    while power_of(top) < target_power:
        top *= 2
    return float(optimize.brentq(lambda effect: power_of(effect) - target_power, 0.0, top, xtol=1e-9))


def _fewest(power_of: Callable[[int], float], target_power: float) -> int | None:
    if power_of(MOST_SEEDS) < target_power:
        return None
    few, enough = 1, MOST_SEEDS
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if power_of(middle) >= target_power else (middle, enough)
    return enough
