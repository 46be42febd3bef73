"""Folders are replaced atomically, also when the process that fills them fails or is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from full_disk import at_most
from safetensors.torch import save_file

from alignbench.core.errors import UserError
from alignbench.store.disk import atomic_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from alignbench.store import disk
flush, left = disk.flush, [int(sys.argv[2])]
def kill_after(path):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(path)
disk.flush = kill_after
with disk.atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "config.json").write_text("new")
    (folder / "weights").write_text("new")
"""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}


def test_a_filled_folder_replaces_the_old_one(tmp_path: Path) -> None:
    for text in ("one", "two"):
        before = contents(tmp_path / "final")
        with atomic_folder(tmp_path / "final") as folder:
            (folder / text).write_text(text)
            assert contents(tmp_path / "final") == before
        assert contents(tmp_path / "final") == {text: text}
        assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_an_error_leaves_the_folder_unchanged(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "config.json").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "final") as folder:
        (folder / "config.json").write_text((folder / "nowhere").read_text())
    assert contents(tmp_path / "final") == {"config.json": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


@pytest.mark.parametrize("flushes", range(4))
def test_a_process_that_is_killed_leaves_the_old_folder_or_the_new_one(tmp_path: Path, flushes: int) -> None:
    """Killed before each flush: of the two files, of their folder, and of the folder around it."""
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "config.json").write_text("old")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "final"), str(flushes)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    new = {"config.json": "new", "weights": "new"}
    assert contents(tmp_path / "final") == (new if flushes == 3 else {"config.json": "old"})
    with atomic_folder(tmp_path / "final") as folder:
        assert not os.listdir(folder), "the files of the killed process are removed"
        (folder / "config.json").write_text(json.dumps("newer"))
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_weights_that_do_not_fit_on_the_disk_name_the_remedy(tmp_path: Path) -> None:
    with (
        at_most(50_000),
        pytest.raises(UserError, match="free some space there"),
        atomic_folder(tmp_path / "final") as folder,
    ):
        save_file({"weights": torch.zeros(100_000)}, folder / "model.safetensors")
    assert not list(tmp_path.iterdir())
