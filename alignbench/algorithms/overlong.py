"""Overlong answers: a penalty that grows towards the length limit, and masking of truncated answers."""

from dataclasses import dataclass

from alignbench.core.batches import Mask, PerRollout, Rollouts
from alignbench.core.field_types import BelowOne, Count, NonNegative


@dataclass(frozen=True, kw_only=True)
class Overlong:
    """The soft overlong punishment and the overlong filtering of DAPO.

        subtracted from the score:  penalty * clip((length - (limit - b)) / b, 0, 1)        b = buffer * limit

    Yu et al. 2025, eq. 13 and section 3.4, https://arxiv.org/abs/2503.14476. There b is a number of tokens and the
    penalty is 1.
    """

    limit: Count
    """The length limit in tokens."""
    buffer: BelowOne = 0.2
    """Last fraction of the limit, over which the penalty grows from 0 to its maximum."""
    penalty: NonNegative = 1.0
    """Penalty of an answer at the limit."""
    mask: bool = True
    """Mask truncated answers out of the loss; their scores still count in the baseline of their group."""

    def __call__(self, batch: Rollouts) -> PerRollout:
        """The penalty of each rollout, [n]."""
        span = self.buffer * self.limit
        over = batch.mask.sum(1) - (self.limit - span)
        return self.penalty * (over / span).clamp(0, 1)

    def counted(self, batch: Rollouts) -> Mask:
        """The tokens in the loss, [n, t]."""
        return batch.mask & ~batch.truncated[:, None] if self.mask else batch.mask
