"""Reward 1 for the correct number, 0 for any other response."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import torch

from alignbench.core.batches import PerRollout, Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.rewards import extract
from alignbench.rewards.source_hash import source_hash


@dataclass(frozen=True, kw_only=True)
class ExactMatch:
    """1 when the response's number equals the row's `reference`, else 0. Logs both modes as components."""

    mode: Literal["strict", "flexible"] = "strict"
    """The number that the score uses: the one after ####; flexible: without one, the last number of the response."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores of 0 or 1. Raises UserError when a row has no `reference` or it is not a number."""
        correct = compute_correctness(rollouts)
        return Scores(total=correct[f"correct_{self.mode}"], components=correct)

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before training starts, when a row cannot be scored."""
        check_references(rows)

    def content_hash(self) -> str:
        """The sha256 of the settings, this class and the number extractor."""
        return source_hash(self, compute_correctness, extract)


def compute_correctness(rollouts: Rollouts, reward: str = "exact_match") -> dict[str, PerRollout]:
    """1 or 0 for each response, [n]: `correct_strict` by `extract.strict`, `correct_flexible` by `extract.flexible`."""
    golds = [_gold_number(row, reward) for row in rollouts.rows]
    return {
        "correct_strict": _matches([extract.strict(text) for text in rollouts.texts], golds),
        "correct_flexible": _matches([extract.flexible(text) for text in rollouts.texts], golds),
    }


def check_references(rows: Sequence[Row], reward: str = "exact_match") -> None:
    """Raise UserError for a row whose `reference` is missing or not a number."""
    for row in rows:
        _gold_number(row, reward)


def _matches(answers: Sequence[Decimal | None], golds: Sequence[Decimal]) -> PerRollout:
    equal = [extract.same(answer, gold) for answer, gold in zip(answers, golds, strict=True)]
    return torch.tensor(equal, dtype=torch.float32)


def _gold_number(row: Row, reward: str) -> Decimal:
    if "reference" not in row:
        raise UserError(
            f"reward={reward} needs the column 'reference', the correct number; row {row['id']} has the "
            f"columns {', '.join(row)}. Choose a dataset that has it, or another reward."
        )
    answer = extract.gold(row["reference"])
    if answer is None:
        raise UserError(
            f"reward={reward}: the column 'reference' of row {row['id']} is not a number: {row['reference']!r:.80}"
        )
    return answer
