"""Grade-school word problems (Cobbe et al. 2021), from the hub or a local file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from alignbench.core.batches import Row
from alignbench.core.errors import UserError
from alignbench.core.knobs import Count
from alignbench.data.source import Record, files, read, read_hub
from alignbench.data.splits import SPLITS, carve, check_disjoint

CALCULATOR = re.compile(r"<<[^<>]*>>")
MARK = "####"


@dataclass(frozen=True, kw_only=True)
class GSM8K:
    """GSM8K, or any file with its two columns: `question`, and `answer` ending in "#### <number>".

    Validation is carved out of the training rows by a hash of the question. The test rows are the hub's, those of
    `test_path`, the test*.* files when `path` is a folder, or else carved out too. A question that stands in two of
    the three is an error.
    """

    name: str = "openai/gsm8k"
    """The hub name, used when `path` is null."""
    config: str | None = "main"
    """Which configuration of the hub dataset."""
    path: str | None = None
    """A local file (json, jsonl, .gz of these, parquet), or a folder with train*.* and test*.* files, not the hub."""
    test_path: str | None = None
    """A local file with the test rows."""
    template: str = "Question: {question}\nAnswer:\n"
    """The prompt; {question} stands for the question."""
    strip_calculator: bool = True
    """Whether calculator marks such as <<48/2=24>> are taken out of the answers to imitate."""
    train_rows: Count | None = None
    """How many training rows are used, the first ones; null takes all."""
    validation_rows: Count = 256
    """How many rows are set aside for measuring during training."""
    test_rows: Count | None = None
    """How many test rows are used; null takes all, or as many as `validation_rows` when they are carved out."""

    def __post_init__(self) -> None:
        if "{question}" not in self.template:
            raise UserError(f"data.template={self.template!r} has no {{question}}: every prompt would be the same")
        if self.test_path is not None and self.path is None:
            raise UserError("data.test_path is set without data.path: give the training file as data.path too")

    def demonstrations(self) -> Sequence[Row]:
        """Rows id, prompt, completion (the written solution), reference: those of prompts("train")."""
        return self._splits["train"]

    def comparisons(self, split: str) -> Sequence[Row]:
        """There are none: raises UserError."""
        raise UserError("data=gsm8k has no comparisons to prefer by; choose a dataset with chosen and rejected")

    def prompts(self, split: str) -> Sequence[Row]:
        """Rows id, prompt, completion, reference of train, validation or test. Raises UserError for another split."""
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return self._splits[split]

    def quality(self, row: Row, answer: str) -> float | None:
        """Nobody knows more than whether the number is right: None."""
        return None

    def notes(self) -> Mapping[str, int]:
        """Nothing is left out."""
        return {}

    @cached_property
    def _splits(self) -> dict[str, tuple[Row, ...]]:
        train, test = self._load()
        if test is None:
            train, test = carve(train, self.test_rows or self.validation_rows, "test", _question)
        train, validation = carve(train, self.validation_rows, "validation", _question)
        if not train:
            raise UserError(
                f"no row is left to train on: {len(validation)} went to validation and {len(test)} to test; "
                "lower data.validation_rows or data.test_rows, or give a larger file"
            )
        chosen = {"train": train[: self.train_rows], "validation": validation, "test": test[: self.test_rows]}
        splits = {name: self._rows(name, records) for name, records in chosen.items()}
        check_disjoint(**splits)
        return splits

    def _load(self) -> tuple[list[Record], list[Record] | None]:
        """(training records, test records): None where there is no test file."""
        if self.path is None:
            return read_hub(self.name, self.config, "train"), read_hub(self.name, self.config, "test")
        found = files(self.path)
        if self.test_path is not None:
            return read(found), read(files(self.test_path))
        train = [file for file in found if file.name.startswith("train")]
        test = [file for file in found if file.name.startswith("test")]
        if not train or not test:
            return read(found), None
        if others := [file.name for file in found if file not in train + test]:
            raise UserError(f"data.path={self.path}: is {', '.join(others)} train or test? Rename it, or move it away")
        return read(train), read(test)

    def _rows(self, split: str, records: Sequence[Record]) -> tuple[Row, ...]:
        return tuple(self._row(f"{split}-{i}", record) for i, record in enumerate(records))

    def _row(self, name: str, record: Record) -> Row:
        answer = record.text("answer")
        _, mark, gold = answer.rpartition(MARK)
        if not mark or not gold.strip():
            raise UserError(f"{record.where}: column 'answer' does not end in '#### <number>': ...{answer[-60:]!r}")
        return {
            "id": name,
            "prompt": self.template.replace("{question}", record.text("question").strip()),
            "completion": CALCULATOR.sub("", answer) if self.strip_calculator else answer,
            "reference": gold.strip(),
        }


def _question(record: Record) -> str:
    return record.text("question")
