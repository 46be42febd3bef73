"""A judge whose taste is known: quality gap, position bias, verbosity bias, noise; so that estimates can be checked."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

from analysis.judge.tally import Trials


@dataclass(frozen=True, kw_only=True)
class Taste:
    """What a simulated judge goes by. It prefers the answer shown first where

    u = gap + position + verbosity * longer + noise * z  is above `tie`, the other where u is below -tie.

    `gap`: quality of the first answer minus that of the second; `longer`: how much longer it is; z is standard normal.
    """

    position: float = 0.0
    verbosity: float = 0.0
    noise: float = 1.0
    tie: float = 0.0

    def verdict(self, gap: np.ndarray, longer: np.ndarray, z: np.ndarray) -> np.ndarray:
        """1 for the answer shown first, -1 for the other, 0 for a tie."""
        u = gap + self.position + self.verbosity * longer + self.noise * z
        return (np.sign(u) * (np.abs(u) > self.tie)).astype(np.int8)

    def true_share(self, gap: float, spread: float) -> float:
        """What the treatment's share would be without any bias: gaps are normal with this mean and spread."""
        whole = sqrt(spread**2 + self.noise**2)
        above, below = stats.norm.cdf((gap - self.tie) / whole), stats.norm.cdf((-gap - self.tie) / whole)
        return float(above + (1 - above - below) / 2)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Two methods as the judge meets them: how much better and longer the treatment is, and how much that varies."""

    gap: float = 0.0
    prompts: int = 200
    seeds: int = 3
    spread_prompts: float = 0.7
    spread_seeds: float = 0.7
    longer: float = 0.0
    spread_length: float = 1.0

    @property
    def spread(self) -> float:
        """Standard deviation of the gap of a pair."""
        return sqrt(self.spread_prompts**2 + self.spread_seeds**2)


def simulate(contest: Contest, taste: Taste, rng: np.random.Generator) -> Trials:
    """All trials of a contest [prompts * seeds], both orders, without any network."""
    rows = contest.prompts * contest.seeds
    prompts = np.repeat(np.arange(contest.prompts), contest.seeds)
    gap = (
        contest.gap
        + contest.spread_prompts * rng.standard_normal(contest.prompts)[prompts]
        + contest.spread_seeds * rng.standard_normal(rows)
    )
    longer = contest.longer + contest.spread_length * rng.standard_normal(rows)
    first = taste.verdict(gap, longer, rng.standard_normal(rows))
    second = -taste.verdict(-gap, -longer, rng.standard_normal(rows))
    baseline = np.full(rows, 1000.0)
    return Trials(
        treatment="grpo",
        baseline="ppo",
        results=np.column_stack([first, second]),
        prompts=prompts,
        lengths=np.column_stack([baseline + 100 * longer, baseline]),
        identical=np.zeros(rows, dtype=bool),
        truncated=np.zeros(rows, dtype=bool),
    )
