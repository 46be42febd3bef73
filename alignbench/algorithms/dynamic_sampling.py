"""Dynamic sampling: drops prompts whose answers all have the same score, and samples other prompts instead."""

from dataclasses import dataclass

from torch import Tensor

from alignbench.core.batches import Scored
from alignbench.core.field_types import Count
from alignbench.equations.advantages import group_std


@dataclass(frozen=True, kw_only=True)
class DynamicSampling:
    """Selects the groups in which scores differ; DAPO: where some answers are correct and some are incorrect.

    Yu et al. 2025, eq. 11, https://arxiv.org/abs/2503.14476. Deviations: the paper samples until the step is full, here
    at most `draws` times; surplus groups are dropped in the order they were sampled.
    """

    draws: Count = 4
    """Maximum number of prompt batches sampled in a step; all of them count in the budget."""

    def __call__(self, batch: Scored) -> Tensor:
        """True for each rollout [n] whose group has different scores."""
        return group_std(batch.scores, batch.group) > 0
