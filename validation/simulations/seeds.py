"""Coverage of the intervals over seeds, in simulated studies with known truth.

Each function samples `repeats` studies with `n` seeds per method and computes the report's interval, vectorized over
studies. For the first studies the function that the report calls must agree on whether the interval covers the truth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from scipy import stats

from analysis import statistics
from analysis.statistics import Estimate

Sampler = Callable[[int, int], np.ndarray]
"""Samples numbers of mean 0 and variance 1, [repeats, seeds]."""
CHECKED = 25
"""Studies that are compared with the functions of the report."""


@dataclass(frozen=True)
class Coverage:
    """Whether the interval of each study covers the truth [repeats]."""

    covered: np.ndarray

    @property
    def percent(self) -> float:
        """Coverage in percent."""
        return 100 * float(self.covered.mean())


def check(covered: np.ndarray, truth: float | np.ndarray, reported: Callable[[int], Estimate]) -> Coverage:
    """Check `covered` [repeats] against the report's intervals. Raises AssertionError if they disagree."""
    truths = np.broadcast_to(truth, covered.shape)
    for i in range(min(CHECKED, len(covered))):
        interval = reported(i)
        assert interval.low is not None, interval.reason
        assert interval.high is not None, interval.reason
        assert covered[i] == (interval.low <= truths[i] <= interval.high), (i, interval, truths[i])
    return Coverage(covered)


def normal(rng: np.random.Generator) -> Sampler:
    """Normal numbers."""
    return lambda repeats, n: rng.standard_normal((repeats, n))


def skewed(rng: np.random.Generator) -> Sampler:
    """Numbers with a long right tail: chi-squared with 3 degrees of freedom, skewness 1.63."""
    return lambda repeats, n: (rng.chisquare(3, (repeats, n)) - 3) / sqrt(6)


