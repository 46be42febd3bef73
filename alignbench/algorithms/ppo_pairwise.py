"""PPO with preference pairs: the loss of PPO plus the loss of the preference pairs of each group.

    L = L_PPO + pairs_weight L_pairs

A sum of two losses on the same rollouts (see `ppo` and `pairing`); it is PPO where pairs_weight is 0. Not from a paper.
A group without a winner
has the loss of PPO only.
"""

from dataclasses import dataclass, field, replace

from alignbench.algorithms.pairing import Pairing
from alignbench.algorithms.ppo import PPO
from alignbench.core.batches import Experience, Forward, LossOutput, Scored
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, NonNegative


@dataclass(frozen=True, kw_only=True)
class PPOPairwise(PPO):
    """The critic gives advantages of tokens; preference pairs compare whole answers."""

    group_size: Count = 8
    """Rollouts sampled for each prompt; at least 2."""
    pairs: Pairing = field(default_factory=Pairing)
    """Selection of preference pairs, and their loss."""
    pairs_weight: NonNegative = 0.1
    """Weight of the loss of preference pairs."""

    whole_groups = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2:
            raise UserError(
                f"group_size={self.group_size}: a group of one has no siblings to compare with; use 2 or more"
            )

    def credit(self, batch: Scored) -> Experience:
        number, preferred = self.pairs.preferences(batch)
        return replace(super().credit(batch), number=number, preferred=preferred)

    def with_weights(self, batch: Experience) -> Experience:
        return replace(super().with_weights(batch), pair_share=self.pairs.share(batch))

    def loss(self, now: Forward, batch: Experience) -> LossOutput:
        ppo = super().loss(now, batch)
        return replace(ppo, loss=ppo.loss + self.pairs_weight * self.pairs.loss(now, batch))
