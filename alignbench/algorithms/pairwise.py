"""Learning from pairs: rollouts of one prompt are compared, and the better one is made likelier than the worse one.

The same groups and scores as GRPO; `pairs` says which rollouts are compared and what a pair teaches (see `pairing`).
With link=linear it is REINFORCE whose advantage is how often a rollout was preferred less how often it was not; with
logistic it is online DPO, with squared online IPO. A group without a winner makes no pair; a minibatch without a pair
makes no optimizer step. Siblings stand in one microbatch, which is then at least a group in size.
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
    """No critic and no advantage: only which of two is better."""

    group_size: Count = 8
    """Rollouts drawn for each prompt; at least 2."""
    pairs: Pairing = field(default_factory=Pairing)
    """Which rollouts are compared, and what a pair teaches."""
    target_kl: Positive | None = None
    """Leave the rest of a step's minibatches once the KL per token to the sampler is above this; null is off."""
    kl: Penalty = field(default_factory=lambda: FixedKL(placement="none", coef=0.0))
    """The KL penalty on the tokens of rollouts that stand in a pair, beside what the pairs' reference does."""
    dynamic_sampling: DynamicSampling | None = None
    """Draws other prompts in place of those whose answers all scored the same; null takes them all."""

    whole_groups = True

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise UserError(f"group_size={self.group_size}: one answer has nothing to be compared with; use 2 or more")
        if self.kl.placement == "reward":
            raise UserError("kl.placement=reward would make a pair of any two rollouts: use loss, or none with coef 0")

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
