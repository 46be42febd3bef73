"""Studies with seeds and prompts whose truth is known: does each interval hold what it speaks of, and not more?"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis import statistics
from validation.simulations.seeds import CHECKED

CHUNK = 8_000_000
"""Numbers drawn at a time."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Two equal methods: how much answers vary with the seed, with the prompt (for each method its own), and beside."""

    name: str
    seed: float
    prompt: float
    rest: float
    right_or_wrong: bool = False


WORLDS = (
    World(name="seeds vary most", seed=0.3, prompt=0.3, rest=1.0),
    World(name="both vary", seed=0.1, prompt=1.0, rest=1.0),
    World(name="prompts vary most", seed=0.02, prompt=1.0, rest=1.0),
    World(name="right or wrong answers", seed=0.15, prompt=0.8, rest=1.0, right_or_wrong=True),
)


@dataclass(frozen=True)
class Tables:
    """Answers of both methods [repeats, seeds, prompts], and the two true differences that are drawn with them."""

    x: np.ndarray
    y: np.ndarray
    of_these_seeds: np.ndarray
    of_these_prompts: np.ndarray


def draw(world: World, repeats: int, seeds: int, prompts: int, rng: np.random.Generator) -> Tables:
    """Seeds belong to a method, prompts are shared, and prompts suit one method more than the other."""
    shared = rng.standard_normal((repeats, 1, prompts))
    tables, by_seed, by_prompt = [], [], []
    for _ in range(2):
        seed = world.seed * rng.standard_normal((repeats, seeds, 1))
        suits = world.prompt * rng.standard_normal((repeats, 1, prompts))
        table = shared + seed + suits + world.rest * rng.standard_normal((repeats, seeds, prompts))
        tables.append((table > 0).astype(float) if world.right_or_wrong else table)
        by_seed.append(seed.mean((1, 2)))
        by_prompt.append(suits.mean((1, 2)))
    return Tables(*tables, by_seed[0] - by_seed[1], by_prompt[0] - by_prompt[1])


@dataclass(frozen=True)
class Intervals:
    """Difference [repeats], and half the width of the interval for new seeds, for new prompts, and for both."""

    gap: np.ndarray
    new_seeds: np.ndarray
    new_prompts: np.ndarray
    new_both: np.ndarray


def intervals(tables: Tables) -> Intervals:
    """The three intervals by their formulas."""
    (_, seeds, prompts), both = tables.x.shape, (tables.x, tables.y)
    gaps = tables.x.mean(1) - tables.y.mean(1)
    by_seed = np.stack([table.mean(2).var(1, ddof=1) / seeds for table in both])
    by_rest = np.stack([_rest(table) / (seeds * prompts) for table in both])
    w, p, r = by_seed.sum(0), gaps.var(1, ddof=1) / prompts, by_rest.sum(0)
    w_squares = (by_seed**2).sum(0) / (seeds - 1)
    squares = w_squares + p**2 / (prompts - 1) + (by_rest**2).sum(0) / ((seeds - 1) * (prompts - 1))
    only_seeds, only_prompts = p < r, w < r
    variance = np.where(only_seeds & (w >= p), w, np.where(only_prompts & (p > w), p, w + p - r))
    squares = np.where(variance == w, w_squares, np.where(variance == p, p**2 / (prompts - 1), squares))
    return Intervals(
        gaps.mean(1),
        stats.t.ppf(0.975, w**2 / w_squares) * np.sqrt(w),
        stats.t.ppf(0.975, prompts - 1) * np.sqrt(p),
        stats.t.ppf(0.975, variance**2 / squares) * np.sqrt(variance),
    )


def _rest(table: np.ndarray) -> np.ndarray:
    left = table - table.mean(2, keepdims=True) - table.mean(1, keepdims=True) + table.mean((1, 2), keepdims=True)
    return (left**2).sum((1, 2)) / ((table.shape[1] - 1) * (table.shape[2] - 1))


def check(tables: Tables, found: Intervals) -> None:
    """The first studies once more, by the functions that the report calls."""
    for i in range(min(CHECKED, len(found.gap))):
        printed = statistics.crossed(tables.x[i], tables.y[i])
        seeds = statistics.welch(list(tables.x[i].mean(1)), list(tables.y[i].mean(1))).difference
        shown = (seeds, printed.new_prompts, printed.new_both)
        for end, half in zip(shown, (found.new_seeds, found.new_prompts, found.new_both), strict=True):
            assert end.high is not None
            assert abs(end.high - found.gap[i] - half[i]) < 1e-9 + 1e-6 * half[i], (i, end, half[i])


def coverage(world: World, repeats: int, seeds: int, prompts: int, rng: np.random.Generator) -> dict[str, float]:
    """Percent of studies in which each interval held its own truth, and those in which it held the whole truth (0)."""
    held: dict[str, list[np.ndarray]] = {}
    chunk = max(CHECKED, CHUNK // (seeds * prompts))
    for start in range(0, repeats, chunk):
        tables = draw(world, min(chunk, repeats - start), seeds, prompts, rng)
        found = intervals(tables)
        if start == 0:
            check(tables, found)
        whole = {
            "new seeds": np.abs(found.gap) <= found.new_seeds,
            "new prompts": np.abs(found.gap) <= found.new_prompts,
            "both": np.abs(found.gap) <= found.new_both,
        }
        own = {
            "these prompts": np.abs(found.gap - tables.of_these_prompts) <= found.new_seeds,
            "these seeds": np.abs(found.gap - tables.of_these_seeds) <= found.new_prompts,
        }
        for name, inside in {**whole, **({} if world.right_or_wrong else own)}.items():
            held.setdefault(name, []).append(inside)
    return {name: 100 * float(np.concatenate(parts).mean()) for name, parts in held.items()}
