"""GSM8K reward: correctness of the number plus reasoning and format, each part logged separately."""

import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from alignbench.core.batches import Rollouts, Row, Scores
from alignbench.core.field_types import NonNegative, Size
from alignbench.rewards import extract
from alignbench.rewards.exact_match import check_references, compute_correctness
from alignbench.rewards.source_hash import source_hash

SYMBOLS = ("=", "+", "-", "*", "/")
INDICATORS = ("solve", "calculate", "answer", "therefore", "so", "hence", "multiply", "divide", "add", "subtract")
STEPS = ("step", "first", "then", "next", "finally", "second", "third", "now", "so")
MARK, PHRASE = "####", "final answer:"
CALCULATION = re.compile(r"\d\s*[-+*/×÷]\s*[-$€£(]*\s*\.?\d")


@dataclass(frozen=True, kw_only=True)
class GSM8KHybrid:
    """The sum of the parts below.

    With the defaults a correct answer scores 0.6 to 1 and any other 0 to 0.4, so that every correct answer scores above
    every incorrect one. The number is extracted as in exact_match, with its sign and thousands separators.
    """

    mode: Literal["strict", "flexible"] = "flexible"
    """Which number is the answer: the one after ####; flexible: without one, the last number of the response."""
    correct: float = 0.6
    """Score of the correct number."""
    wrong: float = 0.0
    """Score of an incorrect number."""
    no_answer: float = 0.0
    """Score of a response without a number."""
    length: NonNegative = 0.05
    """Score of a response of more than `min_characters` characters."""
    min_characters: Size = 50
    """Length that a response must exceed, in characters."""
    indicator: NonNegative = 0.02
    """Score of each word or sign of calculation, such as "therefore" or "="."""
    max_indicators: Size = 5
    """At most this many of them count."""
    steps: NonNegative = 0.1
    """Score of a word that orders steps, such as "first" or "then"."""
    mark: NonNegative = 0.1
    """Score of ####."""
    phrase: NonNegative = 0.05
    """Score of "Final Answer:" in a response without ####."""
    number: NonNegative = 0.025
    """Score of a digit anywhere."""
    calculation: NonNegative = 0.025
    """Score of an operator between two numbers."""
    matching: Literal["word", "substring"] = "word"
    """word: a word counts as a whole word and a sign before a number; substring: anywhere, such as "so" in "also"."""
    clip: bool = False
    """Clip the sum to [0, 1]. Where the parts add up to more, correct and incorrect answers then score alike."""
    noise_std: NonNegative = 0.0
    """Standard deviation of the added Gaussian noise; the same for the same response to the same row."""
    seed: Size = 0
    """Seed of the noise."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores and, as components, the score of each part. Raises UserError when a `reference` is not a number."""
        correctness = compute_correctness(rollouts, "gsm8k_hybrid")
        correct = correctness[f"correct_{self.mode}"].bool().tolist()
        answers = zip(rollouts.rows, rollouts.texts, correct, strict=True)
        parts = [self._parts(row, text, is_correct) for row, text, is_correct in answers]
        columns = {name: torch.tensor([part[name] for part in parts], dtype=torch.float32) for name in parts[0]}
        total = torch.stack(list(columns.values())).sum(0)
        return Scores(total=total.clamp(0, 1) if self.clip else total, components={**correctness, **columns})

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before training starts, when a row cannot be scored."""
        check_references(rows, "gsm8k_hybrid")

    def content_hash(self) -> str:
        """The sha256 of the settings, this file and the number extractor."""
        return source_hash(self, sys.modules[__name__], compute_correctness, extract)

    def _parts(self, row: Row, text: str, is_correct: bool) -> dict[str, float]:
        answered = (extract.strict(text) if self.mode == "strict" else extract.flexible(text)) is not None
        found = count_terms(SYMBOLS + INDICATORS, text, self.matching)
        layout = self.mark if MARK in text else self.phrase * (PHRASE in text.lower())
        return {
            "correctness": self.correct if is_correct else self.wrong if answered else self.no_answer,
            "length": self.length * (len(text) > self.min_characters),
            "indicators": self.indicator * min(found, self.max_indicators),
            "steps": self.steps * (count_terms(STEPS, text, self.matching) > 0),
            "format": layout,
            "number": self.number * any(letter.isdigit() for letter in text),
            "calculation": self.calculation * (CALCULATION.search(text) is not None),
            **({"noise": self._noise(row, text)} if self.noise_std else {}),
        }

    def _noise(self, row: Row, text: str) -> float:
        return random.Random(f"{self.seed} {row['id']} {text}").gauss(0, self.noise_std)


def count_terms(terms: Sequence[str], text: str, matching: str) -> int:
    """How many of the terms a text contains, ignoring case; `matching` is word or substring."""
    lower = text.lower()
    if matching == "substring":
        return sum(term in lower for term in terms)
    return sum(_whole_word(term).search(lower) is not None for term in terms)


@cache
def _whole_word(term: str) -> re.Pattern[str]:
    """A pattern for a whole word, or for a sign between an operand and a number."""
    return re.compile(rf"\b{term}\b" if term.isalpha() else rf"[\w)%>]\s*{re.escape(term)}\s*[-$€£(]*\.?\d")
