"""A simulated judge with known position bias, verbosity bias and noise, and comparisons in front of it."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

from analysis.judge.tally import Trials


@dataclass(frozen=True, kw_only=True)
class JudgeModel:
    """The decision rule of a simulated judge. It prefers the answer shown first where

    u = gap + position + verbosity * longer + noise * z  is above `tie`, and the other where u is below -tie.

    `gap`: quality of the first answer minus that of the second; `longer`: how much longer it is; z is standard normal.
    """

    position: float = 0.0
    verbosity: float = 0.0
    noise: float = 1.0
    tie: float = 0.0

    def verdict(self, gap: np.ndarray, longer: np.ndarray, z: np.ndarray) -> np.ndarray:
        """1 where the judge prefers the answer shown first, -1 where the other, 0 for a tie; shape of the inputs."""
        u = gap + self.position + self.verbosity * longer + self.noise * z
        return (np.sign(u) * (np.abs(u) > self.tie)).astype(np.int8)

    def true_share(self, gap: float, spread: float) -> float:
        """The treatment's share for an unbiased judge; gaps are normal with this mean and standard deviation."""
        sd = sqrt(spread**2 + self.noise**2)
        above, below = stats.norm.cdf((gap - self.tie) / sd), stats.norm.cdf((-gap - self.tie) / sd)
        return float(above + (1 - above - below) / 2)


@dataclass(frozen=True, kw_only=True)
class MethodPair:
    """Two methods: how much better and longer the answers of the treatment are, and how much that varies."""

    gap: float = 0.0
    prompts: int = 200
    seeds: int = 3
    spread_prompts: float = 0.7
    spread_seeds: float = 0.7
    longer: float = 0.0
    spread_length: float = 1.0

    @property
    def spread(self) -> float:
        """Standard deviation of the gap between two answers."""
        return sqrt(self.spread_prompts**2 + self.spread_seeds**2)


def simulate(methods: MethodPair, judge: JudgeModel, rng: np.random.Generator) -> Trials:
    """Simulate all trials [prompts * seeds] in both orders."""
    rows = methods.prompts * methods.seeds
    prompts = np.repeat(np.arange(methods.prompts), methods.seeds)
    gap = (
        methods.gap
        + methods.spread_prompts * rng.standard_normal(methods.prompts)[prompts]
        + methods.spread_seeds * rng.standard_normal(rows)
    )
    longer = methods.longer + methods.spread_length * rng.standard_normal(rows)
    first = judge.verdict(gap, longer, rng.standard_normal(rows))
    second = -judge.verdict(-gap, -longer, rng.standard_normal(rows))
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
