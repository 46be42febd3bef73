"""JSON lines files: append records durably, cut them on resume, follow them, and encode NaN and Inf."""

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
"""The beginning of a file up to some moment: {"bytes": its length, "sha256": its hash}."""


class JsonLines:
    """An append-only file of JSON lines. Opening it drops lines that a crash cut short or damaged."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        make_folder(self.path.parent)
        self._repair()
        with explain_disk_errors(self.path.parent):
            self._file = self.path.open("a", encoding="utf-8")

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line; the operating system has it when this returns."""
        with explain_disk_errors(self.path.parent):
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()

    def prefix(self) -> Prefix:
        """Length and hash of the file, synced to disk: a checkpoint stores them to recognize its records."""
        self._fsync()
        return {"bytes": self.path.stat().st_size, "sha256": sha256(self.path)}

    def cut(self, phase: str, step: int) -> None:
        """Remove all records after that of `phase` at `step`, including those of later stages."""
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
        """Sync the file to disk and close it."""
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


class FileReplaced(Exception):
    """The file is no longer the one that was read before: it was replaced or cut."""


class Tail:
    """Reads what is appended to a file of JSON lines that another process writes; the file may not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path, self._inode, self._offset = path, 0, 0

    def read(self) -> list[dict[str, Any]]:
        """The records since the last call. Raises FileReplaced, and ValueError for a line that is not JSON."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            stat = os.fstat(file.fileno())
            if self._inode not in (0, stat.st_ino) or stat.st_size < self._offset:
                raise FileReplaced(self._path)
            file.seek(self._offset)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        records = [json.loads(line) for line in complete.splitlines()]
        self._inode, self._offset = stat.st_ino, self._offset + len(complete)
        return records


def has_prefix(path: Path, prefix: Prefix | None) -> bool:
    """Whether a file still begins with that prefix, byte for byte."""
    if prefix is None or not path.exists():
        return False
    with path.open("rb") as file:
        return bool(hashlib.sha256(file.read(prefix["bytes"])).hexdigest() == prefix["sha256"])


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, in the order they were written; an incomplete last line is left out."""
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
    """The metrics of a record, with NaN and infinities restored."""
    return {**record["metrics"], **{name: float(text) for name, text in record.get("not_finite", {}).items()}}


def _is_whole(line: bytes) -> bool:
    """Whether a line is a JSON object with a newline at its end."""
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
