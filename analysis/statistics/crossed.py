"""Crossed random factors, seeds and prompts: intervals, variance components and cluster-robust errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

from .estimate import Estimate, is_constant

Table = np.ndarray
"""One value for each seed (row) and prompt (column)."""


@dataclass(frozen=True, kw_only=True)
class VarianceBudget:
    """Variance components of a mean over seeds and prompts (negative estimates are zero), and standard deviations."""

    seeds: float
    prompts: float
    rest: float
    seed_sd: float
    prompt_sd: float
    rest_sd: float

    def error(self, times_seeds: float = 1.0, times_prompts: float = 1.0) -> float:
        """Standard error with the number of seeds and prompts multiplied by these factors."""
        return sqrt(self.seeds / times_seeds + self.prompts / times_prompts + self.rest / (times_seeds * times_prompts))

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the variance due to seeds, prompts and the residual."""
        whole = self.seeds + self.prompts + self.rest
        return self.seeds / whole, self.prompts / whole, self.rest / whole

    @property
    def larger_source(self) -> str:
        """The source whose doubling reduces the standard error more: `seeds` or `prompts`."""
        return "seeds" if self.seeds > self.prompts else "prompts"


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """A mean with two intervals: for new prompts and these seeds, and for new seeds and new prompts."""

    new_prompts: Estimate
    new_both: Estimate
    df: float | None = None
    budget: VarianceBudget | None = None


def crossed(first: Table, second: Table | None = None, confidence: float = 0.95) -> Crossed:
    """Mean of a table [seeds, prompts], or first minus second of two methods that answered the same prompts.

    Seeds and prompts are random factors; seeds are nested in a method, prompts are shared. From the mean squares:
    W = sum over methods of var(seed means) / S, P = var(prompt means of the difference) / Q, R = sum over methods of
    MS_rest / (S Q); Var = max(W, P, W + P - R), with Satterthwaite's degrees of freedom. For one table W, P and R are
    MS_S, MS_Q and MS_R over S Q of the two-way layout without replication.
    """
    tables = [first] if second is None else [first, second]
    gaps = first.mean(0) if second is None else first.mean(0) - second.mean(0)  # [prompts]
    new_prompts = clustered(gaps, np.arange(len(gaps)), confidence)
    center = new_prompts.value
    reason = _undefined_reason(tables, gaps)
    if reason or center is None:
        return Crossed(new_prompts=new_prompts, new_both=Estimate(value=center, reason=reason or new_prompts.reason))
    prompts = len(gaps)
    by_seed = [float(table.mean(1).var(ddof=1)) / len(table) for table in tables]
    by_rest = [_rest(table) / table.size for table in tables]
    w, p, r = sum(by_seed), float(gaps.var(ddof=1)) / prompts, sum(by_rest)
    w_squares = sum(part**2 / (len(table) - 1) for part, table in zip(by_seed, tables, strict=True))
    r_squares = sum(part**2 / ((len(table) - 1) * (prompts - 1)) for part, table in zip(by_rest, tables, strict=True))
    if w + p - r >= max(w, p):
        variance, squares = w + p - r, w_squares + p**2 / (prompts - 1) + r_squares
    else:
        variance, squares = (w, w_squares) if w > p else (p, p**2 / (prompts - 1))
    df = variance**2 / squares
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * sqrt(variance)
    return Crossed(
        new_prompts=new_prompts,
        new_both=Estimate(value=center, low=center - half, high=center + half),
        df=df,
        budget=_budget(tables, w, p, r),
    )


def _undefined_reason(tables: Sequence[Table], gaps: np.ndarray) -> str | None:
    if not all(np.isfinite(table).all() for table in tables):
        return "not_finite"
    if min(len(table) for table in tables) < 2:
        return "n<2"
    same = is_constant(gaps) and all(is_constant(table.mean(1)) for table in tables)
    return "zero_pooled_variance" if same else None


def _rest(table: Table) -> float:
    """Residual mean square MS_R of the two-way layout, after the row and column means."""
    left = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    seeds, prompts = table.shape
    return float((left**2).sum() / ((seeds - 1) * (prompts - 1)))


def _budget(tables: Sequence[Table], w: float, p: float, r: float) -> VarianceBudget:
    prompts = tables[0].shape[1]
    seeds, shared = max(0.0, w - r), max(0.0, p - r)
    per_seed = sum(1 / len(table) for table in tables)
    return VarianceBudget(
        seeds=seeds,
        prompts=shared,
        rest=r,
        seed_sd=sqrt(seeds / per_seed),
        prompt_sd=sqrt(shared * prompts),
        rest_sd=sqrt(r * prompts / per_seed),
    )


def clustered(
    values: Sequence[float] | np.ndarray, clusters: Sequence | np.ndarray, confidence: float = 0.95
) -> Estimate:
    """Mean of clustered values [n] with a cluster-robust t-interval, C - 1 degrees of freedom.

    SE^2 = C / (C - 1) (1 / n^2) sum over clusters of (sum of v - mean v)^2 (Miller 2024, arXiv 2411.00640; C clusters).
    """
    x = np.asarray(values, float)
    if not len(x) or not np.isfinite(x).all():
        return Estimate(value=None, reason="not_finite" if len(x) else "n<2")
    names, places = np.unique(np.asarray(clusters), return_inverse=True)
    center = float(x.mean())
    if len(names) < 2:
        return Estimate(value=center, reason="n<2")
    sums = np.bincount(places, weights=x - center)
    if is_constant(x) or not sums.any():
        return Estimate(value=center, reason="zero_pooled_variance")
    error = sqrt(len(names) / (len(names) - 1) * float((sums**2).sum())) / len(x)
    half = float(stats.t.ppf((1 + confidence) / 2, len(names) - 1)) * error
    return Estimate(value=center, low=center - half, high=center + half)
