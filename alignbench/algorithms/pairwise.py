"""Online preference optimization: makes the better of two rollouts of a prompt more probable than the worse one.

Groups and scores are those of GRPO; `pairs` selects the preference pairs and their loss (see `pairing`). With
link=linear it is REINFORCE whose advantage is how often a rollout is preferred minus how often it is not; with logistic
it is online DPO, with squared online IPO. A group without a winner has no pair; a minibatch without a pair makes no
optimizer step. The rollouts of a group stay in one microbatch.
"""

from dataclasses import dataclass, field, replace

import torch

from alignbench.algorithms.dynamic_sampling import DynamicSampling
from alignbench.algorithms.kl import FixedKL, Penalty
from alignbench.algorithms.pairing import Pairing
from alignbench.core.batches import Experience, Forward, LossOutput, PerToken, Scored
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, Positive
from alignbench.core.protocols import Algorithm
from alignbench.equations.advantages import over_tokens


@dataclass(frozen=True, kw_only=True)
class Pairwise(Algorithm):
    """Learns from preference pairs only, without critic and advantages."""

    group_size: Count = 8
    """Rollouts sampled for each prompt; at least 2."""
    pairs: Pairing = Pairing(selector="consecutive", link="linear", beta=None, length_normalised=True)
    """Selection of preference pairs, and their loss."""
    target_kl: Positive | None = None
    """Skip the remaining minibatches of a step once the KL per token to pi_old exceeds this; null is off."""
    kl: Penalty = field(default_factory=lambda: FixedKL(placement="none", coef=0.0))
    """KL penalty on the tokens of rollouts in pairs, in addition to the reference in the pairs' loss."""
    dynamic_sampling: DynamicSampling | None = None
    """Replaces prompts whose answers all have the same score by newly sampled ones; null trains on all prompts."""

    whole_groups = True

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise UserError(
                f"group_size={self.group_size}: a group of one has no siblings to compare with; use 2 or more"
            )
        if self.kl.placement == "reward":
            raise UserError(
                "kl.placement=reward would make any two rollouts a preference pair: use loss, or none with coef 0"
            )

    def credit(self, batch: Scored) -> Experience:
        number, preferred = self.pairs.preferences(batch)
        whole = batch.widen(
            Experience, advantages=torch.zeros_like(batch.old_logprobs), number=number, preferred=preferred
        )
        sure = self.pairs.matrix(whole)
        return replace(whole, advantages=over_tokens(sure.sum(1) - sure.sum(0), batch.mask))

    def token_weights(self, batch: Experience) -> PerToken:
        """1 / pairs for each token of a rollout that is part of a preference pair, [n, t]."""
        preferred = self.pairs.matrix(batch) > 0
        in_a_pair = preferred.any(1) | preferred.any(0)
        return self.pairs.share(batch) * (batch.mask & in_a_pair[:, None]).float()

    def with_weights(self, batch: Experience) -> Experience:
        return replace(super().with_weights(batch), pair_share=self.pairs.share(batch))

    def loss(self, now: Forward, batch: Experience) -> LossOutput:
        kl = batch.kl_coef * self.kl.in_loss(now, batch)
        pairs = self.pairs.loss(now, batch)
        return LossOutput(loss=pairs + batch.total(kl), tokens={"kl_penalty": kl})
