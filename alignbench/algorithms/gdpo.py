"""GDPO: the components of the reward are normalized before they are added, so that none dominates.

    A_i = sum_k w_k z(part_k)_i,  z the group's z-score;  then (A - mean) / (std + eps) over the batch

Liu et al. 2026, https://arxiv.org/abs/2601.05242. Deviations: a part whose scores are all equal in a group gives
exactly 0, and the KL and length penalties are one more part, of weight 1. With one part it is GRPO on the
scale of the batch.
"""

from dataclasses import dataclass

import torch

from alignbench.algorithms.critic_free import Clipped
from alignbench.core.batches import PerRollout, Scored
from alignbench.core.errors import UserError
from alignbench.core.field_types import NonNegative
from alignbench.equations.advantages import batch_std, divided, standardised


@dataclass(frozen=True, kw_only=True)
class GDPO(Clipped):
    """GRPO's group normalization, applied to each component of the reward."""

    part_weights: dict[str, float] | None = None
    """Weight of each named component of the reward, 0 for the others; null weights all equally."""
    eps: NonNegative = 1e-6
    """Added to each standard deviation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalizer is not None:
            raise UserError("normalizer has no effect, since each component is normalized by its group: set it to null")

    def baseline(self, scores: PerRollout, batch: Scored) -> PerRollout:
        parts = self.parts(batch)
        penalties = scores - batch.scores
        if bool(penalties.any()):
            parts = [*parts, (1.0, penalties)]
        total = torch.zeros_like(scores)
        for weight, part in parts:
            total = total + weight * standardised(part.to(scores), batch.group, self.eps)
        return divided(total - total.mean(), batch_std(total), self.eps)

    def parts(self, batch: Scored) -> list[tuple[float, PerRollout]]:
        """Weight and scores [n] of each component; the total score if the reward has none."""
        known = batch.components or {"score": batch.scores}
        weights = dict.fromkeys(known, 1.0) if self.part_weights is None else self.part_weights
        for name in weights:
            if name not in known:
                raise UserError(
                    f"algo.part_weights names {name}, but the components of this reward are {', '.join(known)}"
                )
        return [(weight, known[name]) for name, weight in weights.items()]
