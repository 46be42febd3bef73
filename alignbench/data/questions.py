"""What datasets from a file or the hub share: three splits without a common row."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignbench.core.batches import Row
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count
from alignbench.core.protocols import Dataset
from alignbench.data.source import Record, files, hub_splits, read, read_apart, read_hub
from alignbench.data.splits import SPLITS, carve, check_disjoint

QUESTION = "{question}"


@dataclass(frozen=True, kw_only=True)
class Questions(Dataset):
    """Questions to answer. A dataset brings how a question, and all else of a row, is read from a record.

    Validation is carved out of the training rows by a hash of the question. The test rows are the hub's, those of
    `test_path`, the test*.* files when `path` is a folder, or else carved out too. A question that stands in two of
    the three is an error.
    """

    name: str | None = None
    """The hub name, used when `path` is null."""
    config: str | None = None
    """Which configuration of the hub dataset."""
    path: str | None = None
    """A local file (json, jsonl, .gz of these, parquet), or a folder with train*.* and test*.* files, not the hub."""
    test_path: str | None = None
    """A local file with the test rows."""
    template: str = QUESTION
    """The prompt; {question} stands for the question."""
    train_rows: Count | None = None
    """How many training rows are used, the first ones; null takes all."""
    validation_rows: Count = 256
    """How many rows are set aside for measuring during training."""
    test_rows: Count | None = None
    """How many test rows are used; null takes all, or as many as `validation_rows` when they are carved out."""

    def __post_init__(self) -> None:
        if QUESTION not in self.template:
            raise UserError(f"data.template={self.template!r} has no {QUESTION}: every prompt would be the same")
        if self.test_path is not None and self.path is None:
            raise UserError("data.test_path is set without data.path: give the training file as data.path too")

    def demonstrations(self) -> Sequence[Row]:
        """Rows to imitate: those of prompts("train")."""
        return self._splits["train"]

    def prompts(self, split: str) -> Sequence[Row]:
        """Rows of train, validation or test: id, prompt, and what else the dataset reads. UserError for others."""
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return self._splits[split]

    def notes(self) -> Mapping[str, int]:
        """How many rows were left out, by why."""
        return dict(self._read[2])

    @abstractmethod
    def _question(self, record: Record) -> str:
        """What is asked, and what a row is known by."""

    @abstractmethod
    def _columns(self, record: Record) -> dict[str, Any]:
        """All of a row but its id and its prompt."""

    def _flaw(self, record: Record) -> str | None:
        """Why a record is left out; None keeps it."""
        return None

    @cached_property
    def _splits(self) -> dict[str, tuple[Row, ...]]:
        splits = {
            name: tuple(self._row(f"{name}-{i}", record) for i, record in enumerate(records))
            for name, records in self._records.items()
        }
        check_disjoint(**splits)
        return splits

    def _row(self, name: str, record: Record) -> Row:
        prompt = self.template.replace(QUESTION, self._question(record).strip())
        return {"id": name, "prompt": prompt, **self._columns(record)}

    @cached_property
    def _records(self) -> dict[str, list[Record]]:
        """The records of every split."""
        train, test, _ = self._read
        if test is None:
            train, test = carve(train, self.test_rows or self.validation_rows, "test", self._question)
        train, validation = carve(train, self.validation_rows, "validation", self._question)
        if not train:
            raise UserError(
                f"no row is left to train on: {len(validation)} went to validation and {len(test)} to test; "
                "lower data.validation_rows or data.test_rows, or give a larger file"
            )
        return {"train": train[: self.train_rows], "validation": validation, "test": test[: self.test_rows]}

    @cached_property
    def _read(self) -> tuple[list[Record], list[Record] | None, Counter[str]]:
        """(training records, test records, how many were left out by why): None for test records to be carved out."""
        flaws = Counter[str]()
        train, test = self._load()
        return self._flawless(train, flaws), None if test is None else self._flawless(test, flaws), flaws

    def _flawless(self, records: Sequence[Record], flaws: Counter[str]) -> list[Record]:
        found = [(record, self._flaw(record)) for record in records]
        flaws.update(flaw for _, flaw in found if flaw is not None)
        return [record for record, flaw in found if flaw is None]

    def _load(self) -> tuple[list[Record], list[Record] | None]:
        if self.path is None:
            return self._load_hub()
        if self.test_path is not None:
            return read(files(self.path)), read(files(self.test_path))
        return read_apart(files(self.path))

    def _load_hub(self) -> tuple[list[Record], list[Record] | None]:
        if self.name is None:
            raise UserError("there is no data: set data.path=<file or folder>, or data.name=<name on the hub>")
        has_test = "test" in hub_splits(self.name, self.config)
        train = read_hub(self.name, self.config, "train")
        return train, read_hub(self.name, self.config, "test") if has_test else None
