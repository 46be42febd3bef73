"""An estimate with its interval, or with the reason why it is undefined; means of seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
from scipy import stats

Numbers = Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its interval; an undefined value is None, with a `reason` such as `n<2` or `not_finite`."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


def is_constant(numbers: Numbers | np.ndarray) -> bool:
    """Whether all numbers are equal up to floating-point error; `sd == 0` would miss [0.1, 0.1, 0.1]."""
    x = np.asarray(numbers, float)
    return bool(np.ptp(x) == 0 or x.std(ddof=1) <= 8 * np.finfo(float).eps * np.abs(x).max())


def missing_reason(*groups: Numbers) -> str | None:
    """The reason why no interval can be computed, `not_finite` or `n<2`; None if it can."""
    if not all(isfinite(number) for group in groups for number in group):
        return "not_finite"
    return "n<2" if min(len(group) for group in groups) < 2 else None


def undefined_reason(x: Numbers, y: Numbers) -> str | None:
    """As `missing_reason`, and `zero_pooled_variance` when all numbers of each group are equal."""
    return missing_reason(x, y) or ("zero_pooled_variance" if is_constant(x) and is_constant(y) else None)


def mean(numbers: Numbers) -> float | None:
    """Arithmetic mean; None for an empty list or one that holds a NaN."""
    return float(np.mean(numbers)) if numbers and all(map(isfinite, numbers)) else None


def interquartile_mean(numbers: Numbers, confidence: float = 0.95) -> Estimate:
    """The mean without the lowest and the highest quarter, and its interval (Tukey and McLaughlin 1963).

    Undefined below 4 numbers, where nothing is trimmed; below 10 there is no interval, as it undercovers
    (docs/statistics_simulated.md).
    """
    reason = "n<4" if len(numbers) < 4 else missing_reason(numbers)
    if reason:
        return Estimate(value=None, reason=reason)
    center = float(stats.trim_mean(numbers, 0.25))
    if len(numbers) < 10 or is_constant(numbers):
        return Estimate(value=center, reason="n<10" if len(numbers) < 10 else "zero_pooled_variance")
    low, high = stats.mstats.trimmed_mean_ci(np.asarray(numbers), limits=(0.25, 0.25), alpha=1 - confidence)
    return Estimate(value=center, low=float(low), high=float(high))


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


def transformed(estimate: Estimate, change: Callable[[float], float]) -> Estimate:
    """Transform an estimate and its interval; `change` must be increasing."""
    value, low, high = (None if n is None else change(n) for n in (estimate.value, estimate.low, estimate.high))
    return Estimate(value=value, low=low, high=high, reason=estimate.reason)
