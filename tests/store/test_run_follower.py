"""The follower of run folders with a tracker in memory: new records only, reopening after errors and cuts, warnings."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest

from alignbench.store import run_follower
from alignbench.store.follower import advance
from alignbench.store.jsonl import JsonLines
from alignbench.store.run_follower import RunFollower
from alignbench.store.tracking_info import TRACKING, TrackingInfo, is_behind, read_info, write_info

INFO = TrackingInfo(uri="memory://", output_dir="out", experiment="e", run_name="one", tags={"phase": "rl"}, params={})


class Memory:
    """A tracker that keeps the steps of each run folder, and fails on demand."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.paths: list[str] = []
        self.status: str | None = None
        self.errors: list[Exception] = []
        self.opened = 0

    def open(self, info: TrackingInfo, run_dir: Path) -> None:
        self.opened += 1
        self._known = set(self.steps)

    def log(self, records: Sequence[dict[str, Any]]) -> None:
        for record in records:
            if self.errors:
                raise self.errors.pop()
            if "path" in record:
                self.paths.append(record["path"])
            elif record["step"] not in self._known:
                self.steps.append(record["step"])

    def end(self, status: str) -> None:
        self.status = status


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    write_info(tmp_path, INFO)
    append(tmp_path, 0, 1, 2)
    return tmp_path


def append(run_dir: Path, *steps: int) -> None:
    file = JsonLines(run_dir / "metrics.jsonl")
    for step in steps:
        file.append({"phase": "rl", "step": step, "metrics": {"x": 1.0}})
    file.close()


def test_only_new_records_are_logged(run_dir: Path, memory: Memory) -> None:
    run = RunFollower(run_dir, lambda: memory)
    for steps in ((), (3,), (), (4, 5)):
        append(run_dir, *steps)
        run.update()
    run.end("FAILED")
    assert (memory.steps, memory.opened, memory.status) == ([0, 1, 2, 3, 4, 5], 1, "FAILED")
    assert read_info(run_dir) == replace(INFO, status="FAILED", logged=True)


def test_an_error_reopens_the_run_and_logs_the_rest(run_dir: Path, memory: Memory) -> None:
    run = RunFollower(run_dir, lambda: memory)
    run.update()
    append(run_dir, 3, 4)
    memory.errors = [ValueError("away")]
    with pytest.raises(ValueError, match="away"):
        run.update()
    run.close()
    assert is_behind(run_dir)
    run.end("FINISHED")
    assert (memory.steps, memory.opened) == ([0, 1, 2, 3, 4], 2)


def test_records_after_a_cut_are_logged_once(run_dir: Path, memory: Memory) -> None:
    run = RunFollower(run_dir, lambda: memory)
    run.update()
    JsonLines(run_dir / "metrics.jsonl").cut("rl", 0)
    append(run_dir, 1, 2, 3)
    run.update()
    assert memory.steps == [0, 1, 2, 3]


def test_two_processes_do_not_log_one_folder_at_once(
    run_dir: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_follower, "LOCK_SECONDS", 0.1)
    first, second = RunFollower(run_dir, lambda: memory), RunFollower(run_dir, lambda: memory)
    first.update()
    with pytest.raises(filelock.Timeout):
        second.update()
    first.close()
    second.update()
    assert memory.steps == [0, 1, 2]


def test_the_files_of_earlier_versions_are_read(run_dir: Path, memory: Memory) -> None:
    (run_dir / "keepsakes.jsonl").write_text('{"path": "a.svg", "folder": null}\n')
    info = json.loads((run_dir / TRACKING).read_text())
    del info["logged"], info["status"]
    (run_dir / TRACKING).write_text(json.dumps({**info, "told": False}))
    assert is_behind(run_dir)
    RunFollower(run_dir, lambda: memory).end("KILLED")
    assert memory.paths == ["a.svg"]
    assert not is_behind(run_dir)


def test_a_run_is_followed_until_it_has_a_status(run_dir: Path, memory: Memory) -> None:
    run = RunFollower(run_dir, lambda: memory)
    assert not advance(run, closing=False, failed=set())
    assert memory.status is None
    write_info(run_dir, replace(INFO, status="KILLED"))
    assert advance(run, closing=False, failed=set())
    assert memory.status == "KILLED"
    assert not is_behind(run_dir)


def test_a_run_whose_process_was_killed_gets_no_status(run_dir: Path, memory: Memory) -> None:
    assert advance(RunFollower(run_dir, lambda: memory), closing=True, failed=set())
    assert (memory.opened, memory.status) == (0, None)
    assert is_behind(run_dir)


def test_a_failing_tracker_gives_one_warning_and_is_tried_again(
    run_dir: Path, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    run, failed = RunFollower(run_dir, lambda: memory), set[str]()
    memory.errors = [ValueError("away"), ValueError("away")]
    for _ in range(2):
        run.retry_at = 0.0
        assert not advance(run, closing=False, failed=failed)
    assert caplog.text.count("MLflow at memory:// fails: away. The run continues") == 1
    assert not advance(run, closing=False, failed=failed)
    assert memory.steps == []
    run.retry_at = 0.0
    assert not advance(run, closing=False, failed=failed)
    assert memory.steps == [0, 1, 2]


def test_a_tracker_that_fails_at_the_end_is_left_to_sync(run_dir: Path, memory: Memory) -> None:
    write_info(run_dir, replace(INFO, status="FINISHED"))
    memory.errors = [ValueError("away")]
    assert advance(RunFollower(run_dir, lambda: memory), closing=True, failed=set())
    assert is_behind(run_dir)


def test_a_removed_run_folder_is_not_followed(tmp_path: Path, memory: Memory) -> None:
    assert advance(RunFollower(tmp_path / "removed", lambda: memory), closing=False, failed=set())
