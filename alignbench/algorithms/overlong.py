"""Answers near the length limit: a penalty that grows towards it, and whether cut answers are learned from."""

from dataclasses import dataclass

from alignbench.core.batches import Mask, PerRollout, Rollouts
from alignbench.core.field_types import BelowOne, Count, NonNegative


@dataclass(frozen=True, kw_only=True)
class Overlong:
    """The soft overlong punishment and the overlong filtering of DAPO.

        taken off the score:  penalty * clip((length - (limit - b)) / b, 0, 1)        b = buffer * limit

    Yu et al. 2025, eq. 13 and section 3.4, https://arxiv.org/abs/2503.14476. There b is a number of tokens and the
    penalty is 1.
    """

    limit: Count
    """The length at which an answer is cut."""
    buffer: BelowOne = 0.2
    """The last share of the limit, over which the penalty grows from nothing to all of it."""
    penalty: NonNegative = 1.0
    """What an answer as long as the limit loses."""
    mask: bool = True
    """Leave the tokens of answers that were cut out of the loss; their scores still count for their siblings."""

    def __call__(self, batch: Rollouts) -> PerRollout:
        """What to take off each score, [n]."""
        span = self.buffer * self.limit
        over = batch.mask.sum(1) - (self.limit - span)
        return self.penalty * (over / span).clamp(0, 1)

    def counted(self, batch: Rollouts) -> Mask:
        """The tokens that are learned from, [n, t]."""
        return batch.mask & ~batch.truncated[:, None] if self.mask else batch.mask
