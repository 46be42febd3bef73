"""What a run writes into its own folder, whether anyone listens or not: numbers, samples, pictures."""

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
from alignbench.store.jsonl import JsonLines, Prefix, encode_metrics, has_prefix, read

METRICS, KEEPSAKES = "metrics.jsonl", "keepsakes.jsonl"


class RunLogger:
    """A run's numbers in `metrics.jsonl`, its other files named in `keepsakes.jsonl`, each written at once."""

    seconds: float
    """Time spent in `record`, `artifact` and the like so far."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.seconds = 0.0
        self._metrics = JsonLines(run_dir / METRICS)
        self._keepsakes = JsonLines(run_dir / KEEPSAKES)

    def record(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        """Write down the numbers of a step. A NaN or an infinity is null in the file, and named in "not_finite"."""
        with self._timed():
            now = round(time.time(), 3)
            self._write(self._metrics, {"phase": phase, "step": step, "time": now, **encode_metrics(metrics)})

    def records_prefix(self) -> Prefix:
        """The numbers so far, for a checkpoint to remember; they stand on the disk when this returns."""
        with self._timed():
            return self._metrics.prefix()

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file that stands on disk to the MLflow run, into `folder` there."""
        with self._timed():
            self._write(self._keepsakes, {"path": str(Path(path).resolve()), "folder": folder})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows to `tables/<name>.json`, laid out as MLflow shows tables; the first row names the columns."""
        columns = list(rows[0]) if rows else []
        data = [[_plain(row.get(column)) for column in columns] for row in rows]
        path = make_folder(self.run_dir / "tables") / f"{_file_name(name)}.json"
        write_atomically(path, json.dumps({"columns": columns, "data": data}), durable=False)
        self.artifact(path, "tables")

    def histogram(self, name: str, step: int, values: Sequence[float]) -> None:
        """Draw the values of a step to `histograms/<name>-<step>.svg`."""
        with self._timed():
            path = make_folder(self.run_dir / "histograms") / f"{_file_name(name)}-{step:06d}.svg"
            write_atomically(path, histogram_svg(f"{name}, step {step}", values), durable=False)
        self.artifact(path, "histograms")

    def dataset(self, name: str, sha256: str, context: str) -> None:
        """Name data that the run used, and what for: `context` is train, validation or test."""
        with self._timed():
            self._write(self._keepsakes, {"dataset": name, "sha256": sha256, "context": context})

    def close(self, status: str = "FINISHED") -> None:
        """No more records will come."""
        self._metrics.close()
        self._keepsakes.close()

    def _write(self, journal: JsonLines, item: dict[str, Any]) -> None:
        journal.append(item)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


def start_over(run_dir: Path) -> None:
    """Make room for a run that begins again: an earlier attempt's numbers are kept in `metrics.previous.jsonl`."""
    earlier = run_dir / METRICS
    if earlier.exists():
        earlier.replace(run_dir / "metrics.previous.jsonl")
    (run_dir / KEEPSAKES).unlink(missing_ok=True)


def has_records(run_dir: Path, prefix: Prefix | None) -> bool:
    """Whether metrics.jsonl still begins with that prefix, byte for byte."""
    return has_prefix(run_dir / METRICS, prefix)


def read_records(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Everything that a run wrote down, numbers first."""
    yield from read(run_dir / METRICS)
    yield from read(run_dir / KEEPSAKES)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.\-]", "_", name)
