"""One point for a response of the wanted length, less for a shorter or longer one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alignbench.core.batches import Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, NonNegative
from alignbench.rewards.source_hash import fingerprint


@dataclass(frozen=True, kw_only=True)
class Brevity:
    """1 from `shortest` to `longest` characters; n / shortest below, 1 - per_character * (n - longest) above."""

    shortest: Count = 100
    """Characters below which points are lost in proportion."""
    longest: Count = 1000
    """Characters above which each costs points."""
    per_character: NonNegative = 0.001
    """What each character too many costs; nothing stops the score at 0."""

    def __post_init__(self) -> None:
        if self.longest < self.shortest:
            raise UserError(f"longest={self.longest} is less than shortest={self.shortest}: no length would be wanted")

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores, 1 at best."""
        total = torch.tensor([self._score(len(text)) for text in rollouts.texts], dtype=torch.float32)
        return Scores(total=total, components={"brevity": total})

    def check(self, rows: Sequence[Row]) -> None:
        """Nothing: any row can be scored."""

    def content_hash(self) -> str:
        """The sha256 of the knobs and of this file."""
        return fingerprint(self, sys.modules[__name__])

    def _score(self, characters: int) -> float:
        if characters < self.shortest:
            return characters / self.shortest
        return 1 - self.per_character * max(characters - self.longest, 0)
