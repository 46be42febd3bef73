"""Prompts whose answers all scored the same teach nothing: leave them out, and draw others in their place."""

from dataclasses import dataclass

from torch import Tensor

from alignbench.core.batches import Scored
from alignbench.core.field_types import Count
from alignbench.equations.advantages import group_std


@dataclass(frozen=True, kw_only=True)
class DynamicSampling:
    """Keeps the groups in which scores differ, as DAPO does where some answers are right and some are wrong.

    Yu et al. 2025, eq. 11, https://arxiv.org/abs/2503.14476. Deviations: the paper draws until the step is full, here
    `draws` ends it; groups beyond the step's number are left out in the order they were drawn.
    """

    draws: Count = 4
    """The most times that a step's prompts are drawn; all of them are counted in the budget."""

    def __call__(self, batch: Scored) -> Tensor:
        """True for each rollout [n] whose group has something to compare."""
        return group_std(batch.scores, batch.group) > 0
