"""Writes the metrics, tables, histograms and artifact names of a run as files in its folder."""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignbench.store.disk import make_folder, write_atomically
from alignbench.store.histogram import histogram_svg
from alignbench.store.jsonl import JsonLines, Prefix, encode_metrics, has_prefix

METRICS, ARTIFACTS = "metrics.jsonl", "artifacts.jsonl"
RECORD_FILES = (METRICS, ARTIFACTS, "keepsakes.jsonl")
"""All files with records; the last name is what earlier versions called artifacts.jsonl."""


class RunLogger:
    """Appends metrics to `metrics.jsonl`, and the names of other files and of datasets to `artifacts.jsonl`."""

    seconds: float
    """Time spent writing so far."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.seconds = 0.0
        self._metrics = JsonLines(run_dir / METRICS)
        self._artifacts = JsonLines(run_dir / ARTIFACTS)

    def record(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a step. NaN and infinities are null in the file and named in "not_finite"."""
        with self._timed():
            now = round(time.time(), 3)
            self._metrics.append({"phase": phase, "step": step, "time": now, **encode_metrics(metrics)})

    def records_prefix(self) -> Prefix:
        """Length and hash of metrics.jsonl, synced to disk: a checkpoint stores them."""
        with self._timed():
            return self._metrics.prefix()

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Have a file copied to the tracker, into `folder` there."""
        with self._timed():
            self._artifacts.append({"path": str(Path(path).resolve()), "folder": folder})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows to `tables/<name>.json`, in the layout of MLflow's tables; the first row names the columns."""
        columns = list(rows[0]) if rows else []
        data = [[_plain(row.get(column)) for column in columns] for row in rows]
        path = make_folder(self.run_dir / "tables") / f"{_file_name(name)}.json"
        write_atomically(path, json.dumps({"columns": columns, "data": data}), durable=False)
        self.artifact(path, "tables")

    def histogram(self, name: str, step: int, values: Sequence[float]) -> None:
        """Write a histogram of the values of a step to `histograms/<name>-<step>.svg`."""
        with self._timed():
            path = make_folder(self.run_dir / "histograms") / f"{_file_name(name)}-{step:06d}.svg"
            write_atomically(path, histogram_svg(f"{name}, step {step}", values), durable=False)
        self.artifact(path, "histograms")

    def dataset(self, name: str, sha256: str, context: str) -> None:
        """Name a dataset that the run used; `context` is train, validation or test."""
        with self._timed():
            self._artifacts.append({"dataset": name, "sha256": sha256, "context": context})

    def close(self, status: str = "FINISHED") -> None:
        """Sync the files to disk and close them."""
        self._metrics.close()
        self._artifacts.close()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


def start_over(run_dir: Path) -> None:
    """Prepare the folder for a new attempt; the metrics of an earlier one move to `metrics.previous.jsonl`."""
    earlier = run_dir / METRICS
    if earlier.exists():
        earlier.replace(run_dir / "metrics.previous.jsonl")
    for name in RECORD_FILES[1:]:
        (run_dir / name).unlink(missing_ok=True)


def has_records(run_dir: Path, prefix: Prefix | None) -> bool:
    """Whether metrics.jsonl still begins with that prefix, byte for byte."""
    return has_prefix(run_dir / METRICS, prefix)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.\-]", "_", name)
