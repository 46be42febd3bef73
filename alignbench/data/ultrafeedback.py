"""UltraFeedback preference pairs with scores (Cui et al. 2023), from the hub or a local file."""

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
from alignbench.data.preference_pairs import Pair, select_pairs
from alignbench.data.prompt_kinds import KINDS, classify_prompt
from alignbench.data.source import Record, find_files, read_hub, read_train_and_test
from alignbench.data.splits import SPLITS, check_disjoint
from alignbench.data.stratify import equal_quotas, fit_sizes, proportional_quotas, stratified_sample

EDGES = (3, 5, 7, 9)
BINS = ("0-3", "3-5", "5-7", "7-9", "9-10")
"""The bins of score_chosen: the lower edge belongs to a bin, the upper one to the next; 10 to the last."""
LEAKED = "dropped: prompt is in the test file"


@dataclass(frozen=True, kw_only=True)
class UltraFeedback(Dataset):
    """Binarised UltraFeedback, or any file with the columns prompt, chosen, rejected, score_chosen, score_rejected.

    The scores may be nested in `metadata`. Invalid pairs are dropped and counted, see notes(). Test pairs come from the
    test split of the hub, from the test*.* or eval*.* files when `path` is a folder, otherwise from the one file; they
    are sampled in equal numbers from each kind of prompt, with shortfalls filled from the other kinds. Training and
    validation pairs are sampled in proportion to the bins of score_chosen. Sampling uses a hash of seed and prompt and
    does not depend on the order of the rows. No prompt is in two splits. With fewer pairs than configured, every split
    is scaled down in proportion.
    """

    name: str = "HuggingFaceH4/ultrafeedback_binarized"
    """The hub name, used when `path` is null; its splits must be train_prefs and test_prefs."""
    path: str | None = None
    """Local file (json, jsonl, either with .gz, parquet) or folder with train*.* and test*.* or eval*.* files."""
    seed: Size = 42
    """Seed of the sampled pairs; independent of the seed of a run."""
    train_rows: Count | None = 9_500
    """Number of training pairs; null uses all that the other splits leave."""
    validation_rows: Count = 500
    """Number of pairs for evaluation during training."""
    test_rows: Count = 300
    """Number of pairs for the final evaluation: a third each factual, instruction and creative."""

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
            {
                "id": name,
                "prompt": p.prompt,
                "completion": p.chosen,
                "score": p.score,
                "stratum": classify_prompt(p.prompt),
            }
            for name, p in self._named(split)
        )

    def notes(self) -> Mapping[str, int]:
        """Row counts: read, dropped by reason, configured and used in each split, by score bin, by kind of prompt."""
        return self._cut[1]

    def _named(self, split: str) -> list[tuple[str, Pair]]:
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return [(f"{split}-{i}", pair) for i, pair in enumerate(self._cut[0][split])]

    @cached_property
    def _cut(self) -> tuple[dict[str, list[Pair]], dict[str, int]]:
        """The pairs of every split, and the notes."""
        train_records, test_records = self._load()
        pool, notes = select_pairs(train_records)
        held_out, test_notes = select_pairs(test_records)
        tested = {pair.key for pair in held_out}
        rest = [pair for pair in pool if pair.key not in tested]
        splits = self._sample_splits(rest, held_out if test_records else None)
        check_disjoint(**{name: [{"id": p.key, "prompt": p.prompt} for p in pairs] for name, pairs in splits.items()})
        notes.update(test_notes)
        dropped = {LEAKED: len(pool) - len(rest), **notes}
        return splits, {"rows read": len(train_records) + len(test_records), **dropped, **self._count_used(splits)}

    def _load(self) -> tuple[list[Record], list[Record]]:
        """(training records, test records); no test records where they must be split off."""
        if self.path is None:
            return read_hub(self.name, None, "train_prefs"), read_hub(self.name, None, "test_prefs")
        found = find_files(self.path)
        found = [file for file in found if "_prefs" in file.name] or found  # the hub's folder contains other tasks too
        train, test = read_train_and_test(found, test=("test", "eval"))
        return train, test or []

    def _sample_splits(self, pool: list[Pair], held_out: list[Pair] | None) -> dict[str, list[Pair]]:
        """The pairs of every split; test pairs come from `held_out`, or from the pool where it is None."""
        sizes = {"validation": self.validation_rows} | ({"test": self.test_rows} if held_out is None else {})
        all_left = max(1, len(pool) - sum(sizes.values()))
        sizes = fit_sizes({"train": self.train_rows or all_left, **sizes}, len(pool))
        sizes |= {} if held_out is None else fit_sizes({"test": self.test_rows}, len(held_out))
        if min(sizes.values()) < 1:
            raise UserError(
                f"{self.path or self.name} has {len(pool)} valid preference pairs for training"
                f"{'' if held_out is None else f', and {len(held_out)} for testing'}: not enough for "
                f"{', '.join(sizes)} in these proportions. Give a larger file, whose two answers differ in text and in "
                "score, or lower data.validation_rows and data.test_rows"
            )
        test = stratified_sample(
            pool if held_out is None else held_out,
            sizes["test"],
            equal_quotas,
            stratum=lambda pair: classify_prompt(pair.prompt),
            order=self._order("test"),
        )
        sample = stratified_sample(
            _without(pool, test),
            sizes["train"] + sizes["validation"],
            proportional_quotas,
            stratum=score_bin,
            order=self._order("sample"),
            priority=lambda pair: pair.margin,
        )
        validation = stratified_sample(
            sample, sizes["validation"], proportional_quotas, stratum=score_bin, order=self._order("validation")
        )
        return {"train": _without(sample, validation), "validation": validation, "test": test}

    def _order(self, purpose: str) -> Callable[[Pair], int]:
        """A pseudo-random sort key of each pair that depends only on the seed, `purpose` and the prompt."""
        return lambda pair: address(self.seed, purpose, pair.key)

    def _count_used(self, splits: Mapping[str, Sequence[Pair]]) -> dict[str, int]:
        configured = {"train": self.train_rows, "validation": self.validation_rows, "test": self.test_rows}
        counts: dict[str, int] = {}
        for split, pairs in splits.items():
            counts |= {f"{split} rows": len(pairs), f"{split} rows asked for": configured[split] or len(pairs)}
        in_bins = Counter(score_bin(pair) for pair in splits["train"])
        of_kinds = Counter(classify_prompt(pair.prompt) for pair in splits["test"])
        return (
            counts
            | {f"train rows of score {name}": in_bins[name] for name in BINS}
            | {f"test rows of kind {name}": of_kinds[name] for name in KINDS}
        )


def score_bin(pair: Pair) -> str:
    """The bin of the score of the chosen answer."""
    return BINS[bisect_right(EDGES, pair.score)]


def _without(pairs: Sequence[Pair], others: Sequence[Pair]) -> list[Pair]:
    keys = {pair.key for pair in others}
    return [pair for pair in pairs if pair.key not in keys]
