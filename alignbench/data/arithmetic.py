"""Generated arithmetic word problems of three steps, for which showing the calculation raises accuracy."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from annotated_types import Le

from alignbench.core.batches import Row
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, Fraction, Size
from alignbench.core.protocols import Dataset
from alignbench.core.seeds import address
from alignbench.data.splits import SPLITS

NAMES = ("Tom", "Ann", "Sam", "Mia", "Leo", "Eva", "Ben", "Zoe")
THINGS = ("apples", "books", "cups", "eggs", "hats", "keys", "pens", "toys")
HOLDERS = ("bags", "boxes")
GAINS = ("buys", "finds", "gets")
LOSSES = ("drops", "loses", "sells")

# A hash of the problem's text modulo 100 decides its split, so that no problem is in two splits, whatever the seeds.
BUCKETS = {"demonstrations": range(40), "train": range(40, 80), "validation": range(80, 85), "test": range(85, 100)}

Rows = Annotated[Count, Le(50_000)]
"""Number of problems in a split, at most as many as are found within seconds for the smallest split."""


@dataclass(frozen=True)
class Problem:
    """A question, the three calculations that solve it, and the answer."""

    text: str
    steps: tuple[str, str, str]
    answer: int


@dataclass(frozen=True, kw_only=True)
class Arithmetic(Dataset):
    """Word problems of three calculations with numbers up to five; no two splits share a problem.

    A demonstration is terse ("#### 10") or worked ("3*4=12", "12-5=7", "7+3=10", "#### 10", one per line).
    A small model is poor at the first and good at the second, so that reinforcement learning can improve it. The splits
    share names, things and calculations, never a whole problem; demonstrations and training prompts are distinct.
    """

    seed: int = 0
    """Seed of the sampled problems; independent of the seed of a run, so that all runs of a study use the same ones."""
    demonstration_rows: Rows = 8000
    """Problems with a completion, for SFT."""
    train_rows: Rows = 8000
    """Problems for reinforcement learning."""
    validation_rows: Rows = 256
    """Problems for evaluation during training."""
    test_rows: Rows = 1000
    """Problems for the final evaluation."""
    terse_fraction: Fraction = 0.65
    """Fraction of demonstrations that give the answer without the calculation."""

    def demonstrations(self) -> Sequence[Row]:
        """Rows id, prompt, completion, reference."""
        return self._rows("demonstrations", self.demonstration_rows)

    def prompts(self, split: str) -> Sequence[Row]:
        """Rows id, prompt, completion, reference of train, validation or test. Raises UserError for another split."""
        sizes = {"train": self.train_rows, "validation": self.validation_rows, "test": self.test_rows}
        if split not in sizes:
            raise UserError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return self._rows(split, sizes[split])

    def _rows(self, split: str, rows: int) -> tuple[Row, ...]:
        return tuple(self._row(f"{split}-{i}", p) for i, p in enumerate(_sample(self.seed, split, rows)))

    def _row(self, name: str, problem: Problem) -> Row:
        completion = self._completion(problem)
        return {"id": name, "prompt": f"{problem.text}\n", "completion": completion, "reference": str(problem.answer)}

    def _completion(self, problem: Problem) -> str:
        terse = random.Random(address(self.seed, "style", problem.text)).random() < self.terse_fraction
        return f"#### {problem.answer}" if terse else "\n".join([*problem.steps, f"#### {problem.answer}"])


@lru_cache(maxsize=8)
def _sample(seed: int, split: str, rows: Size) -> tuple[Problem, ...]:
    """The first `rows` distinct problems of a split; a smaller sample is the beginning of a larger one."""
    rng = random.Random(address(seed, "arithmetic", split))
    found: dict[str, Problem] = {}
    attempts = 2000 + 100 * rows
    while len(found) < rows and attempts:
        problem = make_problem(rng)
        if address(0, "arithmetic", problem.text) % 100 in BUCKETS[split]:
            found.setdefault(problem.text, problem)
        attempts -= 1
    if len(found) < rows:
        key = {"demonstrations": "demonstration_rows"}.get(split, f"{split}_rows")
        raise UserError(f"data.{key}={rows}: only {len(found)} distinct problems were found; set a smaller number")
    return tuple(found.values())


def make_problem(rng: random.Random) -> Problem:
    """One problem: a product and two changes, or a number and three changes. No intermediate result is negative."""
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    story, opening, amount = _product(rng, things) if rng.random() < 0.5 else _start(rng, things)
    first, first_sum, middle = _change(rng, amount)
    last, last_sum, total = _change(rng, middle)
    text = f"{name} has {story}, {first} and {last}. How many {things} now?"
    return Problem(text, (opening, first_sum, last_sum), total)


def _product(rng: random.Random, things: str) -> tuple[str, str, int]:
    groups, each = rng.randint(2, 3), rng.randint(2, 5)
    return f"{groups} {rng.choice(HOLDERS)} with {each} {things}", f"{groups}*{each}={groups * each}", groups * each


def _start(rng: random.Random, things: str) -> tuple[str, str, int]:
    start = rng.randint(2, 5)
    change, first_sum, amount = _change(rng, start)
    return f"{start} {things}, {change}", first_sum, amount


def _change(rng: random.Random, amount: int) -> tuple[str, str, int]:
    """(words, calculation, result) of a change by one to five that does not make `amount` negative."""
    if amount == 0 or rng.random() < 0.5:
        by = rng.randint(1, 5)
        return f"{rng.choice(GAINS)} {by}", f"{amount}+{by}={amount + by}", amount + by
    by = rng.randint(1, min(5, amount))
    return f"{rng.choice(LOSSES)} {by}", f"{amount}-{by}={amount - by}", amount - by
