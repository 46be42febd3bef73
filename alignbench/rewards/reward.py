"""Base class of a reward: defaults for all that a scorer must have except the score itself."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence

from alignbench.core.batches import Rollouts, Row, Scores
from alignbench.rewards.source_hash import source_hash


class Reward(ABC):
    """A scorer of rollouts. A subclass is a frozen dataclass, whose fields are its settings, and defines `__call__`."""

    @abstractmethod
    def __call__(self, rollouts: Rollouts) -> Scores:
        """The score of each rollout, [n] fp32, and its named parts. Raises UserError when a row lacks a column."""

    def check(self, rows: Sequence[Row]) -> None:  # noqa: B027  a default, not a forgotten method
        """Raise UserError, before training starts, when a row cannot be scored. Default: every row can be scored."""

    def content_hash(self) -> str:
        """The sha256 of the settings and of the module that defines the class."""
        return source_hash(self, sys.modules[type(self).__module__])