def _t_covers(error: np.ndarray, df: np.ndarray | int, gap: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    return np.abs(gap) <= stats.t.ppf((1 + confidence) / 2, df) * error


def _welch(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Difference of means, its standard error and degrees of freedom, of each study."""
    a, b = x.var(1, ddof=1) / x.shape[1], y.var(1, ddof=1) / y.shape[1]
    df = (a + b) ** 2 / (a**2 / (x.shape[1] - 1) + b**2 / (y.shape[1] - 1))
    return x.mean(1) - y.mean(1), np.sqrt(a + b), df


def mean(sample: Sampler, repeats: int, n: int) -> Coverage:
    """The mean of a method."""
    x = sample(repeats, n)
    covered = _t_covers(x.std(1, ddof=1) / sqrt(n), n - 1, x.mean(1))
    return check(covered, 0.0, lambda i: statistics.mean_interval(list(x[i])))


def trimmed_mean(sample: Sampler, repeats: int, n: int) -> Coverage:
    """The interquartile mean; its truth is the mean of the middle half (not 0 for skewed numbers)."""
    middle = float(stats.trim_mean(sample(1, 1_000_000)[0], 0.25))
    x, cut = np.sort(sample(repeats, n), axis=1), n // 4
    center = x[:, cut : n - cut].mean(1)
    spread = np.clip(x, x[:, [cut]], x[:, [n - cut - 1]]).std(1, ddof=1)
    error = spread / (0.5 * sqrt(n))
    covered = _t_covers(error, n - 2 * cut - 1, center - middle)
    return check(covered, middle, lambda i: statistics.interquartile_mean(list(x[i])))


def difference(sample: Sampler, repeats: int, n: int, unequal: float = 1.0, confidence: float = 0.95) -> Coverage:
    """Welch's interval of a difference; `unequal` is the ratio of the standard deviations of the methods."""
    x, y = unequal * sample(repeats, n), sample(repeats, n)
    gap, error, df = _welch(x, y)
    covered = _t_covers(error, df, gap, confidence)
    return check(covered, 0.0, lambda i: statistics.welch(list(x[i]), list(y[i]), confidence).difference)


def _noncentral_t_covers(t: np.ndarray, df: int, shift: np.ndarray | float) -> np.ndarray:
    """Whether the noncentrality `shift` is within the limits from inverting the noncentral t distribution at `t`."""
    below = stats.nct.cdf(t, df, shift)
    below = np.where(np.isfinite(below), below, shift < t)
    return (below >= 0.025) & (below <= 0.975)


def cohens_d(sample: Sampler, repeats: int, n: int, effect: float) -> Coverage:
    """Cohen's d; `effect` is the true effect in standard deviations."""
    x, y = sample(repeats, n) + effect, sample(repeats, n)
    t = (x.mean(1) - y.mean(1)) / np.sqrt((x.var(1, ddof=1) + y.var(1, ddof=1)) / n)
    covered = _noncentral_t_covers(t, 2 * n - 2, effect / sqrt(2 / n))
    return check(covered, effect, lambda i: statistics.cohens_d(list(x[i]), list(y[i])))


def scaled_by_j(sample: Sampler, repeats: int, n: int, effect: float) -> Coverage:
    """Hedges' g with the limits of d times J: common elsewhere, not used in the report."""
    x, y = sample(repeats, n) + effect, sample(repeats, n)
    t = (x.mean(1) - y.mean(1)) / np.sqrt((x.var(1, ddof=1) + y.var(1, ddof=1)) / n)
    return Coverage(
        _noncentral_t_covers(t, 2 * n - 2, effect / statistics.small_sample_factor(2 * n - 2) / sqrt(2 / n))
    )


def glass_delta(sample: Sampler, repeats: int, n: int, effect: float) -> Coverage:
    """Glass's delta where the standard deviation of the first method is six times that of the baseline."""
    x, y = 6 * sample(repeats, n) + effect, sample(repeats, n)
    gap, error, _ = _welch(x, y)
    scale = np.sqrt(x.var(1, ddof=1) / y.var(1, ddof=1) / n + 1 / n)
    covered = _noncentral_t_covers(gap / error, n - 1, effect / scale)
    return check(covered, effect, lambda i: statistics.glass_delta(list(x[i]), list(y[i])))


def _paired_scores(sample: Sampler, repeats: int, n: int, shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two methods with variance 1 and correlation `shared` over seeds, [repeats, n] each."""
    own, common = sqrt(1 - shared), sqrt(shared) * sample(repeats, n)
    return own * sample(repeats, n) + common, own * sample(repeats, n) + common


def paired_difference(sample: Sampler, repeats: int, n: int, shared: float = 0.5) -> Coverage:
    """The mean difference within seeds."""
    x, y = _paired_scores(sample, repeats, n, shared)
    gaps = x - y
    covered = _t_covers(gaps.std(1, ddof=1) / sqrt(n), n - 1, gaps.mean(1))
    return check(covered, 0.0, lambda i: statistics.paired(list(x[i]), list(y[i])).difference)


def paired_d_z(sample: Sampler, repeats: int, n: int, effect: float, shared: float = 0.5) -> Coverage:
    """The mean difference in units of the standard deviation of the differences."""
    x, y = _paired_scores(sample, repeats, n, shared)
    true = effect / sqrt(2 * (1 - shared))
    gaps = x + effect - y
    covered = _noncentral_t_covers(gaps.mean(1) / gaps.std(1, ddof=1) * sqrt(n), n - 1, true * sqrt(n))
    return check(covered, true, lambda i: statistics.paired(list(x[i] + effect), list(y[i])).d_z)


def paired_d_av(sample: Sampler, repeats: int, n: int, effect: float, shared: float = 0.5) -> Coverage:
    """The mean difference in units of the standard deviation of the methods."""
    x, y = _paired_scores(sample, repeats, n, shared)
    x = x + effect
    gaps = x - y
    t = gaps.mean(1) / gaps.std(1, ddof=1) * sqrt(n)
    unit = np.sqrt(2 * gaps.var(1, ddof=1) / (n * (x.var(1, ddof=1) + y.var(1, ddof=1))))
    return check(
        _noncentral_t_covers(t, n - 1, effect / unit), effect, lambda i: statistics.paired(list(x[i]), list(y[i])).d_av
    )


def ratio(sample: Sampler, repeats: int, n: int) -> Coverage:
    """The ratio of the costs of two methods; each cost varies by about 10%."""
    x, y = np.exp(0.1 * sample(repeats, n) - 0.2), np.exp(0.1 * sample(repeats, n))
    gap, error, df = _welch(np.log(x), np.log(y))
    true = float(np.exp(-0.2))
    return check(_t_covers(error, df, gap - log(true)), true, lambda i: statistics.ratio(list(x[i]), list(y[i])))


def wilson(rng: np.random.Generator, repeats: int, trials: int, share: float) -> Coverage:
    """Wilson's interval of a share of prompts."""
    counts = rng.binomial(trials, share, repeats)
    ends = [statistics.wilson(count, trials) for count in range(trials + 1)]
    covered = np.array([end.low <= share <= end.high for end in ends if end.low is not None and end.high is not None])
    return Coverage(covered[counts])
