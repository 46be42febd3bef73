"""Reads rows from local files or the hub; errors name the file and line."""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from alignbench.core.errors import UserError
from alignbench.core.hub import require_hub
from alignbench.core.json_text import JSONTextError, describe_utf8_error, parse_json

FORMATS = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
REMEDY = (
    "Give a local copy with data.path=<file or folder>, or fill the cache on a machine with network (HF_HOME), "
    "or set HF_TOKEN when access is restricted."
)


_NOT_LINES_HINT = "; a file with one JSON document over several lines must be named .json"


@dataclass(frozen=True)
class Record:
    """One row of a source, unchanged."""

    where: str
    """File and line, or hub name, split and row, for messages."""
    columns: dict[str, Any]

    def __getitem__(self, column: str) -> Any:
        """The value of a column. Raises UserError with the place and the columns when it is missing or empty."""
        if self.columns.get(column) is None:
            problem = "is empty" if column in self.columns else "is missing"
            available = ", ".join(self.columns) or "none"
            raise UserError(f"{self.where}: column {column!r} {problem}; the columns are: {available}")
        return self.columns[column]

    def text(self, column: str) -> str:
        """The value of a column that must be a text and not blank. Raises UserError with the place otherwise."""
        value = self[column]
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{self.where}: column {column!r} must be a text that is not blank, found {value!r:.60}")
        return value

    def first(self, *names: str) -> str:
        """The first of these columns that has a value; `names[0]` when none has."""
        return next((name for name in names if self.columns.get(name) is not None), names[0])


def find_files(path: str) -> list[Path]:
    """The data file at `path`, or the data files directly in that folder, sorted by name."""
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(f"data path {path}: no such file or folder (looked from {Path.cwd()})")
    if place.is_dir():
        found = sorted(file for file in place.iterdir() if file.name.endswith(FORMATS))
        if not found:
            raise UserError(f"data path {path}: no data file in this folder; supported are {', '.join(FORMATS)}")
        return found
    if not place.name.endswith(FORMATS):
        raise UserError(f"data path {path}: unsupported file format; supported are {', '.join(FORMATS)}")
    return [place]


def read_files(paths: Sequence[Path]) -> list[Record]:
    """All rows of these files. Raises UserError with file and line for malformed content, or when there are no rows."""
    records = [record for path in paths for record in _read_file(path)]
    if not records:
        raise UserError(f"no rows in {', '.join(str(path) for path in paths)}: the dataset is empty")
    return records


def read_train_and_test(
    paths: Sequence[Path], test: tuple[str, ...] = ("test",)
) -> tuple[list[Record], list[Record] | None]:
    """(training rows, test rows) by the prefixes of the file names; (all rows, None) unless both prefixes occur.

    Raises UserError when both occur and another file has neither prefix.
    """
    training = [path for path in paths if path.name.startswith("train")]
    held_out = [path for path in paths if path.name.startswith(test)]
    if not training or not held_out:
        return read_files(paths), None
    if others := [path.name for path in paths if path not in training + held_out]:
        place = paths[0].parent
        raise UserError(
            f"data.path={place}: {', '.join(others)} starts with neither train nor test: rename it, "
            "or move it to another folder"
        )
    return read_files(training), read_files(held_out)


def read_hub(name: str, config: str | None, split: str) -> list[Record]:
    """All rows of one split of a hub dataset. Raises UserError within 5 seconds when the hub is not reachable."""
    splits = _load_hub(name, config)
    if split not in splits:
        raise UserError(f"the dataset {name!r} has no split {split!r}; its splits are {', '.join(splits)}\n{REMEDY}")
    records = [Record(f"{name} {split} row {i}", dict(row)) for i, row in enumerate(splits[split])]
    if not records:
        raise UserError(f"no rows in split {split!r} of {name!r}: the dataset is empty")
    return records


def list_hub_splits(name: str, config: str | None) -> list[str]:
    """The names of the splits of a hub dataset. Raises UserError as `read_hub` does."""
    return list(_load_hub(name, config))


@lru_cache(maxsize=1)
def _load_hub(name: str, config: str | None) -> Mapping[str, Any]:
    require_hub(name, "dataset", REMEDY)
    import datasets

    try:
        splits: Mapping[str, Any] = datasets.load_dataset(name, config)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(f"cannot load the dataset {name!r}: {error}\n{REMEDY}") from error
    return splits


def _read_file(path: Path) -> Iterator[Record]:
    if path.name.endswith(".parquet"):
        yield from _read_parquet(path)
        return
    lines = path.name.removesuffix(".gz").endswith(".jsonl")
    try:
        with _open(path) as file:
            yield from _read_lines(path, file) if lines else _read_json(path, file)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, {_describe_encoding(path)}: not UTF-8 text; save the file as UTF-8") from error
    except (EOFError, OSError) as error:  # a damaged .gz file, or no permission
        raise UserError(f"{path}: cannot be read: {error}") from error


def _describe_encoding(path: Path) -> str:
    """Line and byte of the first bytes that are not UTF-8; a text stream reports a position within its buffer."""
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
        return describe_utf8_error(file.read())


def _open(path: Path) -> TextIOWrapper:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _read_lines(path: Path, file: TextIOWrapper) -> Iterator[Record]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except JSONTextError as error:
            hint = _NOT_LINES_HINT if number == 1 and line.strip() in ("[", "{") else ""
            raise UserError(f"{path}, line {number}: not JSON: {error.reason}{error.position}{hint}") from error
        yield _record(f"{path}, line {number}", row)


def _read_json(path: Path, file: TextIOWrapper) -> Iterator[Record]:
    try:
        rows = parse_json(file.read())
    except JSONTextError as error:
        hint = "; a file with one object per line must be named .jsonl" if error.reason == "Extra data" else ""
        raise UserError(f"{path}, line {error.line}: not JSON: {error.reason}{error.position}{hint}") from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of objects, found {type(rows).__name__}")
    for number, row in enumerate(rows):
        yield _record(f"{path}, item {number}", row)


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file: {error}") from error
    for number, row in enumerate(rows):
        yield _record(f"{path}, row {number}", row)


def _record(where: str, row: Any) -> Record:
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with named columns, found {type(row).__name__}")
    return Record(where, row)
