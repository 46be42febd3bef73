"""Logs to a tracker the records of one run folder that the tracker does not have yet, each point once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from alignbench.store.jsonl import FileReplaced, Tail
from alignbench.store.run_logger import RECORD_FILES
from alignbench.store.tracking_info import TrackingInfo, read_info, write_info

FOLLOWER_LOCK = ".tracking.lock"
"""Held in the run folder by the process that logs it: two at a time would log points twice."""
LOCK_SECONDS = 60.0
"""How long to wait for a process that logs the same run folder."""


class TrackerBackend(Protocol):
    """One run of a tracking service. The methods raise whatever the client of the service raises."""

    def open(self, info: TrackingInfo, run_dir: Path) -> None:
        """Find the tracker's run of this folder, or create it, and read which points it has."""

    def log(self, records: Sequence[dict[str, Any]]) -> None:
        """Log metrics, files and datasets; skip the points that the run had when it was opened."""

    def end(self, status: str) -> None:
        """Set the final status: FINISHED, FAILED or KILLED."""


class RunFollower:
    """Follows the record files of a run folder. After an error, `close` it; it may be used again."""

    def __init__(self, run_dir: Path, backend: Callable[[], TrackerBackend]) -> None:
        self.run_dir, self.retry_at = run_dir, 0.0
        self._make_backend, self._lock = backend, FileLock(run_dir / FOLLOWER_LOCK)
        self._backend: TrackerBackend | None = None

    def update(self) -> TrackerBackend:
        """Log what was written since the last call. Raises what the backend raises, and filelock.Timeout."""
        backend = self._backend or self._open()
        try:
            records = self._read()
        except FileReplaced:  # a resumed run cuts metrics.jsonl
            backend = self._open()
            records = self._read()
        if records:
            backend.log(records)
        return backend

    def end(self, status: str) -> None:
        """Log what is left and the final status, note in tracking.json that the tracker has everything, and close."""
        try:
            self.update().end(status)
            write_info(self.run_dir, replace(read_info(self.run_dir), status=status, logged=True))
        finally:
            self.close()

    def close(self) -> None:
        """Forget the connection, and let another process log this folder."""
        self._backend = None
        self._lock.release()

    def _open(self) -> TrackerBackend:
        if not self._lock.is_locked:
            self._lock.acquire(timeout=LOCK_SECONDS)
        backend = self._make_backend()
        backend.open(read_info(self.run_dir), self.run_dir)
        self._backend, self._tails = backend, [Tail(self.run_dir / name) for name in RECORD_FILES]
        return backend

    def _read(self) -> list[dict[str, Any]]:
        return [record for tail in self._tails for record in tail.read()]
