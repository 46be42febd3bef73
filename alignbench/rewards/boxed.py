r"""Reward 1 for the correct answer in \boxed{}, compared as mathematics, so that equivalent forms count."""

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
from alignbench.rewards.source_hash import source_hash


@dataclass(frozen=True, kw_only=True)
class Boxed:
    r"""1 when the response's last \boxed{} equals the row's `reference`, else 0. Logs both modes as components.

    The reference is an answer, or a solution with its answer in \boxed{}. Answers whose texts differ are compared by
    math-verify (https://github.com/huggingface/math-verify).
    """

    mode: Literal["strict", "flexible"] = "strict"
    r"""The answer that the score uses: the last \boxed{}; flexible: without one, the last number of the response."""
    timeout: Positive = 5.0
    """Seconds for one comparison; a longer one counts as incorrect and logs a warning."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores of 0 or 1. Raises UserError when a row has no `reference`."""
        correct: dict[str, list[bool]] = {"correct_strict": [], "correct_flexible": []}
        for row, text in zip(rollouts.rows, rollouts.texts, strict=True):
            gold, answer = _gold_answer(row), boxes.extract_boxed(text)
            correct["correct_strict"].append(self.same(gold, answer))
            correct["correct_flexible"].append(self.same(gold, _last_number(text) if answer is None else answer))
        components = {name: torch.tensor(values, dtype=torch.float32) for name, values in correct.items()}
        return Scores(total=components[f"correct_{self.mode}"], components=components)

    def same(self, gold: str, answer: str | None) -> bool:
        """Whether the answer equals the gold one as text or as mathematics; False without an answer."""
        if not answer:
            return False
        return answer == gold or math_equivalence.get_verifier().same(gold, answer, self.timeout)

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before training starts, when a row cannot be scored."""
        for row in rows:
            _gold_answer(row)

    def content_hash(self) -> str:
        """The sha256 of the settings, the source and the version of math-verify."""
        rules = source_hash(self, sys.modules[__name__], boxes, math_equivalence, extract)
        return hashlib.sha256(f"{rules} math-verify {version('math-verify')}".encode()).hexdigest()


def _last_number(text: str) -> str | None:
    number = extract.flexible(text)
    return None if number is None else str(number)


def _gold_answer(row: Row) -> str:
    reference = row.get("reference")
    if reference is None:
        raise UserError(
            f"reward=boxed needs the column 'reference', the correct answer; row {row['id']} has the "
            f"columns {', '.join(row)}. Choose a dataset that has it, or another reward."
        )
    text = str(reference)
    found = boxes.extract_boxed(text)
    if found is None and boxes.BOX.search(text) is None:
        found = text.strip()
    if not found:
        raise UserError(f"reward=boxed: the column 'reference' of row {row['id']} contains no answer: {text!r:.80}")
    return found
