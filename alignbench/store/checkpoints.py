"""Checkpoints of a run: saved atomically, verified by checksum, loaded for an exact resume, and pruned."""

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
"""How many checkpoints of a run are kept."""


class Checkpoints:
    """The checkpoints of a run: one file each, named by its step and the sha256 of its bytes.

    Saving is atomic: a run that is killed while saving resumes from the checkpoint before.
    """

    def __init__(self, folder: Path, keep: int = KEEP, warn: Callable[[str], None] = logger.warning) -> None:
        assert keep >= 1, "keep at least one checkpoint"
        self.folder = Path(folder)
        self.keep = keep
        self._warn = warn

    def save(self, step: int, payload: dict[str, Any]) -> None:
        """Save the state of a run after `step`, then remove all but the newest `keep` checkpoints.

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
        """The step and the payload of the newest usable checkpoint, tensors on the CPU; None when there is none.

        A damaged file is renamed with a warning, and so is one for which `is_recorded` is False, because records of
        the steps before it are lost. Then the checkpoint before it is used.
        """
        saved = self._saved()
        while saved:
            path = saved.pop()
            instead = "the checkpoint before it is used" if saved else "training starts over"
            if sha256(path) != path.name.split(".")[1]:
                self._reject(path, "damaged", f"is damaged: renamed, {instead}")
            elif is_recorded(payload := unpack(path)):
                return _step(path), payload
            else:
                self._reject(path, "unrecorded", f"continues from records that are lost: renamed, {instead}")
        return None

    def clear(self) -> None:
        """Remove all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _reject(self, path: Path, suffix: str, reason: str) -> None:
        path.rename(path.with_name(f"{path.name}.{suffix}"))
        self._warn(f"{path} {reason}")

    def _saved(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if NAME.fullmatch(path.name)), key=_step)

    def _prune(self, newest: Path) -> None:
        others = [path for path in self._saved() if path != newest]
        same_step = [path for path in others if _step(path) == _step(newest)]
        other_steps = [path for path in reversed(others) if path not in same_step]
        for path in same_step + other_steps[self.keep - 1 :]:
            path.unlink()


def _step(path: Path) -> int:
    return int(path.name.split(".")[0].removeprefix("step-"))
