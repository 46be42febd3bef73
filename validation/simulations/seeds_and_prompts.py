"""Coverage of the intervals for new seeds, new prompts and both, in simulated studies with known truth."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis import statistics
from validation.simulations.seeds import CHECKED

CHUNK = 8_000_000
"""Numbers sampled at a time."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two equal methods: standard deviations of the effects of seeds and of prompts (one per method), and residual."""

    name: str
    seed: float
    prompt: float
    residual: float
    binary: bool = False
    """Whether an answer is correct (1) or incorrect (0)."""


CASES = (
    Case(name="seeds vary most", seed=0.3, prompt=0.3, residual=1.0),
    Case(name="both vary", seed=0.1, prompt=1.0, residual=1.0),
    Case(name="prompts vary most", seed=0.02, prompt=1.0, residual=1.0),
    Case(name="correct or incorrect answers", seed=0.15, prompt=0.8, residual=1.0, binary=True),
)


@dataclass(frozen=True)
class Samples:
    """Scores of both methods [repeats, seeds, prompts], and the true differences [repeats]."""

    x: np.ndarray
    y: np.ndarray
    difference_of_seeds: np.ndarray
    difference_of_prompts: np.ndarray


def sample(case: Case, repeats: int, seeds: int, prompts: int, rng: np.random.Generator) -> Samples:
    """Sample studies: each method has its own seeds, both share the prompts, and each has its own prompt effects."""
    shared = rng.standard_normal((repeats, 1, prompts))
    tables, by_seed, by_prompt = [], [], []
    for _ in range(2):
        seed = case.seed * rng.standard_normal((repeats, seeds, 1))
        own = case.prompt * rng.standard_normal((repeats, 1, prompts))
        table = shared + seed + own + case.residual * rng.standard_normal((repeats, seeds, prompts))
        tables.append((table > 0).astype(float) if case.binary else table)
        by_seed.append(seed.mean((1, 2)))
        by_prompt.append(own.mean((1, 2)))
    return Samples(tables[0], tables[1], by_seed[0] - by_seed[1], by_prompt[0] - by_prompt[1])


@dataclass(frozen=True)
class Intervals:
    """Difference [repeats], and half-widths [repeats] of the intervals for new seeds, for new prompts, and for both."""

    gap: np.ndarray
    new_seeds: np.ndarray
    new_prompts: np.ndarray
    new_both: np.ndarray


def intervals(samples: Samples) -> Intervals:
    """The three intervals, vectorized over studies."""
    (_, seeds, prompts), both = samples.x.shape, (samples.x, samples.y)
    gaps = samples.x.mean(1) - samples.y.mean(1)
    by_seed = np.stack([table.mean(2).var(1, ddof=1) / seeds for table in both])
    by_residual = np.stack([_residual(table) / (seeds * prompts) for table in both])
    w, p, r = by_seed.sum(0), gaps.var(1, ddof=1) / prompts, by_residual.sum(0)
    w_squares = (by_seed**2).sum(0) / (seeds - 1)
    squares = w_squares + p**2 / (prompts - 1) + (by_residual**2).sum(0) / ((seeds - 1) * (prompts - 1))
    only_seeds, only_prompts = p < r, w < r
    variance = np.where(only_seeds & (w >= p), w, np.where(only_prompts & (p > w), p, w + p - r))
    squares = np.where(variance == w, w_squares, np.where(variance == p, p**2 / (prompts - 1), squares))
    return Intervals(
        gaps.mean(1),
        stats.t.ppf(0.975, w**2 / w_squares) * np.sqrt(w),
        stats.t.ppf(0.975, prompts - 1) * np.sqrt(p),
        stats.t.ppf(0.975, variance**2 / squares) * np.sqrt(variance),
    )


def _residual(table: np.ndarray) -> np.ndarray:
    residual = table - table.mean(2, keepdims=True) - table.mean(1, keepdims=True) + table.mean((1, 2), keepdims=True)
    return (residual**2).sum((1, 2)) / ((table.shape[1] - 1) * (table.shape[2] - 1))


def check(samples: Samples, result: Intervals) -> None:
    """Compare the first studies with the functions that the report calls. Raises AssertionError if they differ."""
    for i in range(min(CHECKED, len(result.gap))):
        reported = statistics.crossed(samples.x[i], samples.y[i])
        seeds = statistics.welch(list(samples.x[i].mean(1)), list(samples.y[i].mean(1))).difference
        estimates = (seeds, reported.new_prompts, reported.new_both)
        for end, half in zip(estimates, (result.new_seeds, result.new_prompts, result.new_both), strict=True):
            assert end.high is not None
            assert abs(end.high - result.gap[i] - half[i]) < 1e-9 + 1e-6 * half[i], (i, end, half[i])


def coverage(case: Case, repeats: int, seeds: int, prompts: int, rng: np.random.Generator) -> dict[str, float]:
    """Percent of studies in which each interval covers its own truth, and in which it covers the overall truth (0)."""
    covered: dict[str, list[np.ndarray]] = {}
    chunk = max(CHECKED, CHUNK // (seeds * prompts))
    for start in range(0, repeats, chunk):
        samples = sample(case, min(chunk, repeats - start), seeds, prompts, rng)
        result = intervals(samples)
        if start == 0:
            check(samples, result)
        overall = {
            "new seeds": np.abs(result.gap) <= result.new_seeds,
            "new prompts": np.abs(result.gap) <= result.new_prompts,
            "both": np.abs(result.gap) <= result.new_both,
        }
        own = {
            "these prompts": np.abs(result.gap - samples.difference_of_prompts) <= result.new_seeds,
            "these seeds": np.abs(result.gap - samples.difference_of_seeds) <= result.new_prompts,
        }
        for name, inside in {**overall, **({} if case.binary else own)}.items():
            covered.setdefault(name, []).append(inside)
    return {name: 100 * float(np.concatenate(parts).mean()) for name, parts in covered.items()}
