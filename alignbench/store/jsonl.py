"""One line of JSON for each thing that happened, on disk before anyone else hears of it."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignbench.store.disk import explain_disk_errors, make_folder, sha256, write_atomically

logger = logging.getLogger(__name__)

Prefix = dict[str, Any]
"""How much was written at a time: {"bytes": ..., "sha256": ...}."""


class JsonLines:
    """A file of JSON lines that is only ever added to; a line that a crash cut short or damaged is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        make_folder(self.path.parent)
        self._repair()
        with explain_disk_errors(self.path.parent):
            self._file = self.path.open("a", encoding="utf-8")

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line, handed to the operating system before this returns."""
        with explain_disk_errors(self.path.parent):
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()

    def prefix(self) -> Prefix:
        """How much is written, which stands on the disk when this returns: a checkpoint remembers its past by it."""
        self._fsync()
        return {"bytes": self.path.stat().st_size, "sha256": sha256(self.path)}

    def cut(self, phase: str, step: int) -> None:
        """Forget all that was written after the record of `phase` at `step`, of this phase and of those that follow."""
        kept = []
        for record in read(self.path):
            if record["phase"] == phase and record["step"] > step:
                break
            kept.append(record)
            if record["phase"] == phase and record["step"] == step:
                break
        self._file.close()
        write_atomically(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = self.path.open("a", encoding="utf-8")

    def close(self) -> None:
        """No more lines will come, and those that came stand on the disk."""
        self._fsync()
        self._file.close()

    def _fsync(self) -> None:
        with explain_disk_errors(self.path.parent):
            os.fsync(self._file.fileno())

    def _repair(self) -> None:
        if not self.path.exists():
            return
        lines = self.path.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if _is_whole(line)]
        if whole != lines:
            logger.warning("%s: damaged lines are dropped (%d)", self.path, len(lines) - len(whole))
            write_atomically(self.path, b"".join(whole).decode())


def has_prefix(path: Path, prefix: Prefix | None) -> bool:
    """Whether a file still begins with that prefix, byte for byte."""
    if prefix is None or not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.sha256(file.read(prefix["bytes"])).hexdigest() == prefix["sha256"]


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal, in the order they were written; a line without an end is not one yet."""
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.endswith("\n"))


def encode_metrics(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Metrics as valid JSON: `{"metrics": ...}`, where a NaN or an infinity is null.

    Example: `encode_metrics({"loss": nan})` is `{"metrics": {"loss": None}, "not_finite": {"loss": "nan"}}`. The key
    "not_finite" is left out when all values are finite.
    """
    numbers = {name: float(value) for name, value in metrics.items()}
    odd = {name: str(value) for name, value in numbers.items() if not math.isfinite(value)}
    written = {name: None if name in odd else value for name, value in numbers.items()}
    return {"metrics": written, "not_finite": odd} if odd else {"metrics": written}


def decode_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a record as they were measured, NaN and infinities again in their places."""
    return {**record["metrics"], **{name: float(text) for name, text in record.get("not_finite", {}).items()}}


def _is_whole(line: bytes) -> bool:
    """Whether it is a JSON object and ends as a line does."""
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
