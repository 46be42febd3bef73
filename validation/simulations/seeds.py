"""Studies whose truth is known, many at a time: do the intervals over seeds hold it?

Each function draws `repeats` studies at once and computes the report's interval by its formula, vectorised; the first
few are computed again by the function that the report calls, and both must agree on whether the truth is inside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from scipy import stats

from analysis import statistics
from analysis.statistics import Estimate

Draw = Callable[[int, int], np.ndarray]
"""Numbers with mean 0 and variance 1, [repeats, seeds]."""
CHECKED = 25


@dataclass(frozen=True)
class Held:
    """In which of the drawn studies an interval held the truth [repeats]."""

    inside: np.ndarray

    @property
    def percent(self) -> float:
        """How often."""
        return 100 * float(self.inside.mean())


def held(inside: np.ndarray, truth: float | np.ndarray, printed: Callable[[int], Estimate]) -> Held:
    """The same answer from the formula and, for the first studies, from the function that prints the interval."""
    truths = np.broadcast_to(truth, inside.shape)
    for i in range(min(CHECKED, len(inside))):
        interval = printed(i)
        assert interval.low is not None, interval.reason
        assert interval.high is not None, interval.reason
        assert inside[i] == (interval.low <= truths[i] <= interval.high), (i, interval, truths[i])
    return Held(inside)


def normal(rng: np.random.Generator) -> Draw:
    """Bell-shaped numbers."""
    return lambda repeats, n: rng.standard_normal((repeats, n))


def skewed(rng: np.random.Generator) -> Draw:
    """Numbers with a long right tail: chi-squared with 3 degrees of freedom, skewness 1.63."""
    return lambda repeats, n: (rng.chisquare(3, (repeats, n)) - 3) / sqrt(6)


def _t_inside(error: np.ndarray, df: np.ndarray | int, gap: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    return np.abs(gap) <= stats.t.ppf((1 + confidence) / 2, df) * error


def _welch(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Difference of means, its standard error and degrees of freedom, of each study."""
    a, b = x.var(1, ddof=1) / x.shape[1], y.var(1, ddof=1) / y.shape[1]
    df = (a + b) ** 2 / (a**2 / (x.shape[1] - 1) + b**2 / (y.shape[1] - 1))
    return x.mean(1) - y.mean(1), np.sqrt(a + b), df


def mean(draw: Draw, repeats: int, n: int) -> Held:
    """The mean of a method."""
    x = draw(repeats, n)
    inside = _t_inside(x.std(1, ddof=1) / sqrt(n), n - 1, x.mean(1))
    return held(inside, 0.0, lambda i: statistics.mean_interval(list(x[i])))


def trimmed_mean(draw: Draw, repeats: int, n: int) -> Held:
    """The interquartile mean, for what it estimates: the mean of the middle half (not 0 where numbers are skewed)."""
    middle = float(stats.trim_mean(draw(1, 1_000_000)[0], 0.25))
    x, cut = np.sort(draw(repeats, n), axis=1), n // 4
    center = x[:, cut : n - cut].mean(1)
    spread = np.clip(x, x[:, [cut]], x[:, [n - cut - 1]]).std(1, ddof=1)
    error = spread / (0.5 * sqrt(n))
    inside = _t_inside(error, n - 2 * cut - 1, center - middle)
    return held(inside, middle, lambda i: statistics.interquartile_mean(list(x[i])))


def difference(draw: Draw, repeats: int, n: int, unequal: float = 1.0, confidence: float = 0.95) -> Held:
    """Welch's interval of a difference; `unequal` is how much more the first method varies."""
    x, y = unequal * draw(repeats, n), draw(repeats, n)
    gap, error, df = _welch(x, y)
    inside = _t_inside(error, df, gap, confidence)
    return held(inside, 0.0, lambda i: statistics.welch(list(x[i]), list(y[i]), confidence).difference)


def _between(t: np.ndarray, df: int, shift: np.ndarray | float) -> np.ndarray:
    """The noncentrality lies within the limits found by inverting the noncentral t at the observed t."""
    below = stats.nct.cdf(t, df, shift)
    below = np.where(np.isfinite(below), below, shift < t)
    return (below >= 0.025) & (below <= 0.975)


