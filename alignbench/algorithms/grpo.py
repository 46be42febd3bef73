"""Group relative policy optimization: the group is the critic; the KL penalty stands in the loss.

    A_i = (score_i - mean(group)) / (std(group) + eps), the same for every token of rollout i
    L   = E[-min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A) + beta KL(pi || pi_ref)]

Shao et al. 2024, eq. 3 and 4 and section 4.1.2, arXiv 2402.03300. Deviations from the paper: tokens count equally
(`reduction` token_mean; the paper's is sequence_mean), the k3 penalty keeps its value but descends the true
KL(pi || pi_ref) (`kl.exact_gradient`), a group whose scores are all equal gets exactly 0, and rho is computed from
log-ratios within +-20.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from alignbench.algorithms.kl import FixedKL, Penalty
from alignbench.algorithms.normalizer import EMA
from alignbench.core.batches import Experience, Forward, LossOutput, Mask, PerRollout, PerToken, Scored
from alignbench.core.contracts import Critic
from alignbench.core.errors import UserError
from alignbench.core.knobs import AboveOne, BelowOne, Count, NonNegative, Positive
from alignbench.equations.advantages import group_mean, over_tokens, standardised
from alignbench.equations.divergences import likelihood_ratio
from alignbench.equations.objectives import clipped, clipped_surrogate
from alignbench.equations.reductions import Reduction, refuse_idle_length, token_weights


@dataclass(frozen=True, kw_only=True)
class GRPO:
    """No critic: each rollout is judged against its siblings on the same prompt."""

    group_size: Count = 8
    """Rollouts drawn for each prompt; at least 2."""
    clip_low: BelowOne = 0.2
    """How far below 1 the ratio may push."""
    clip_high: Positive = 0.2
    """How far above 1 the ratio may push."""
    dual_clip: AboveOne | None = None
    """Bound on the loss of tokens with negative advantage, as a multiple of it; null is off."""
    scale_by_std: bool = True
    """Divide by the group's standard deviation (n - 1)."""
    eps: NonNegative = 1e-6
    """Added to that standard deviation."""
    reduction: Reduction = "token_mean"
    """How much each token counts in the loss."""
    fixed_length: Count | None = None
    """Divisor for reduction fixed_length: the response limit."""
    target_kl: Positive | None = None
    """Leave the rest of a step's minibatches once the KL per token to the sampler is above this; null is off."""
    kl: Penalty = field(default_factory=FixedKL)
    """The KL penalty."""
    normalizer: EMA | None = None
    """Brings the scores to a known scale; null trains on them as they are."""

    critic: ClassVar[Critic | None] = None

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise UserError(f"group_size={self.group_size}: one answer has nothing to be compared with; use 2 or more")
        refuse_idle_length(self.reduction, self.fixed_length)

    def credit(self, batch: Scored) -> Experience:
        scores = batch.scores - batch.kl_coef * self.kl.in_reward(batch).sum(1)
        advantages = self.baseline(scores, batch)
        return batch.widen(Experience, advantages=over_tokens(advantages, batch.mask))

    def baseline(self, scores: PerRollout, batch: Scored) -> PerRollout:
        """Each rollout's advantage over its siblings, [n]."""
        if self.scale_by_std:
            return standardised(scores, batch.group, self.eps)
        return scores - group_mean(scores, batch.group)

    def weights(self, mask: Mask) -> PerToken:
        return token_weights(mask, self.reduction, self.fixed_length)

    def loss(self, now: Forward, batch: Experience) -> LossOutput:
        ratio = likelihood_ratio(now.logprobs, batch.old_logprobs)
        policy = clipped_surrogate(ratio, batch.advantages, self.clip_low, self.clip_high, self.dual_clip)
        kl = self.kl.in_loss(now, batch)
        return LossOutput(loss=batch.total(policy + batch.kl_coef * kl), tokens={
            "policy_loss": policy,
            "kl_penalty": batch.kl_coef * kl,
            "clip_fraction": clipped(ratio, batch.advantages, self.clip_low, self.clip_high),
        })
