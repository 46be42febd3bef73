"""Reward 1 for a response that shows its calculation steps, whether the answer is correct or not."""

import re
from dataclasses import dataclass
from typing import Literal

import torch

from alignbench.core.batches import Rollouts, Scores
from alignbench.core.field_types import Count
from alignbench.rewards.reward import Reward

CALCULATION = re.compile(r"[\d.]\s*[-+*/×÷]\s*[$€£]?\s*[\d.,]+\s*=\s*[$€£]?\s*-?\.?\d")
SIGN = re.compile(r"step\s*\d|let's|first|second|third|finally|=", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Steps(Reward):
    """1 when the response shows steps, else 0."""

    rule: Literal["calculations", "any_sign"] = "calculations"
    """What counts as a step: a line with a calculation such as 5 * 4 = 20; any_sign: a word such as "first" or a single
    =, which nearly every answer to an arithmetic problem contains."""
    lines: Count = 2
    """Lines with a calculation that a response needs (rule=calculations)."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores of 0 or 1."""
        total = torch.tensor([self._shows_steps(text) for text in rollouts.texts], dtype=torch.float32)
        return Scores(total=total, components={"steps": total})

    def _shows_steps(self, text: str) -> bool:
        if self.rule == "any_sign" and SIGN.search(text):
            return True
        return sum(CALCULATION.search(line) is not None for line in text.splitlines()) >= self.lines
