"""Save all, resume exactly, keep the newest few."""

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignbench.store.disk import explain_disk_errors, flush, make_folder, sha256
from alignbench.store.state_serialization import pack, unpack

logger = logging.getLogger(__name__)

NAME = re.compile(r"step-\d+\.[0-9a-f]{64}\.safetensors")

KEEP = 2
"""How many of a run's checkpoints are kept."""


class Checkpoints:
    """A run's checkpoints: one file each, whose name is its step and the sha256 of its bytes.

    A file appears under that name at once and whole, so that a run killed while saving resumes from the one before.
    """

    def __init__(self, folder: Path, keep: int = KEEP, warn: Callable[[str], None] = logger.warning) -> None:
        assert keep >= 1, "keep at least one checkpoint"
        self.folder = Path(folder)
        self.keep = keep
        self._warn = warn

    def save(self, step: int, payload: dict[str, Any]) -> None:
        """Write what a run must remember after `step`, then drop all but the newest `keep`.

        `payload` holds tensors, numbers, strings and None in dicts, lists and tuples; anything else raises TypeError.
        """
        unfinished = make_folder(self.folder) / "unfinished"
        try:
            with explain_disk_errors(self.folder):
                pack(payload, unfinished)
                flush(unfinished)
                path = unfinished.rename(self.folder / f"step-{step:08d}.{sha256(unfinished)}.safetensors")
                flush(self.folder)
                self._prune(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def latest(
        self, is_recorded: Callable[[dict[str, Any]], bool] = lambda payload: True
    ) -> tuple[int, dict[str, Any]] | None:
        """The newest step that was saved and what was saved then, tensors on the CPU; None when there is none.

        A file that is damaged is set aside with a warning, and so is one of which `is_recorded` says that the numbers
        which led to it are lost; the one before it is taken.
        """
        saved = self._saved()
        while saved:
            path = saved.pop()
            instead = "the checkpoint before it is taken" if saved else "what it belongs to begins again"
            if sha256(path) != path.name.split(".")[1]:
                self._set_aside(path, "damaged", f"is damaged: set aside, {instead}")
            elif is_recorded(payload := unpack(path)):
                return _step(path), payload
            else:
                self._set_aside(path, "unrecorded", f"goes on from numbers that are lost: set aside, {instead}")
        return None

    def clear(self) -> None:
        """Forget every checkpoint."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _set_aside(self, path: Path, why: str, told: str) -> None:
        path.rename(path.with_name(f"{path.name}.{why}"))
        self._warn(f"{path} {told}")

    def _saved(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if NAME.fullmatch(path.name)), key=_step)

    def _prune(self, newest: Path) -> None:
        others = [path for path in self._saved() if path != newest]
        twins = [path for path in others if _step(path) == _step(newest)]
        before = [path for path in reversed(others) if path not in twins]
        for path in twins + before[self.keep - 1 :]:
            path.unlink()


def _step(path: Path) -> int:
    return int(path.name.split(".")[0].removeprefix("step-"))
