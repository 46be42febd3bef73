r"""One point for the right answer in \boxed{}: the same mathematics, in whatever form it is written."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import torch

from alignbench.core.batches import Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.core.field_types import Positive
from alignbench.data import boxed as boxes
from alignbench.rewards import extract, math_equivalence
from alignbench.rewards.source_hash import fingerprint


@dataclass(frozen=True, kw_only=True)
class Boxed:
    r"""1 when the response's last \boxed{} equals the row's `reference`, else 0; strict and flexible rates are told.

    The reference is an answer, or a solution with its answer in \boxed{}. What no rule of text can tell, math-verify
    decides (https://github.com/huggingface/math-verify).
    """

    mode: Literal["strict", "flexible"] = "strict"
    r"""What is trained on: the last \boxed{}, or failing that the last number of the response."""
    timeout: Positive = 5.0
    """Seconds for one comparison; one that takes longer counts as wrong, with a warning."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores of 0 or 1. Raises UserError when a row has no `reference`."""
        told: dict[str, list[bool]] = {"correct_strict": [], "correct_flexible": []}
        for row, text in zip(rollouts.rows, rollouts.texts, strict=True):
            gold, answer = _gold(row), boxes.boxed(text)
            told["correct_strict"].append(self.same(gold, answer))
            told["correct_flexible"].append(self.same(gold, _last_number(text) if answer is None else answer))
        components = {name: torch.tensor(marks, dtype=torch.float32) for name, marks in told.items()}
        return Scores(total=components[f"correct_{self.mode}"], components=components)

    def same(self, gold: str, answer: str | None) -> bool:
        """Whether the answer is the gold one: the same text, or the same mathematics. No answer is never right."""
        if not answer:
            return False
        return answer == gold or math_equivalence.verifier().same(gold, answer, self.timeout)

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before anything is trained, when a row cannot be scored."""
        for row in rows:
            _gold(row)

    def content_hash(self) -> str:
        """The sha256 of the knobs, the source and the version of math-verify."""
        rules = fingerprint(self, sys.modules[__name__], boxes, math_equivalence, extract)
        return hashlib.sha256(f"{rules} math-verify {version('math-verify')}".encode()).hexdigest()


def _last_number(text: str) -> str | None:
    number = extract.flexible(text)
    return None if number is None else str(number)


def _gold(row: Row) -> str:
    reference = row.get("reference")
    if reference is None:
        raise UserError(
            f"reward=boxed needs the column 'reference', the right answer; row {row['id']} has {', '.join(row)}. "
            "Choose a dataset that has it, or another reward."
        )
    text = str(reference)
    found = boxes.boxed(text)
    if found is None and boxes.BOX.search(text) is None:
        found = text.strip()
    if not found:
        raise UserError(f"reward=boxed: the column 'reference' of row {row['id']} holds no answer: {text!r:.80}")
    return found
