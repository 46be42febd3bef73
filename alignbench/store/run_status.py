"""Writes status.json and run.log of a run: running, then finished, failed or interrupted, and why."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from alignbench.core.errors import UserError
from alignbench.store.disk import is_held, make_folder, write_atomically

STATUS, LOG, LOCK = "status.json", "run.log", ".lock"
logger = logging.getLogger(__name__)


class RunStatus:
    """The status of a run, kept in its folder; used in a `with` statement around the run."""

    def __init__(self, folder: Path, who: Mapping[str, Any], determinism: str) -> None:
        """`who` identifies the run: key, study, method, model, seed. Raises UserError if the folder is not writable."""
        self.folder = make_folder(folder)
        before = _read(self.folder / STATUS)
        self._status: dict[str, Any] = {
            "status": "running",
            **who,
            "started": before.get("started") or now(),
            "finished": None,
            "reason": None,
            "resumed": before.get("resumed", 0),
            "determinism": determinism,
        }

    def __enter__(self) -> Self:
        self._acquire_lock()
        file, screen = logging.FileHandler(self.folder / LOG, encoding="utf-8"), logging.StreamHandler()
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        screen.setFormatter(logging.Formatter("warning: %(message)s"))
        screen.addFilter(lambda record: record.levelno == logging.WARNING)  # errors are reported by the command
        self._handlers = (file, screen)
        package = logging.getLogger("alignbench")
        for handler in self._handlers:
            package.addHandler(handler)
        package.setLevel(logging.INFO)
        self._write()
        return self

    def resumed(self) -> None:
        """Count that the run was resumed."""
        self._status["resumed"] += 1
        self._write()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        ending = "finished" if kind is None else "failed" if issubclass(kind, Exception) else "interrupted"
        reason = None if error is None else " ".join(str(error).split()) or type(error).__name__
        if error is not None:
            logger.error("the run stopped", exc_info=error)
        self._status |= {"status": ending, "finished": now(), "reason": reason}
        self._write()
        for handler in self._handlers:
            logging.getLogger("alignbench").removeHandler(handler)
            handler.close()
        self._lock.release()

    def _acquire_lock(self) -> None:
        """Keep other processes from writing into the folder. Raises UserError when one already does."""
        self._lock = FileLock(self.folder / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(f"{self.folder} is in use by another process: wait for it, or stop it first") from error

    def _write(self) -> None:
        write_atomically(self.folder / STATUS, json.dumps(self._status, indent=2))


def is_finished(folder: Path, key: str) -> bool:
    """Whether the run with this key finished in this folder."""
    status = _read(folder / STATUS)
    return status.get("status") == "finished" and status.get("key") == key


def in_use(folder: Path) -> bool:
    """Whether a process on this machine runs the run of this folder now."""
    return is_held(folder / LOCK)


def reap(folder: Path) -> bool:
    """Mark a run that is "running" although its process died as interrupted. Returns whether it was one."""
    status = _read(folder / STATUS)
    if status.get("status") != "running" or in_use(folder):
        return False
    reason = "the process ended without setting a status: it was killed, or the machine went down"
    write_atomically(folder / STATUS, json.dumps({**status, "status": "interrupted", "reason": reason}, indent=2))
    return True


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read(path: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return status
