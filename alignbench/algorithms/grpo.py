"""Group relative policy optimization: the mean of the group replaces the critic; the KL penalty is in the loss.

    A_i = (score_i - mean(group)) / (std(group) + eps), the same for every token of rollout i
    L   = E[-min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A) + beta KL(pi || pi_ref)]

Shao et al. 2024, eq. 3 and 4 and section 4.1.2, arXiv 2402.03300. Deviations from the paper: tokens count equally
(`reduction` token_mean; the paper's is sequence_mean), the k3 penalty keeps its value but descends the true
KL(pi || pi_ref) (`kl.exact_gradient`), a group whose scores are all equal gets exactly 0, and rho is computed from
log-ratios within +-20.
"""

from dataclasses import dataclass
from typing import Literal

from alignbench.algorithms.critic_free import Clipped, CriticFree
from alignbench.core.batches import PerRollout, Scored
from alignbench.core.field_types import NonNegative
from alignbench.equations.advantages import batch_std, divided, group_mean, group_std


@dataclass(frozen=True, kw_only=True)
class GroupRelative(CriticFree):
    """The advantage of a rollout is relative to its siblings, the rollouts of the same prompt."""

    scale_by_std: bool = True
    """Divide by a standard deviation (n - 1)."""
    std_over: Literal["group", "batch"] = "group"
    """The standard deviation over the scores of the group, or over all scores of the step."""
    eps: NonNegative = 1e-6
    """Added to that standard deviation."""
    whiten_advantages: bool = False
    """Also divide by the standard deviation (n - 1) of all advantages of the step; their mean is already 0."""

    def baseline(self, scores: PerRollout, batch: Scored) -> PerRollout:
        advantages = scores - group_mean(scores, batch.group)
        if self.scale_by_std:
            spread = group_std(scores, batch.group) if self.std_over == "group" else batch_std(scores)
            advantages = divided(advantages, spread, self.eps)
        return divided(advantages, batch_std(advantages), self.eps) if self.whiten_advantages else advantages


@dataclass(frozen=True, kw_only=True)
class GRPO(GroupRelative, Clipped):
    """No critic: the group's z-score as the advantage of each token, in PPO's surrogate."""
