"""What a design can find: power, the smallest effect it finds, and the seeds it needs."""

from collections.abc import Callable
from math import sqrt

import numpy as np
from scipy import optimize, stats

from . import noncentral

MOST_SEEDS = 10_000
POINTS = 60  # of the quadrature over the share of the variance that one group shows


def power(d: float, n_first: int, n_second: int, alpha: float = 0.05) -> float:
    """Chance that a two-sided t-test finds a true effect of size d (noncentral t, equal variances)."""
    return noncentral.power(d / sqrt(1 / n_first + 1 / n_second), n_first + n_second - 2, alpha)


def welch_power(d: float, n_first: int, n_second: int, alpha: float = 0.05) -> float:
    """The same for Welch's test, which decides here: less than `power` with few seeds, for it estimates two spreads.

    With equal variances B = (n1-1) s1^2 / ((n1-1) s1^2 + (n2-1) s2^2) is Beta((n1-1)/2, (n2-1)/2) and independent of
    the pooled variance, so given B Welch's t is a multiple of a noncentral t: the mean of that chance over B.
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
    """Chance that a two-sided paired t-test finds a true mean difference of d_z standard deviations of a difference."""
    return noncentral.power(d_z * sqrt(pairs), pairs - 1, alpha)


def minimum_detectable_d(n_first: int, n_second: int, alpha: float = 0.05, wanted: float = 0.8) -> float | None:
    """The smallest true d found with the wanted power; None when a group has fewer than two seeds."""
    if min(n_first, n_second) < 2:
        return None
    return _smallest(lambda d: power(d, n_first, n_second, alpha), wanted)


def minimum_detectable_d_z(pairs: int, alpha: float = 0.05, wanted: float = 0.8) -> float | None:
    """The smallest true d_z found with the wanted power; None for fewer than two pairs."""
    return None if pairs < 2 else _smallest(lambda d_z: paired_power(d_z, pairs, alpha), wanted)


def seeds_needed(d: float, alpha: float = 0.05, wanted: float = 0.8) -> int | None:
    """Seeds per method to find a true d with the wanted power; None beyond 10,000 (or for d = 0)."""
    return _fewest(lambda n: power(abs(d), n, n, alpha), wanted)


def pairs_needed(d_z: float, alpha: float = 0.05, wanted: float = 0.8) -> int | None:
    """Pairs of seeds to find a true d_z with the wanted power; None beyond 10,000 (or for d_z = 0)."""
    return _fewest(lambda n: paired_power(abs(d_z), n, alpha), wanted)


def _smallest(power_of: Callable[[float], float], wanted: float) -> float:
    top = 1.0
    while power_of(top) < wanted:
        top *= 2
    return float(optimize.brentq(lambda effect: power_of(effect) - wanted, 0.0, top, xtol=1e-9))


def _fewest(power_of: Callable[[int], float], wanted: float) -> int | None:
    if power_of(MOST_SEEDS) < wanted:
        return None
    few, enough = 1, MOST_SEEDS
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if power_of(middle) >= wanted else (middle, enough)
    return enough
