"""CISPO: the importance weight is clipped instead of the update, so that every token keeps its gradient.

    L = E[-sg(clip(rho, weight_low, weight_high)) A log pi],  A as in GRPO; sg: no gradient through it

MiniMax 2025, eq. 4 and 5, https://arxiv.org/abs/2506.13585. There the bounds are 1 - eps_low and 1 + eps_high, here
they are the weights themselves; the paper sets no lower one (0) and tunes the upper one. Deviations: a group whose
scores are all equal gets exactly 0, and log-ratios are kept within +-20. Within the bounds its gradient is that of GRPO
without clipping.
"""

from dataclasses import dataclass

from alignbench.algorithms.grpo import GroupRelative
from alignbench.algorithms.kl import FixedKL, Penalty
from alignbench.core.batches import Experience, Forward, Mask, PerToken
from alignbench.core.errors import UserError
from alignbench.core.field_types import NonNegative, Positive
from alignbench.equations.divergences import likelihood_ratio
from alignbench.equations.objectives import weighted_logprob


@dataclass(frozen=True, kw_only=True)
class CISPO(GroupRelative):
    """REINFORCE with a group baseline; each token is weighted by a bounded ratio."""

    kl: Penalty = FixedKL(coef=0.0)
    """KL penalty; off, as in the paper."""
    weight_low: NonNegative = 0.0
    """Lower bound of a token's weight: a ratio, not a distance from 1; 0 sets no bound."""
    weight_high: Positive = 5.0
    """Upper bound of a token's weight: a ratio, not a distance from 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weight_low <= 1 <= self.weight_high:
            raise UserError(
                f"weight_low={self.weight_low:g}, weight_high={self.weight_high:g}: these bound the ratio, so 1 "
                "must lie between them"
            )

    def surrogate(self, now: Forward, batch: Experience) -> tuple[PerToken, Mask]:
        ratio = likelihood_ratio(now.logprobs, batch.old_logprobs)
        bounded = ratio.clamp(self.weight_low, self.weight_high)
        return weighted_logprob(now.logprobs, bounded, batch.advantages), ratio != bounded
