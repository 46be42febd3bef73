"""Length reward: 1 within a range of characters, less for shorter and longer responses."""

from dataclasses import dataclass

import torch

from alignbench.core.batches import Rollouts, Scores
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, NonNegative
from alignbench.rewards.reward import Reward


@dataclass(frozen=True, kw_only=True)
class Brevity(Reward):
    """1 from `shortest` to `longest` characters; n / shortest below, 1 - per_character * (n - longest) above."""

    shortest: Count = 100
    """Characters below which the score falls in proportion to the length."""
    longest: Count = 1000
    """Characters above which every character lowers the score."""
    per_character: NonNegative = 0.001
    """Score subtracted for each character above `longest`; the score may become negative."""

    def __post_init__(self) -> None:
        if self.longest < self.shortest:
            raise UserError(f"longest={self.longest} is less than shortest={self.shortest}: no length is in this range")

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores of at most 1."""
        total = torch.tensor([self._score_length(len(text)) for text in rollouts.texts], dtype=torch.float32)
        return Scores(total=total, components={"brevity": total})

    def _score_length(self, characters: int) -> float:
        if characters < self.shortest:
            return characters / self.shortest
        return 1 - self.per_character * max(characters - self.longest, 0)
