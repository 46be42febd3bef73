"""Generated preference pairs of short reviews whose true quality is known."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Annotated

from annotated_types import Gt, Le

from alignbench.core.batches import Row
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, Fraction
from alignbench.core.protocols import Dataset
from alignbench.core.seeds import address
from alignbench.data import reviews
from alignbench.data.splits import SPLITS

NAMES = ("Tom", "Ann", "Sam", "Mia", "Leo", "Eva", "Ben", "Zoe", "Max", "Ida", "Jon", "Lea")
ASKS = ("asks", "says", "writes", "calls", "texts", "mails")
REQUESTS = (
    "write a review of",
    "give a short review of",
    "review",
    "describe",
    "tell me about",
    "say something about",
    "say what you think of",
    "let me hear about",
)

# A hash of the prompt modulo 100 decides its split, so that no prompt is in two splits, whatever the seeds.
BUCKETS = {"demonstrations": range(30), "train": range(30, 70), "validation": range(70, 80), "test": range(80, 100)}

Rows = Annotated[Count, Le(50_000)]
"""Number of rows in a split."""
Margin = Annotated[float, Gt(0), Le(4)]
"""A difference in true quality; differences above 4 are too rare to sample."""


@dataclass(frozen=True, kw_only=True)
class PreferencesToy(Dataset):
    """Requests for a review in many wordings, answered by reviews with typical mistakes (see data/reviews.py).

    Demonstrations and preference pairs are sampled from the same distribution. A pair prefers the review of higher true
    quality, except for label noise in the training split. Splits share topics and words, never a prompt.
    """

    seed: int = 0
    """Seed of the sampled rows; independent of the seed of a run, so that all runs of a study use the same rows."""
    demonstration_rows: Rows = 6000
    """Reviews for SFT."""
    comparison_rows: Rows = 5000
    """Preference pairs for training a reward model."""
    held_out_comparison_rows: Rows = 2000
    """Preference pairs of validation and of test, each."""
    margin: Margin = 0.5
    """Minimum difference in true quality between the reviews of a pair; qualities are multiples of 0.5."""
    label_noise: Fraction = 0.02
    """Fraction of training pairs that prefer the worse review; held-out pairs have no label noise."""
    train_rows: Rows = 1500
    """Prompts for reinforcement learning."""
    validation_rows: Rows = 256
    """Prompts for evaluation during training."""
    test_rows: Rows = 500
    """Prompts for the final evaluation."""

    def demonstrations(self) -> Sequence[Row]:
        """Rows id, prompt, completion, topic, stratum; prompts repeat with different completions."""
        prompts = _prompts(self.seed, "demonstrations")
        return tuple(self._row("demonstrations", i, *prompts[i % len(prompts)]) for i in range(self.demonstration_rows))

    def comparisons(self, split: str) -> Sequence[Row]:
        """Rows id, prompt, chosen, rejected, margin, topic. Raises UserError for an unknown split."""
        held_out = self.held_out_comparison_rows
        rows = self._size(split, {"train": self.comparison_rows, "validation": held_out, "test": held_out})
        prompts = _prompts(self.seed, split)
        return tuple(self._pair(split, i, *prompts[i % len(prompts)]) for i in range(rows))

    def prompts(self, split: str) -> Sequence[Row]:
        """Rows id, prompt, completion, topic, stratum. Raises UserError for an unknown split, or too few prompts."""
        sizes = {"train": self.train_rows, "validation": self.validation_rows, "test": self.test_rows}
        rows, prompts = self._size(split, sizes), _prompts(self.seed, split)
        if rows > len(prompts):
            raise UserError(f"data.{split}_rows={rows}: the split has {len(prompts)} prompts; set a smaller number")
        return tuple(self._row(split, i, *prompts[i]) for i in range(rows))

    def quality(self, row: Row, answer: str) -> float | None:
        """The true quality of a review of the row's topic, at most 4."""
        return reviews.quality(row["topic"], answer)

    @staticmethod
    def _size(split: str, sizes: dict[str, int]) -> int:
        if split not in sizes:
            raise UserError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return sizes[split]

    def _row(self, split: str, i: int, prompt: str, topic: str) -> Row:
        completion = reviews.write_review(random.Random(address(self.seed, "review", split, i)), topic)
        return {"id": f"{split}-{i}", "prompt": prompt, "completion": completion, "topic": topic, "stratum": topic}

    def _pair(self, split: str, i: int, prompt: str, topic: str) -> Row:
        rng = random.Random(address(self.seed, "pair", split, i))
        difference = 0.0
        while difference < self.margin:
            pair = sorted((reviews.quality(topic, text), text) for text in _two_reviews(rng, topic))
            difference = pair[1][0] - pair[0][0]
        if split == "train" and rng.random() < self.label_noise:
            pair.reverse()
        return {
            "id": f"{split}-pair-{i}",
            "prompt": prompt,
            "chosen": pair[1][1],
            "rejected": pair[0][1],
            "margin": difference,
            "topic": topic,
        }


def _two_reviews(rng: random.Random, topic: str) -> tuple[str, str]:
    return reviews.write_review(rng, topic), reviews.write_review(rng, topic)


@lru_cache(maxsize=8)
def _prompts(seed: int, split: str) -> tuple[tuple[str, str], ...]:
    """Every prompt of a split with its topic, in an order that depends on the seed."""
    wordings = product(NAMES, ASKS, REQUESTS, reviews.TOPICS)
    prompts = [(f"{name} {asks}: {request} the {topic}.\n", topic) for name, asks, request, topic in wordings]
    split_prompts = [
        (prompt, topic) for prompt, topic in prompts if address(0, "prompt", prompt) % 100 in BUCKETS[split]
    ]
    return tuple(sorted(split_prompts, key=lambda item: address(seed, "order", item[0])))
