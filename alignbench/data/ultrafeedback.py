"""UltraFeedback: two scored answers to each prompt (Cui et al. 2023), from the hub or a local file."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from alignbench.core.batches import Row
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, Size
from alignbench.core.protocols import Dataset
from alignbench.core.seeds import address
from alignbench.data.preference_pairs import Pair, usable
from alignbench.data.prompt_kinds import KINDS, kind
from alignbench.data.source import Record, files, read_apart, read_hub
from alignbench.data.splits import SPLITS, check_disjoint
from alignbench.data.stratify import draw, even, fit, proportional

EDGES = (3, 5, 7, 9)
BINS = ("0-3", "3-5", "5-7", "7-9", "9-10")
"""The bins of score_chosen: the lower edge belongs to a bin, the upper one to the next; 10 to the last."""
LEAKED = "dropped: prompt is in the test file"


@dataclass(frozen=True, kw_only=True)
class UltraFeedback(Dataset):
    """Binarised UltraFeedback, or any file with the columns prompt, chosen, rejected, score_chosen, score_rejected.

    The scores may stand under `metadata`. Pairs that prefer nothing are dropped and counted, see notes(). The test
    pairs come from the hub's test split, from the test*.* or eval*.* files when `path` is a folder, or else out of
    the one file; they are drawn evenly over what prompts ask for, with a shortfall of one kind filled from the
    others. Training and validation pairs are drawn in proportion to the bins of score_chosen. Every draw goes by a
    hash of seed and prompt, so that it does not depend on the order of the rows. No prompt is in two splits. Where
    there are fewer pairs than asked for, each split gets its share of them.
    """

    name: str = "HuggingFaceH4/ultrafeedback_binarized"
    """The hub name, used when `path` is null; its splits must be train_prefs and test_prefs."""
    path: str | None = None
    """A local file (json, jsonl, .gz of these, parquet), or a folder with train*.* and test*.* or eval*.* files."""
    seed: Size = 42
    """Which pairs are drawn; apart from the run's seed."""
    train_rows: Count | None = 9_500
    """How many pairs are trained on; null takes all that the other splits leave."""
    validation_rows: Count = 500
    """How many pairs are set aside for measuring during training."""
    test_rows: Count = 300
    """How many pairs are measured once, when training ended: a third each factual, instruction and creative."""

    def demonstrations(self) -> Sequence[Row]:
        """Rows id, prompt, completion (the chosen answer), score, stratum: those of prompts("train")."""
        return self.prompts("train")

    def comparisons(self, split: str) -> Sequence[Row]:
        """Rows id, prompt, chosen, rejected, margin (difference of the scores, above 0), one for each prompt."""
        return tuple(
            {"id": name, "prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected, "margin": p.margin}
            for name, p in self._named(split)
        )

    def prompts(self, split: str) -> Sequence[Row]:
        """Rows id, prompt, completion (the chosen answer), score (its score), stratum (one of KINDS)."""
        return tuple(
            {"id": name, "prompt": p.prompt, "completion": p.chosen, "score": p.score, "stratum": kind(p.prompt)}
            for name, p in self._named(split)
        )

    def notes(self) -> Mapping[str, int]:
        """What became of the rows, in words and numbers: read, dropped and why, asked for, taken, of which kind."""
        return self._cut[1]

    def _named(self, split: str) -> list[tuple[str, Pair]]:
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return [(f"{split}-{i}", pair) for i, pair in enumerate(self._cut[0][split])]

    @cached_property
    def _cut(self) -> tuple[dict[str, list[Pair]], dict[str, int]]:
        """The pairs of every split, and the notes."""
        train_records, test_records = self._load()
        pool, notes = usable(train_records)
        held_out, more = usable(test_records)
        tested = {pair.key for pair in held_out}
        rest = [pair for pair in pool if pair.key not in tested]
        splits = self._draw(rest, held_out if test_records else None)
        check_disjoint(**{name: [{"id": p.key, "prompt": p.prompt} for p in pairs] for name, pairs in splits.items()})
        notes.update(more)
        dropped = {LEAKED: len(pool) - len(rest), **notes}
        return splits, {"rows read": len(train_records) + len(test_records), **dropped, **self._taken(splits)}

    def _load(self) -> tuple[list[Record], list[Record]]:
        """(training records, test records): none of the latter where they are to be carved out."""
        if self.path is None:
            return read_hub(self.name, None, "train_prefs"), read_hub(self.name, None, "test_prefs")
        found = files(self.path)
        found = [file for file in found if "_prefs" in file.name] or found  # the hub's folder holds other tasks too
        train, test = read_apart(found, test=("test", "eval"))
        return train, test or []

    def _draw(self, pool: list[Pair], held_out: list[Pair] | None) -> dict[str, list[Pair]]:
        """The pairs of every split, from the pool alone or, those to test on, from what a test file holds."""
        asked = {"validation": self.validation_rows} | ({"test": self.test_rows} if held_out is None else {})
        all_left = max(1, len(pool) - sum(asked.values()))
        sizes = fit({"train": self.train_rows or all_left, **asked}, len(pool))
        sizes |= {} if held_out is None else fit({"test": self.test_rows}, len(held_out))
        if min(sizes.values()) < 1:
            raise UserError(
                f"{self.path or self.name} has {len(pool)} pairs to train on that prefer one answer"
                f"{'' if held_out is None else f', and {len(held_out)} to test on'}: not enough for "
                f"{', '.join(sizes)} in these proportions. Give a larger file, whose two answers differ in text and in "
                "score, or lower data.validation_rows and data.test_rows"
            )
        test = draw(
            pool if held_out is None else held_out,
            sizes["test"],
            even,
            stratum=lambda pair: kind(pair.prompt),
            chance=self._chance("test"),
        )
        sample = draw(
            _without(pool, test),
            sizes["train"] + sizes["validation"],
            proportional,
            stratum=score_bin,
            chance=self._chance("sample"),
            worth=lambda pair: pair.margin,
        )
        validation = draw(
            sample, sizes["validation"], proportional, stratum=score_bin, chance=self._chance("validation")
        )
        return {"train": _without(sample, validation), "validation": validation, "test": test}

    def _chance(self, purpose: str) -> Callable[[Pair], int]:
        """A number for each prompt that nothing but seed and purpose decides: the order of a draw."""
        return lambda pair: address(self.seed, purpose, pair.key)

    def _taken(self, splits: Mapping[str, Sequence[Pair]]) -> dict[str, int]:
        asked = {"train": self.train_rows, "validation": self.validation_rows, "test": self.test_rows}
        taken: dict[str, int] = {}
        for split, pairs in splits.items():
            taken |= {f"{split} rows": len(pairs), f"{split} rows asked for": asked[split] or len(pairs)}
        in_bins = Counter(score_bin(pair) for pair in splits["train"])
        of_kinds = Counter(kind(pair.prompt) for pair in splits["test"])
        return (
            taken
            | {f"train rows of score {name}": in_bins[name] for name in BINS}
            | {f"test rows of kind {name}": of_kinds[name] for name in KINDS}
        )


def score_bin(pair: Pair) -> str:
    """The bin of its score_chosen."""
    return BINS[bisect_right(EDGES, pair.score)]


def _without(pairs: Sequence[Pair], others: Sequence[Pair]) -> list[Pair]:
    keys = {pair.key for pair in others}
    return [pair for pair in pairs if pair.key not in keys]
