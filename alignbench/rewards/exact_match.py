"""One point for the right number, none for anything else."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import torch

from alignbench.core.batches import Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.rewards import extract
from alignbench.rewards.fingerprint import fingerprint


@dataclass(frozen=True, kw_only=True)
class ExactMatch:
    """1 when the response's number equals the row's `reference`, else 0; strict and flexible rates are both told."""

    mode: Literal["strict", "flexible"] = "strict"
    """What is trained on: the number after ####, or failing that the last number of the response."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores of 0 or 1. Raises UserError when a row has no `reference` or it is not a number."""
        golds = [_gold(row) for row in rollouts.rows]
        strict = _matches([extract.strict(text) for text in rollouts.texts], golds)
        flexible = _matches([extract.flexible(text) for text in rollouts.texts], golds)
        return Scores(
            total=strict if self.mode == "strict" else flexible,
            components={"correct_strict": strict, "correct_flexible": flexible},
        )

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before anything is trained, when a row cannot be scored."""
        for row in rows:
            _gold(row)

    def fingerprint(self) -> str:
        """The sha256 of the knobs, this class and the extractor."""
        return fingerprint(self, extract)


def _matches(answers: Sequence[Decimal | None], golds: Sequence[Decimal]) -> torch.Tensor:
    pairs = zip(answers, golds, strict=True)
    return torch.tensor([extract.same(answer, gold) for answer, gold in pairs], dtype=torch.float32)


def _gold(row: Row) -> Decimal:
    if "reference" not in row:
        raise UserError(
            f"reward=exact_match needs the column 'reference', the right number; row {row['id']} has "
            f"{', '.join(row)}. Choose a dataset that has it, or another reward."
        )
    answer = extract.gold(row["reference"])
    if answer is None:
        raise UserError(
            f"reward=exact_match: the column 'reference' of row {row['id']} is not a number: {row['reference']!r:.80}"
        )
    return answer
