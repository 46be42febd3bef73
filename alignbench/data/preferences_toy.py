"""Which of two reviews is better? Generated preferences whose true quality is known."""

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

# A hundred places, dealt by a hash of the prompt's text: no prompt can stand in two splits, whatever the seeds.
PLACES = {"demonstrations": range(30), "train": range(30, 70), "validation": range(70, 80), "test": range(80, 100)}

Rows = Annotated[Count, Le(50_000)]
"""How many rows of a split."""
Margin = Annotated[float, Gt(0), Le(4)]
"""A distance in true quality; greater ones than 4 are too rare to wait for."""


@dataclass(frozen=True, kw_only=True)
class PreferencesToy(Dataset):
    """Requests for a review, in many wordings; the answers are reviews as careless people write them.

    Demonstrations and comparisons come from the same writers. A comparison prefers the review of higher true quality,
    except for noise in the training labels. Splits share topics and words, never a prompt.
    """

    seed: int = 0
    """What is drawn; apart from the run's seed, so that every run of a study meets the same rows."""
    demonstration_rows: Rows = 6000
    """Reviews to imitate."""
    comparison_rows: Rows = 5000
    """Pairs to train a reward model on."""
    held_out_comparison_rows: Rows = 2000
    """Pairs of validation, and of test."""
    margin: Margin = 0.5
    """How far apart in true quality the reviews of a pair are at least; qualities differ by halves."""
    label_noise: Fraction = 0.02
    """The share of training pairs with the worse review preferred; held-out pairs are always right."""
    train_rows: Rows = 1500
    """Prompts to answer while training."""
    validation_rows: Rows = 256
    """Prompts measured during training."""
    test_rows: Rows = 500
    """Prompts measured once, when training ended."""

    def demonstrations(self) -> Sequence[Row]:
        """Rows id, prompt, completion, topic, stratum; a prompt comes back with another completion."""
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
            raise UserError(f"data.{split}_rows={rows}: there are only {len(prompts)} prompts for it; ask for fewer")
        return tuple(self._row(split, i, *prompts[i]) for i in range(rows))

    def quality(self, row: Row, answer: str) -> float | None:
        """The true quality of a review of the row's topic, from 4 down."""
        return reviews.quality(row["topic"], answer)

    @staticmethod
    def _size(split: str, sizes: dict[str, int]) -> int:
        if split not in sizes:
            raise UserError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return sizes[split]

    def _row(self, split: str, i: int, prompt: str, topic: str) -> Row:
        completion = reviews.write(random.Random(address(self.seed, "review", split, i)), topic)
        return {"id": f"{split}-{i}", "prompt": prompt, "completion": completion, "topic": topic, "stratum": topic}

    def _pair(self, split: str, i: int, prompt: str, topic: str) -> Row:
        rng = random.Random(address(self.seed, "pair", split, i))
        apart = 0.0
        while apart < self.margin:
            pair = sorted((reviews.quality(topic, text), text) for text in _two(rng, topic))
            apart = pair[1][0] - pair[0][0]
        if split == "train" and rng.random() < self.label_noise:
            pair.reverse()
        return {
            "id": f"{split}-pair-{i}",
            "prompt": prompt,
            "chosen": pair[1][1],
            "rejected": pair[0][1],
            "margin": apart,
            "topic": topic,
        }


def _two(rng: random.Random, topic: str) -> tuple[str, str]:
    return reviews.write(rng, topic), reviews.write(rng, topic)


@lru_cache(maxsize=8)
def _prompts(seed: int, split: str) -> tuple[tuple[str, str], ...]:
    """Every prompt of a split with its topic, in the order of the seed."""
    wordings = product(NAMES, ASKS, REQUESTS, reviews.TOPICS)
    found = [(f"{name} {asks}: {request} the {topic}.\n", topic) for name, asks, request, topic in wordings]
    here = [(prompt, topic) for prompt, topic in found if address(0, "prompt", prompt) % 100 in PLACES[split]]
    return tuple(sorted(here, key=lambda item: address(seed, "order", item[0])))
