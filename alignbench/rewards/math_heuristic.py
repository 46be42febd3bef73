"""How much an answer looks like its reference: length, formulas, terms and structure; not whether it is right."""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from alignbench.core.batches import PerRollout, Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.core.field_types import NonNegative
from alignbench.rewards.source_hash import fingerprint

# Whether P( or E[ is closed on its line is asked of the first on each line, once: a megabyte of P( is read in one pass.
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
ENOUGH_FORMULAS = 4
TERM = re.compile(r"\b\w{5,}\b")
NO_TERMS = frozenset({"being"})
# What a clear English explanation contains, and what each is worth.
STRUCTURE = (
    (re.compile(r"\bis (?:defined as|the|a)\b", re.IGNORECASE), 0.3),
    (re.compile(r"formula|equation|expression", re.IGNORECASE), 0.2),
    (re.compile(r"example|for instance|such as", re.IGNORECASE), 0.2),
)
SENTENCES = 0.3
"""For two or more sentences of more than ten characters."""


@dataclass(frozen=True, kw_only=True)
class MathHeuristic:
    """The weighted sum of four scores from 0 to 1; two of them compare with the row's `reference`, an answer in words.

    It was made for explanations in English. It does not look at the result: a wrong answer in the right words scores
    high, and even the reference itself gets full marks only when it has formulas and structure.
    """

    length: NonNegative = 0.2
    """Weight of having about as many words as the reference."""
    formulas: NonNegative = 0.3
    """Weight of having four of eight kinds of mathematical notation."""
    concepts: NonNegative = 0.3
    """Weight of sharing the long words of the reference."""
    structure: NonNegative = 0.2
    """Weight of a definition, a formula by name, an example and more than one sentence."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores, and what each part added to them. Raises UserError when a row has no text as its `reference`."""
        pairs = [(text, _reference(row)) for row, text in zip(rollouts.rows, rollouts.texts, strict=True)]
        parts = {
            "length": self.length * _each(length(text, reference) for text, reference in pairs),
            "formulas": self.formulas * _each(formulas(text) for text, _ in pairs),
            "concepts": self.concepts * _each(concepts(text, reference) for text, reference in pairs),
            "structure": self.structure * _each(structure(text) for text, _ in pairs),
        }
        return Scores(total=torch.stack(list(parts.values())).sum(0), components=parts)

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before anything is trained, when a row cannot be scored."""
        for row in rows:
            _reference(row)

    def content_hash(self) -> str:
        """The sha256 of the knobs and of this file."""
        return fingerprint(self, sys.modules[__name__])


def length(text: str, reference: str) -> float:
    """1 for 0.7 to 1.5 times the words of the reference, less for fewer or more; 0.5 where it has none."""
    expected = len(reference.split())
    if not expected:
        return 0.5
    ratio = len(text.split()) / expected
    for low, high, worth in ((0.7, 1.5, 1.0), (0.5, 2.0, 0.7), (0.3, 3.0, 0.4)):
        if low <= ratio <= high:
            return worth
    return 0.1


def formulas(text: str) -> float:
    """The kinds of notation that are there, of the four that are enough."""
    return min(sum(kind.search(text) is not None for kind in FORMULAS) / ENOUGH_FORMULAS, 1.0)


def concepts(text: str, reference: str) -> float:
    """The words of five letters or more that both have, of those that either has; 0.5 where the reference has none."""
    expected, found = _terms(reference), _terms(text)
    return len(expected & found) / len(expected | found) if expected else 0.5


def structure(text: str) -> float:
    """The worth of all signs of a clear explanation that are there."""
    sentences = [part for part in re.split(r"[.!?]+", text) if len(part.strip()) > 10]
    return sum(worth for sign, worth in STRUCTURE if sign.search(text)) + SENTENCES * (len(sentences) >= 2)


def _terms(text: str) -> frozenset[str]:
    return frozenset(TERM.findall(text.lower())) - NO_TERMS


def _each(values: Iterable[float]) -> PerRollout:
    return torch.tensor(list(values), dtype=torch.float32)


def _reference(row: Row) -> str:
    if not isinstance(row.get("reference"), str):
        raise UserError(
            f"reward=math_heuristic needs the column 'reference', an answer in words to compare with; row {row['id']} "
            f"has {', '.join(row)}. Choose a dataset that has it, or another reward."
        )
    return row["reference"]
