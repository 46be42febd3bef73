"""Beta normalization policy optimization: scores normalized by a Beta distribution fitted to the pass rates of a step.

    A_i = (R_i - p) / f(p; alpha, beta),  p = mean(group),  f the density of a Beta distribution
    alpha = max(1 + a/3, 1),  beta = max(1 + b/3, 1),  Beta(a, b) fitted to the p of all groups of the step by moments

Xiao et al. 2025, https://arxiv.org/abs/2506.02864; the bounds of 1 are those of the code published with it. Deviations:
where all groups have the same p, f is 1; f is at least 1e-6; and tokens are averaged over the whole minibatch, by one
count, however it is split. With alpha = beta = 3/2 it is GRPO (ddof 0) times pi / 8, with 1 it is GRPO without a
deviation.
"""

from dataclasses import dataclass

import torch

from alignbench.algorithms.critic_free import Clipped
from alignbench.core.batches import PerRollout, Scored
from alignbench.core.errors import UserError
from alignbench.equations.advantages import beta_divided


@dataclass(frozen=True, kw_only=True)
class BNPO(Clipped):
    """The mean of the group as baseline, and a scale that adapts to the distribution of prompt difficulty."""

    low: float = 0.0
    """Minimum score of the reward."""
    high: float = 1.0
    """Maximum score of the reward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise UserError(f"low={self.low:g} is not below high={self.high:g}: set them to the range of the scores")

    def baseline(self, scores: PerRollout, batch: Scored) -> PerRollout:
        shares = (scores - self.low) / (self.high - self.low)
        if bool((shares < -1e-6).any()) or bool((shares > 1 + 1e-6).any()):
            raise UserError(
                f"a score is {float(scores.min()):g} and another {float(scores.max()):g}, outside "
                f"algo.low={self.low:g} and algo.high={self.high:g}: set them to the range of the scores"
            )
        return beta_divided(shares, batch.group, *fitted(shares, batch))


def fitted(shares: PerRollout, batch: Scored) -> tuple[float, float]:
    """alpha and beta of a step; 1 and 1 if all groups have the same pass rate."""
    names, of = torch.unique(batch.group, return_inverse=True)
    p = torch.zeros(len(names), dtype=torch.float64, device=of.device).index_add(0, of, shares.double())
    p = (p / of.bincount()).clamp(0, 1)
    spread = float(p.var()) if len(p) > 1 else 0.0
    if spread <= 1e-12:
        return 1.0, 1.0
    mean = float(p.mean())
    size = mean * (1 - mean) / spread - 1
    return max(1 + size * mean / 3, 1.0), max(1 + size * (1 - mean) / 3, 1.0)
