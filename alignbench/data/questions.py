"""Base class of datasets read from a file or the hub: disjoint train, validation and test splits."""

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
from alignbench.data.source import Record, find_files, list_hub_splits, read_files, read_hub, read_train_and_test
from alignbench.data.splits import SPLITS, check_disjoint, split_off

QUESTION = "{question}"


@dataclass(frozen=True, kw_only=True)
class Questions(Dataset):
    """Questions of a file or hub dataset. A subclass defines how the question and the other columns are read.

    Validation rows are split off the training rows by a hash of the question. Test rows are the test split of the hub,
    those of `test_path`, or the test*.* files when `path` is a folder; otherwise they are split off too. A question in
    more than one split is an error.
    """

    name: str | None = None
    """The hub name, used when `path` is null."""
    config: str | None = None
    """Configuration of the hub dataset."""
    path: str | None = None
    """Local file (json, jsonl, either with .gz, parquet) or folder with train*.* and test*.* files."""
    test_path: str | None = None
    """Local file with the test rows."""
    template: str = QUESTION
    """The prompt; {question} is replaced by the question."""
    train_rows: Count | None = None
    """Number of training rows, the first ones; null uses all."""
    validation_rows: Count = 256
    """Number of rows for evaluation during training."""
    test_rows: Count | None = None
    """Number of test rows; null uses all, or as many as `validation_rows` when they are split off."""

    def __post_init__(self) -> None:
        if QUESTION not in self.template:
            raise UserError(f"data.template={self.template!r} has no {QUESTION}: every prompt would be equal")
        if self.test_path is not None and self.path is None:
            raise UserError("data.test_path is set without data.path: give the training file as data.path too")

    def demonstrations(self) -> Sequence[Row]:
        """The rows of prompts("train")."""
        return self._splits["train"]

    def prompts(self, split: str) -> Sequence[Row]:
        """Rows of train, validation or test: id, prompt and the columns of the dataset. UserError for another split."""
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return self._splits[split]

    def notes(self) -> Mapping[str, int]:
        """Number of dropped rows by reason."""
        return dict(self._read[2])

    @abstractmethod
    def _question(self, record: Record) -> str:
        """The question, which also identifies the row."""

    @abstractmethod
    def _columns(self, record: Record) -> dict[str, Any]:
        """All columns of a row except id and prompt."""

    def _flaw(self, record: Record) -> str | None:
        """The reason why a record is dropped; None keeps it."""
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
            train, test = split_off(train, self.test_rows or self.validation_rows, "test", self._question)
        train, validation = split_off(train, self.validation_rows, "validation", self._question)
        if not train:
            raise UserError(
                f"no training rows are left: {len(validation)} are validation rows and {len(test)} are test rows; "
                "lower data.validation_rows or data.test_rows, or give a larger file"
            )
        return {"train": train[: self.train_rows], "validation": validation, "test": test[: self.test_rows]}

    @cached_property
    def _read(self) -> tuple[list[Record], list[Record] | None, Counter[str]]:
        """(training records, test records, dropped by reason); test records are None where they must be split off."""
        flaws = Counter[str]()
        train, test = self._load()
        return self._without_flaws(train, flaws), None if test is None else self._without_flaws(test, flaws), flaws

    def _without_flaws(self, records: Sequence[Record], flaws: Counter[str]) -> list[Record]:
        found = [(record, self._flaw(record)) for record in records]
        flaws.update(flaw for _, flaw in found if flaw is not None)
        return [record for record, flaw in found if flaw is None]

    def _load(self) -> tuple[list[Record], list[Record] | None]:
        if self.path is None:
            return self._load_hub()
        if self.test_path is not None:
            return read_files(find_files(self.path)), read_files(find_files(self.test_path))
        return read_train_and_test(find_files(self.path))

    def _load_hub(self) -> tuple[list[Record], list[Record] | None]:
        if self.name is None:
            raise UserError("no data source: set data.path=<file or folder>, or data.name=<name on the hub>")
        has_test = "test" in list_hub_splits(self.name, self.config)
        train = read_hub(self.name, self.config, "train")
        return train, read_hub(self.name, self.config, "test") if has_test else None
