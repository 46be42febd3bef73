"""Similarity of an answer to its reference in length, formulas, terms and structure; not its correctness."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from alignbench.core.batches import PerRollout, Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.core.field_types import NonNegative
from alignbench.rewards.reward import Reward

# Atomic groups: only the first P( or E[ of each line is matched, so that a megabyte of P( is read in one pass.
FORMULAS = tuple(
    map(
        re.compile,
        (
            r"(?m)^(?>.*?P\().*?\)",
            r"(?m)^(?>.*?E\[).*?\]",
            r"[∫∑∏]",
            r"[α-ωΑ-Ω]",
            r"\\frac",
            r"[=≤≥<>≠]",
            r"\^|\*\*",
            r"√",
        ),
    )
)
FULL_SCORE_FORMULAS = 4
TERM = re.compile(r"\b\w{5,}\b")
STOP_WORDS = frozenset({"being"})
# Features of a clear explanation in English, and the score of each.
STRUCTURE = (
    (re.compile(r"\bis (?:defined as|the|a)\b", re.IGNORECASE), 0.3),
    (re.compile(r"formula|equation|expression", re.IGNORECASE), 0.2),
    (re.compile(r"example|for instance|such as", re.IGNORECASE), 0.2),
)
SENTENCES = 0.3
"""Score of two or more sentences of more than ten characters."""


@dataclass(frozen=True, kw_only=True)
class MathHeuristic(Reward):
    """The weighted sum of four scores from 0 to 1; two of them use the row's `reference`, an answer in words.

    Designed for explanations in English. It does not check the result: an incorrect answer in similar words scores
    high, and the reference itself gets the full score only when it has formulas and structure.
    """

    length: NonNegative = 0.2
    """Weight of a number of words close to that of the reference."""
    formulas: NonNegative = 0.3
    """Weight of at least four of eight kinds of mathematical notation."""
    concepts: NonNegative = 0.3
    """Weight of the long words shared with the reference."""
    structure: NonNegative = 0.2
    """Weight of a definition, a named formula, an example and more than one sentence."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores and, as components, the weighted parts. Raises UserError when a `reference` is not a text."""
        answers = [(text, _reference(row)) for row, text in zip(rollouts.rows, rollouts.texts, strict=True)]
        parts = {
            "length": self.length * _each(length(text, reference) for text, reference in answers),
            "formulas": self.formulas * _each(formulas(text) for text, _ in answers),
            "concepts": self.concepts * _each(concepts(text, reference) for text, reference in answers),
            "structure": self.structure * _each(structure(text) for text, _ in answers),
        }
        return Scores(total=torch.stack(list(parts.values())).sum(0), components=parts)

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before training starts, when a row cannot be scored."""
        for row in rows:
            _reference(row)


def length(text: str, reference: str) -> float:
    """1 for 0.7 to 1.5 times the words of the reference, less otherwise; 0.5 for a reference without words."""
    expected = len(reference.split())
    if not expected:
        return 0.5
    ratio = len(text.split()) / expected
    for low, high, score in ((0.7, 1.5, 1.0), (0.5, 2.0, 0.7), (0.3, 3.0, 0.4)):
        if low <= ratio <= high:
            return score
    return 0.1


def formulas(text: str) -> float:
    """The number of kinds of notation in a text divided by four, at most 1."""
    return min(sum(kind.search(text) is not None for kind in FORMULAS) / FULL_SCORE_FORMULAS, 1.0)


def concepts(text: str, reference: str) -> float:
    """Jaccard similarity of the words of five letters or more; 0.5 for a reference without such words."""
    expected, found = _terms(reference), _terms(text)
    return len(expected & found) / len(expected | found) if expected else 0.5


def structure(text: str) -> float:
    """The sum of the scores of the features in STRUCTURE and of SENTENCES."""
    sentences = [part for part in re.split(r"[.!?]+", text) if len(part.strip()) > 10]
    return sum(score for pattern, score in STRUCTURE if pattern.search(text)) + SENTENCES * (len(sentences) >= 2)


def _terms(text: str) -> frozenset[str]:
    return frozenset(TERM.findall(text.lower())) - STOP_WORDS


def _each(values: Iterable[float]) -> PerRollout:
    return torch.tensor(list(values), dtype=torch.float32)


def _reference(row: Row) -> str:
    reference = row.get("reference")
    if not isinstance(reference, str):
        raise UserError(
            f"reward=math_heuristic needs the column 'reference', an answer in words; row {row['id']} has the "
            f"columns {', '.join(row)}. Choose a dataset that has it, or another reward."
        )
    return reference