def cohens_d(draw: Draw, repeats: int, n: int, effect: float) -> Held:
    """Cohen's d when the true effect is this many standard deviations."""
    x, y = draw(repeats, n) + effect, draw(repeats, n)
    t = (x.mean(1) - y.mean(1)) / np.sqrt((x.var(1, ddof=1) + y.var(1, ddof=1)) / n)
    inside = _between(t, 2 * n - 2, effect / sqrt(2 / n))
    return held(inside, effect, lambda i: statistics.cohens_d(list(x[i]), list(y[i])))


def scaled_by_j(draw: Draw, repeats: int, n: int, effect: float) -> Held:
    """Hedges' g with the limits of d times J, as is often printed and not here."""
    x, y = draw(repeats, n) + effect, draw(repeats, n)
    t = (x.mean(1) - y.mean(1)) / np.sqrt((x.var(1, ddof=1) + y.var(1, ddof=1)) / n)
    return Held(_between(t, 2 * n - 2, effect / statistics.small_sample_factor(2 * n - 2) / sqrt(2 / n)))


def glass_delta(draw: Draw, repeats: int, n: int, effect: float) -> Held:
    """Glass's delta where the first method varies six times as much as the baseline."""
    x, y = 6 * draw(repeats, n) + effect, draw(repeats, n)
    gap, error, _ = _welch(x, y)
    scale = np.sqrt(x.var(1, ddof=1) / y.var(1, ddof=1) / n + 1 / n)
    inside = _between(gap / error, n - 1, effect / scale)
    return held(inside, effect, lambda i: statistics.glass_delta(list(x[i]), list(y[i])))


def _pairs(draw: Draw, repeats: int, n: int, shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two methods that correlate by `shared` over seeds, with variance 1 each."""
    own, common = sqrt(1 - shared), sqrt(shared) * draw(repeats, n)
    return own * draw(repeats, n) + common, own * draw(repeats, n) + common


def paired_difference(draw: Draw, repeats: int, n: int, shared: float = 0.5) -> Held:
    """The mean difference within seeds."""
    x, y = _pairs(draw, repeats, n, shared)
    gaps = x - y
    inside = _t_inside(gaps.std(1, ddof=1) / sqrt(n), n - 1, gaps.mean(1))
    return held(inside, 0.0, lambda i: statistics.paired(list(x[i]), list(y[i])).difference)


def paired_d_z(draw: Draw, repeats: int, n: int, effect: float, shared: float = 0.5) -> Held:
    """The same difference in units of the spread of the differences."""
    x, y = _pairs(draw, repeats, n, shared)
    true = effect / sqrt(2 * (1 - shared))
    gaps = x + effect - y
    inside = _between(gaps.mean(1) / gaps.std(1, ddof=1) * sqrt(n), n - 1, true * sqrt(n))
    return held(inside, true, lambda i: statistics.paired(list(x[i] + effect), list(y[i])).d_z)


def paired_d_av(draw: Draw, repeats: int, n: int, effect: float, shared: float = 0.5) -> Held:
    """The same difference in units of the spread of the methods."""
    x, y = _pairs(draw, repeats, n, shared)
    x = x + effect
    gaps = x - y
    t = gaps.mean(1) / gaps.std(1, ddof=1) * sqrt(n)
    unit = np.sqrt(2 * gaps.var(1, ddof=1) / (n * (x.var(1, ddof=1) + y.var(1, ddof=1))))
    return held(_between(t, n - 1, effect / unit), effect, lambda i: statistics.paired(list(x[i]), list(y[i])).d_av)


def ratio(draw: Draw, repeats: int, n: int) -> Held:
    """The ratio of what two methods cost, when each cost varies by about a tenth."""
    x, y = np.exp(0.1 * draw(repeats, n) - 0.2), np.exp(0.1 * draw(repeats, n))
    gap, error, df = _welch(np.log(x), np.log(y))
    true = float(np.exp(-0.2))
    return held(_t_inside(error, df, gap - log(true)), true, lambda i: statistics.ratio(list(x[i]), list(y[i])))


def wilson(rng: np.random.Generator, repeats: int, trials: int, share: float) -> Held:
    """The share of prompts of which something is true."""
    counts = rng.binomial(trials, share, repeats)
    ends = [statistics.wilson(count, trials) for count in range(trials + 1)]
    inside = np.array([end.low <= share <= end.high for end in ends if end.low is not None and end.high is not None])
    return Held(inside[counts])
