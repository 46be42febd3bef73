"""Points for the right number and for how it is reached: reasoning and format, each part logged."""

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
from alignbench.rewards.exact_match import marks, require_numbers
from alignbench.rewards.source_hash import fingerprint

SYMBOLS = ("=", "+", "-", "*", "/")
INDICATORS = ("solve", "calculate", "answer", "therefore", "so", "hence", "multiply", "divide", "add", "subtract")
STEPS = ("step", "first", "then", "next", "finally", "second", "third", "now", "so")
MARK, PHRASE = "####", "final answer:"
CALCULATION = re.compile(r"\d\s*[-+*/×÷]\s*[-$€£(]*\s*\.?\d")


@dataclass(frozen=True, kw_only=True)
class GSM8KHybrid:
    """The sum of what each part below is worth.

    With these defaults a right answer gets from 0.6 to 1, any other from 0 to 0.4: no part can hide whether the answer
    is right. The number is read as exact_match reads it, with its sign and thousands separators.
    """

    mode: Literal["strict", "flexible"] = "flexible"
    """Where the answer is read: after ####, or failing that the last number of the response."""
    correct: float = 0.6
    """For the right number."""
    wrong: float = 0.0
    """For another number."""
    no_answer: float = 0.0
    """For a response in which no number is found."""
    length: NonNegative = 0.05
    """For a response of more than `min_characters`."""
    min_characters: Size = 50
    """What a response must be longer than."""
    indicator: NonNegative = 0.02
    """For each of the words and signs of calculation that is there, such as = or therefore."""
    max_indicators: Size = 5
    """How many of them count."""
    steps: NonNegative = 0.1
    """For a word that orders steps, such as first or then."""
    mark: NonNegative = 0.1
    """For ####."""
    phrase: NonNegative = 0.05
    """For "Final Answer:" where #### is not there."""
    number: NonNegative = 0.025
    """For a number anywhere."""
    calculation: NonNegative = 0.025
    """For an operator between two numbers."""
    matching: Literal["word", "substring"] = "word"
    """Whether a word counts as a whole, and a sign before a number, or wherever its letters stand: so in also."""
    clip: bool = False
    """Whether the sum is brought into [0, 1]: where parts add up to more, it no longer tells right from wrong."""
    noise_std: NonNegative = 0.0
    """Deviation of the noise that is added, the same for the same response to the same row."""
    seed: Size = 0
    """Of the noise."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores, and what each part added to them. Raises UserError when a `reference` is not a number."""
        told = marks(rollouts, "gsm8k_hybrid")
        right = told[f"correct_{self.mode}"].bool().tolist()
        rows = zip(rollouts.rows, rollouts.texts, right, strict=True)
        parts = [self._parts(row, text, found) for row, text, found in rows]
        columns = {name: torch.tensor([part[name] for part in parts], dtype=torch.float32) for name in parts[0]}
        total = torch.stack(list(columns.values())).sum(0)
        return Scores(total=total.clamp(0, 1) if self.clip else total, components={**told, **columns})

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before anything is trained, when a row cannot be scored."""
        require_numbers(rows, "gsm8k_hybrid")

    def content_hash(self) -> str:
        """The sha256 of the knobs, this file and the extractor."""
        return fingerprint(self, sys.modules[__name__], marks, extract)

    def _parts(self, row: Row, text: str, right: bool) -> dict[str, float]:
        answered = (extract.strict(text) if self.mode == "strict" else extract.flexible(text)) is not None
        found = count(SYMBOLS + INDICATORS, text, self.matching)
        form = self.mark if MARK in text else self.phrase * (PHRASE in text.lower())
        return {
            "correctness": self.correct if right else self.wrong if answered else self.no_answer,
            "length": self.length * (len(text) > self.min_characters),
            "indicators": self.indicator * min(found, self.max_indicators),
            "steps": self.steps * (count(STEPS, text, self.matching) > 0),
            "format": form,
            "number": self.number * any(letter.isdigit() for letter in text),
            "calculation": self.calculation * (CALCULATION.search(text) is not None),
            **({"noise": self._noise(row, text)} if self.noise_std else {}),
        }

    def _noise(self, row: Row, text: str) -> float:
        return random.Random(f"{self.seed} {row['id']} {text}").gauss(0, self.noise_std)


def count(terms: Sequence[str], text: str, matching: str) -> int:
    """How many of the terms stand in a text, upper or lower case."""
    lower = text.lower()
    if matching == "substring":
        return sum(term in lower for term in terms)
    return sum(_standing(term).search(lower) is not None for term in terms)


@cache
def _standing(term: str) -> re.Pattern[str]:
    """A word by itself; a sign between something and a number."""
    return re.compile(rf"\b{term}\b" if term.isalpha() else rf"[\w)%>]\s*{re.escape(term)}\s*[-$€£(]*\.?\d")
