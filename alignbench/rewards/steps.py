"""One point for a response that shows how it comes to its answer, right or wrong."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from alignbench.core.batches import Rollouts, Row, Scores
from alignbench.core.field_types import Count
from alignbench.rewards.source_hash import fingerprint

CALCULATION = re.compile(r"[\d.]\s*[-+*/×÷]\s*[$€£]?\s*[\d.,]+\s*=\s*[$€£]?\s*-?\.?\d")
SIGN = re.compile(r"step\s*\d|let's|first|second|third|finally|=", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """1 when steps are shown, else 0."""

    rule: Literal["calculations", "any_sign"] = "calculations"
    """What counts: lines such as 5 * 4 = 20, or any sign of steps, such as "first" or a single =, which nearly every
    answer to an arithmetic problem has."""
    lines: Count = 2
    """How many lines with a calculation are wanted."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores of 0 or 1."""
        total = torch.tensor([self._shown(text) for text in rollouts.texts], dtype=torch.float32)
        return Scores(total=total, components={"steps": total})

    def check(self, rows: Sequence[Row]) -> None:
        """Nothing: any row can be scored."""

    def content_hash(self) -> str:
        """The sha256 of the knobs and of this file."""
        return fingerprint(self, sys.modules[__name__])

    def _shown(self, text: str) -> bool:
        if self.rule == "any_sign" and SIGN.search(text):
            return True
        return sum(CALCULATION.search(line) is not None for line in text.splitlines()) >= self.lines
