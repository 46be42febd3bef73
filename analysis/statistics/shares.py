"""Proportions: Wilson's interval, and McNemar's test of two models on the same prompts."""

from dataclasses import dataclass
from math import sqrt

from scipy import stats

from .estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Number of prompts correct with the first model only and with the second only, and the exact two-sided p-value."""

    only_first: int
    only_second: int
    p: float | None
    reason: str | None = None


def wilson(successes: float, trials: int, confidence: float = 0.95) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson 1927); half successes (ties) are allowed.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    if trials < 1:
        return Estimate(value=None, reason="n<1")
    assert 0 <= successes <= trials, "a share lies between 0 and 1"
    z, share = float(stats.norm.ppf((1 + confidence) / 2)), successes / trials
    middle, whole = share + z**2 / (2 * trials), 1 + z**2 / trials
    half = z * sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    low = 0.0 if successes == 0 else (middle - half) / whole
    return Estimate(value=share, low=low, high=1.0 if successes == trials else (middle + half) / whole)


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """Exact McNemar test that two models are correct equally often: binomial test of the discordant prompts."""
    discordant = only_first + only_second
    if not discordant:
        return McNemar(only_first=0, only_second=0, p=None, reason="no_disagreement")
    p = float(stats.binomtest(min(only_first, only_second), discordant).pvalue)
    return McNemar(only_first=only_first, only_second=only_second, p=p)
