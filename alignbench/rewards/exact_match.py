"""One point for the right number, none for anything else."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import torch

from alignbench.core.batches import PerRollout, Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.rewards import extract
from alignbench.rewards.source_hash import fingerprint


@dataclass(frozen=True, kw_only=True)
class ExactMatch:
    """1 when the response's number equals the row's `reference`, else 0; strict and flexible rates are both told."""

    mode: Literal["strict", "flexible"] = "strict"
    """What is trained on: the number after ####, or failing that the last number of the response."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores of 0 or 1. Raises UserError when a row has no `reference` or it is not a number."""
        told = marks(rollouts)
        return Scores(total=told[f"correct_{self.mode}"], components=told)

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before anything is trained, when a row cannot be scored."""
        require_numbers(rows)

    def content_hash(self) -> str:
        """The sha256 of the knobs, this class and the extractor."""
        return fingerprint(self, marks, extract)


def marks(rollouts: Rollouts, reward: str = "exact_match") -> dict[str, PerRollout]:
    """Which responses have the right number: `correct_strict` after ####, `correct_flexible` failing that the last."""
    golds = [_gold(row, reward) for row in rollouts.rows]
    return {
        "correct_strict": _matches([extract.strict(text) for text in rollouts.texts], golds),
        "correct_flexible": _matches([extract.flexible(text) for text in rollouts.texts], golds),
    }


def require_numbers(rows: Sequence[Row], reward: str = "exact_match") -> None:
    """Raise UserError for a row without a number to compare with."""
    for row in rows:
        _gold(row, reward)


def _matches(answers: Sequence[Decimal | None], golds: Sequence[Decimal]) -> PerRollout:
    pairs = zip(answers, golds, strict=True)
    return torch.tensor([extract.same(answer, gold) for answer, gold in pairs], dtype=torch.float32)


def _gold(row: Row, reward: str) -> Decimal:
    if "reference" not in row:
        raise UserError(
            f"reward={reward} needs the column 'reference', the right number; row {row['id']} has "
            f"{', '.join(row)}. Choose a dataset that has it, or another reward."
        )
    answer = extract.gold(row["reference"])
    if answer is None:
        raise UserError(
            f"reward={reward}: the column 'reference' of row {row['id']} is not a number: {row['reference']!r:.80}"
        )
    return answer
