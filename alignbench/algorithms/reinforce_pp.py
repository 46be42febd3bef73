"""REINFORCE++: reward-to-go of each token, normalized over the whole batch; no critic and no group.

    r_t = 1[t = last] score - beta log(pi_old / pi_ref)
    A_t = sum_{i >= t} r_i,  then (A - mean) / std over all tokens of the batch
    L   = E[-min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A)]

Hu et al. 2025, https://arxiv.org/abs/2501.03262. With `group_baseline` the group's mean is first subtracted
from the scores: the paper's variant with a baseline, whose KL is in the loss as k2. Deviation: A is 0 where the
batch has no spread. It is PPO with gamma = lambda = 1 and a critic that always predicts 0.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from alignbench.algorithms.critic_free import Clipped
from alignbench.algorithms.kl import FixedKL, Penalty
from alignbench.core.batches import Experience, PerRollout, Scored
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count
from alignbench.equations.advantages import at_last_token, group_mean, to_go, whiten


@dataclass(frozen=True, kw_only=True)
class ReinforcePP(Clipped):
    """The advantage of a token is its reward-to-go, normalized over all tokens of the batch."""

    group_size: Count = 1
    """Rollouts sampled for each prompt."""
    group_baseline: bool = False
    """Subtract the group's mean from the scores first."""
    kl: Penalty = field(default_factory=lambda: FixedKL(placement="reward", estimator="k1"))
    """The KL penalty."""

    least_group: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_baseline and self.group_size < 2:
            raise UserError(f"group_baseline=true with group_size={self.group_size}: use 2 or more, or set it to false")

    def credit(self, batch: Scored) -> Experience:
        scores = self.baseline(self.penalised(batch), batch)
        rewards = at_last_token(scores, batch.mask) - batch.kl_coef * self.kl.in_reward(batch)
        return batch.widen(Experience, advantages=whiten(to_go(rewards, batch.mask), batch.mask, ddof=0))

    def baseline(self, scores: PerRollout, batch: Scored) -> PerRollout:
        return scores - group_mean(scores, batch.group) if self.group_baseline else scores
